package conn

import (
	"errors"
	"fmt"
	"sync"

	"async-data-processor/broker"
)

// Session is one connection and everything that ends with it.
type Session interface {
	// Prepare declares the queues and makes the session ready for its role. It is
	// called once, first, and ends soon after Cut.
	Prepare() error
	// Over tells whether the session has ended, or is about to.
	Over() bool
	// Leave closes the connection in order. The session has failed before.
	Leave()
	// Cut closes the connection at once. It may be called at any time, concurrently.
	Cut()

	life() *Life
}

// Life is the part of a session that is the same for every engine, which embeds it.
type Life struct {
	// Loops are the goroutines that end with the session.
	Loops sync.WaitGroup

	once   sync.Once
	cause  error         // set before gone is closed, read-only after
	gone   chan struct{} // closed when the session is over
	repair chan struct{} // of one
}

// NewLife begins the life of a session.
func NewLife() *Life { return &Life{gone: make(chan struct{}), repair: make(chan struct{}, 1)} }

func (l *Life) life() *Life { return l }

// Fail ends the session for the given reason; the first reason counts.
func (l *Life) Fail(cause error) {
	l.once.Do(func() {
		l.cause = cause
		close(l.gone)
	})
}

// Gone is closed when the session is over.
func (l *Life) Gone() <-chan struct{} { return l.gone }

// Ended tells whether the session is over.
func (l *Life) Ended() bool {
	select {
	case <-l.gone:
		return true
	default:
		return false
	}
}

// Cause is why the session is over, once Gone is closed.
func (l *Life) Cause() error { return l.cause }

// AskRepair lets the session look at its queues again.
func (l *Life) AskRepair() {
	select {
	case l.repair <- struct{}{}:
	default: // it is asked for already
	}
}

// Repair receives when AskRepair was called.
func (l *Life) Repair() <-chan struct{} { return l.repair }

// Lost is the outcome of what was not confirmed when the session ended.
func (l *Life) Lost() error {
	return broker.Unknown(fmt.Errorf("the connection was lost before the confirm: %w", l.cause))
}

// Stale wraps the reason why a delivery could not be settled: nil, or the error of
// a library that wraps closed, adds nothing.
func Stale(err, closed error) error {
	if err == nil || errors.Is(err, closed) {
		return broker.ErrStale
	}
	return fmt.Errorf("%w: %w", broker.ErrStale, err)
}
