package server

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

var (
	errSockets     = errors.New("there are as many WebSockets as there may be")
	errSocketShare = errors.New("the client has half of the WebSockets that there may be")
)

// sockets are those that are open. http.Server forgets a connection that became a
// WebSocket, so its Shutdown neither closes it nor waits for it.
type sockets struct {
	limit int // set before use, read-only after

	mu       sync.Mutex     // guards what follows
	of       map[string]int // how many each client has, pending ones as well
	pending  int            // handshakes under way
	open     map[*Socket]struct{}
	draining bool
	none     chan struct{} // closed when there are none, in a drain
}

// share is how many one client may have.
func (o *sockets) share() int { return max(1, o.limit/2) }

// reserve takes one of the WebSockets that there may be for a client, see ClientKey. It is
// given back by cancel or, after keep, by remove.
func (o *sockets) reserve(client string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.draining {
		return errDraining
	}
	if len(o.open)+o.pending >= o.limit {
		return errSockets
	}
	if o.of[client] >= o.share() {
		return errSocketShare
	}
	o.pending++
	o.of[client]++
	return nil
}

func (o *sockets) cancel(client string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pending--
	o.giveBack(client)
}

// giveBack counts one less of a client. mu is held.
func (o *sockets) giveBack(client string) {
	if o.of[client]--; o.of[client] == 0 {
		delete(o.of, client)
	}
	o.tellNone()
}

func (o *sockets) keep(s *Socket) {
	o.mu.Lock()
	o.pending--
	o.open[s] = struct{}{}
	draining := o.draining
	o.mu.Unlock()
	if draining {
		s.drain()
	}
}

func (o *sockets) remove(s *Socket) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.open, s)
	o.giveBack(s.client)
}

// tellNone closes none if it is time. mu is held.
func (o *sockets) tellNone() {
	if o.draining && o.pending == 0 && len(o.open) == 0 {
		select {
		case <-o.none:
		default:
			close(o.none)
		}
	}
}

// drain refuses new WebSockets, and tells those there are.
func (o *sockets) drain() {
	o.mu.Lock()
	o.draining = true
	o.tellNone()
	open := slices.Collect(maps.Keys(o.open))
	o.mu.Unlock()
	for _, s := range open {
		s.drain()
	}
}

// wait returns true when all are closed. If ctx ends before, it breaks them off.
func (o *sockets) wait(ctx context.Context) bool {
	select {
	case <-o.none:
		return true
	case <-ctx.Done():
	}
	o.mu.Lock()
	open := slices.Collect(maps.Keys(o.open))
	o.mu.Unlock()
	for _, s := range open {
		go s.breakOff(net.ErrClosed) // TLS may want to say a last word
	}
	select {
	case <-o.none:
	case <-time.After(closeGrace):
	}
	return false
}
