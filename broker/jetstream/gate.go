package jetstream

import (
	"fmt"
	"sync"
	"time"

	"async-data-processor/broker/conn"
	"async-data-processor/event"
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

// blocks says why no publish is taken, nil while the gate is open.
func (g *gate) blocks() error {
	if reason := g.reason(); reason != nil {
		return fmt.Errorf("the broker blocks publishing, waiting until it takes publishes again: %w", reason)
	}
	return nil
}

// block sets the gate and tells about it, and whether it is news.
func (b *Broker) block(err error) bool {
	if !b.full.set(err) {
		return false
	}
	e := event.Connection{State: event.Unblocked, Role: conn.Publish, Shard: -1, Err: err}
	if err != nil {
		e.State = event.Blocked
	}
	b.conns.Send(e)
	return true
}
