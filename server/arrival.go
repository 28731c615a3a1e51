package server

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

const (
	// lookInterval is how often the bodies that arrive are looked at.
	lookInterval = time.Second
	// stallLooks is how many looks in a row may find nothing new of a body. It also is
	// how many looks a body gets before minRate counts.
	stallLooks = 5
	// minRate is how many bytes a second a body has to arrive with, on average.
	// Whatever it is, a body has readTimeout.
	minRate = 1 << 10
)

var (
	errStalled = errors.New("nothing of the body arrived for 5 s")
	errSlow    = fmt.Errorf("less than %d bytes a second of the body arrived", minRate)
)

// arrival is how a body arrives.
type arrival struct {
	arrived atomic.Int64 // bytes

	// Guarded by Server.mu.
	seen         int64 // bytes at the last look, -1 before the first
	looks, quiet int   // all of them, and the last ones that found nothing new
	late         error // why its time is over, if it is
}

// receive reads the body as it was sent. A client that trickles its body does not
// hold its room for long, and a shutdown does not wait for it: the body has bodyGrace
// left from then on.
func (s *Server) receive(b *buffer, w http.ResponseWriter, r *http.Request, limit int64, taken *share) error {
	s.mu.Lock()
	b.arrived.Store(0)
	b.seen, b.looks, b.quiet, b.late = -1, 0, 0, nil
	s.arriving[w] = &b.arrival
	if !s.looking {
		s.looking = true
		s.lookLater()
	}
	if s.closing.Err() != nil {
		s.limitArrival(w)
	}
	s.mu.Unlock()
	delete(r.Header, "Expect") // the first read tells the client to go on: see call.leaves
	err := b.fill(r.Body, r.ContentLength, limit, taken)
	s.mu.Lock() // w must not be used after the handler
	defer s.mu.Unlock()
	delete(s.arriving, w)
	if b.late != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: %w", b.late, err)
	}
	return err
}

// lookLater has look called after lookInterval. mu is held. One timer serves all
// requests, and rests when no body arrives: one for each would cost as much as the
// rest of a small request.
func (s *Server) lookLater() {
	if s.looks == nil {
		s.looks = time.AfterFunc(lookInterval, s.look)
	} else {
		s.looks.Reset(lookInterval)
	}
}

// look ends the bodies that arrive too slowly.
func (s *Server) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.looking = len(s.arriving) > 0; !s.looking {
		return
	}
	for w, a := range s.arriving {
		if a.late != nil {
			continue
		}
		if a.late = a.pace(); a.late != nil {
			// An error means that the connection is gone.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now())
		}
	}
	s.lookLater()
}

// pace returns why the body arrives too slowly, nil if it does not.
func (a *arrival) pace() error {
	n := a.arrived.Load()
	a.looks++
	if n == a.seen {
		a.quiet++
	} else {
		a.seen, a.quiet = n, 0
	}
	switch {
	case a.quiet >= stallLooks:
		return errStalled
	case n < int64(a.looks-stallLooks)*minRate:
		return errSlow
	}
	return nil
}

// hurry begins the shutdown, once, for the bodies that arrive.
func (s *Server) hurry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Err() != nil {
		return
	}
	s.shutDown()
	for w := range s.arriving {
		s.limitArrival(w)
	}
}

// limitArrival lets a body arrive for bodyGrace.
func (s *Server) limitArrival(w http.ResponseWriter) {
	// An error means that the connection is gone.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.bodyGrace))
}
