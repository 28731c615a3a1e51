package jetstream

import (
	"sync"
	"time"

	"async-data-processor/broker"
)

// gate remembers why publishes are refused, so that people are told once when
// it closes and once when it opens. The zero gate is open.
type gate struct {
	mu    sync.Mutex // guards what follows
	err   error      // nil while it is open
	since time.Time  // when it closed
	shown bool       // the stream shows the reason, and will show when it is gone
}

// set closes the gate for a reason, or opens it. It tells whether that is news.
func (g *gate) set(err error) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	news := (g.err == nil) != (err == nil)
	if news {
		g.since, g.shown = time.Now(), false
	}
	g.err = err
	return news
}

func (g *gate) reason() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// over judges, by whether the stream has room, if the reason may be gone: a
// reason that the stream never showed has only a time.
func (g *gate) over(room bool, patience time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil || !room {
		g.shown = g.shown || !room
		return false
	}
	return g.shown || time.Since(g.since) > patience
}

// blockedError says that the broker refuses publishes.
type blockedError struct{ err error }

func (e *blockedError) Error() string { return "the broker blocks publishing: " + e.err.Error() }

func (e *blockedError) Unwrap() error { return e.err }

// admit asks Config.Admit.
func (b *Broker) admit() error {
	if b.cfg.Admit == nil {
		return nil
	}
	err := b.cfg.Admit()
	b.block(&b.refused, err)
	if err != nil {
		return &blockedError{err}
	}
	return nil
}

// block sets a gate and tells about it, and whether it is news.
func (b *Broker) block(g *gate, err error) bool {
	if !g.set(err) {
		return false
	}
	n := broker.Notice{Kind: broker.Unblocked, Role: b.publishing.role, Shard: -1}
	if err != nil {
		n.Kind, n.Err = broker.Blocked, err
	}
	b.notify(n)
	return true
}
