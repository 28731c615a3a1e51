package server

import (
	"hash/maphash"
	"net/http"
	"net/netip"
	"sync/atomic"
)

// clientSlots is how many counters a clients has, in 32 KiB.
const clientSlots = 4096

// clients counts what each client has of something. Two clients may have one
// counter, and then one share; a client cannot choose with whom. So the table needs
// no lock, and its size does not depend on the clients.
type clients struct {
	seed   maphash.Seed
	counts [clientSlots]atomic.Int64
}

func newClients() *clients { return &clients{seed: maphash.MakeSeed()} }

// ofRequest returns the counter of the client that sent an authorized request: of its
// token or else of its address.
func (c *clients) ofRequest(r *http.Request, tokens bool) *atomic.Int64 {
	if !tokens {
		return c.ofAddress(r.RemoteAddr)
	}
	token, _ := bearer(r.Header)
	return &c.counts[maphash.String(c.seed, token)%clientSlots]
}

// ofAddress returns the counter of the client at an address with its port. Of IPv6 a
// client has at least a network of /64 (RFC 6177), so that counts as one.
func (c *clients) ofAddress(address string) *atomic.Int64 {
	host, err := netip.ParseAddrPort(address)
	if err != nil { // not of TCP
		return &c.counts[maphash.String(c.seed, address)%clientSlots]
	}
	ip := host.Addr().Unmap()
	text := ip.As16()
	if ip.Is6() {
		clear(text[8:])
	}
	return &c.counts[maphash.Bytes(c.seed, text[:])%clientSlots]
}

// within adds n to the counter unless that makes it more than limit.
func within(counter *atomic.Int64, n, limit int64) bool {
	for {
		// To add first and undo it would make others fail meanwhile.
		used := counter.Load()
		if used+n > limit {
			return false
		}
		if counter.CompareAndSwap(used, used+n) {
			return true
		}
	}
}
