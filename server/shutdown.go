package server

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Drain makes the server not ready, and has it refuse new submissions. The
// listener stays open, so that load balancers see why; submissions under way go on.
// WebSockets end after the answers to what was read of them.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.sockets.drain()
}

// Shutdown drains the server, closes its listeners and idle connections, and
// returns nil once every request under way is answered. Bodies that are still
// arriving get a few seconds, then 503. So do clients that do not read their answers,
// then their connections are closed. If ctx ends before each submission has its
// outcome, Shutdown closes the connections and returns an error that wraps the
// context's cause; the publish time-out still bounds what is being published.
//
// It may be called more than once, and before Serve.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Drain()
	s.hurry()
	patience, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	go s.giveUp(patience, giveUp)
	err := s.http.Shutdown(patience)
	if s.sockets.wait(patience) && err == nil {
		return nil
	}
	closed := s.http.Close()
	if cause := context.Cause(patience); cause == errUnread {
		err = nil
	} else if cause != nil {
		err = cause // it says whose deadline passed
	}
	if err = errors.Join(err, closed); err != nil {
		err = fmt.Errorf("shut down HTTP: %w", err)
	}
	return err
}

var errUnread = errors.New("clients do not read their answers")

// giveUp calls stop when no submission has been under way for answerGrace: each has
// its outcome, and what is left are clients that do not read it.
func (s *Server) giveUp(ctx context.Context, stop context.CancelCauseFunc) {
	tick := time.Tick(answerGrace / 20)
	for since := time.Now(); time.Since(since) < answerGrace; {
		select {
		case <-tick:
		case <-ctx.Done():
			return
		}
		if s.budget.used.Load() > 0 {
			since = time.Now()
		}
	}
	stop(errUnread)
}
