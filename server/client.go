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
	if tokens {
		if token, _ := bearer(r.Header); token != "" { // else it has a cookie
			return &c.counts[maphash.String(c.seed, token)%clientSlots]
		}
	}
	return c.ofAddress(r.RemoteAddr)
}

// ofAddress returns the counter of the client at an address with its port. Of IPv6 a
// client has at least a network of /64 (RFC 6177), so that counts as one.
func (c *clients) ofAddress(address string) *atomic.Int64 {
	ip, ok := clientIP(address)
	if !ok {
		return &c.counts[maphash.String(c.seed, address)%clientSlots]
	}
	text := ip.As16()
	return &c.counts[maphash.Bytes(c.seed, text[:])%clientSlots]
}

// clientIP returns what stands for the client at an address with its port: its IP address,
// or the network of an IPv6 address. It is false for an address that is not of TCP.
func clientIP(address string) (netip.Addr, bool) {
	host, err := netip.ParseAddrPort(address)
	if err != nil {
		return netip.Addr{}, false
	}
	ip := host.Addr().Unmap().WithZone("")
	if ip.Is6() {
		text := ip.As16()
		clear(text[8:])
		ip = netip.AddrFrom16(text)
	}
	return ip, true
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
