package brokertest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"async-data-processor/broker"
	"async-data-processor/broker/local"
	"async-data-processor/event"
	"async-data-processor/message"
)

// Faulty is a store that does not do what it is asked, on demand. It lets the suite
// disturb the broker of package local, over whatever store.
type Faulty struct {
	local.Store

	mu      sync.Mutex // guards what follows
	changed chan struct{}
	stalled bool
	stopped bool
	loss    Loss
	breaks  int
}

// NewFaulty returns a store that does what the other one does, for now.
func NewFaulty(of local.Store) *Faulty {
	return &Faulty{Store: of, changed: make(chan struct{})}
}

var (
	errStopped = errors.New("the broker is stopped")
	errCut     = errors.New("connection reset")
)

// Break has the engine lose the store, and ends Lose.
func (f *Faulty) Break(e *local.Engine) {
	f.change(func() { f.loss, f.breaks = Nothing, f.breaks+1 })
	e.Fail(errCut)
}

// Lose lets what the store is told, or what it answers, go lost until Break.
func (f *Faulty) Lose(what Loss) { f.change(func() { f.loss = what }) }

// Stop takes the store from the engine; Start gives it back.
func (f *Faulty) Stop(e *local.Engine) {
	f.change(func() { f.stopped = true })
	e.Fail(errStopped)
}

// Start ends Stop.
func (f *Faulty) Start() { f.change(func() { f.stopped = false }) }

// Stall makes the store silent.
func (f *Faulty) Stall() { f.change(func() { f.stalled = true }) }

// Resume ends Stall.
func (f *Faulty) Resume() { f.change(func() { f.stalled = false }) }

func (f *Faulty) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	close(f.changed)
	f.changed = make(chan struct{})
}

// await waits until ok. It returns with mu held.
func (f *Faulty) await(ctx context.Context, ok func() bool) {
	f.mu.Lock()
	for !ok() && ctx.Err() == nil {
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		f.mu.Lock()
	}
}

// Recover implements local.Store.
func (f *Faulty) Recover(ctx context.Context) (map[int]local.Contents, error) {
	f.await(ctx, func() bool { return !f.stopped && !f.stalled })
	f.mu.Unlock()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return f.Store.Recover(ctx)
}

// Commit implements local.Store.
func (f *Faulty) Commit(c *local.Change) error {
	ctx := context.Background()
	f.await(ctx, func() bool { return !f.stalled })
	loss, cut, stopped := f.loss, f.breaks, f.stopped
	f.mu.Unlock()
	if stopped {
		return broker.Unknown(errStopped)
	}
	if loss == Nothing || loss == Answers {
		if err := f.Store.Commit(c); err != nil {
			return err
		}
	}
	if loss != Nothing {
		f.await(ctx, func() bool { return f.breaks > cut })
		f.mu.Unlock()
		return broker.Unknown(errCut)
	}
	return nil
}

// Read implements local.Store.
func (f *Faulty) Read(queue int, after uint64, limit int) ([]local.Item, error) {
	f.mu.Lock()
	cut := f.breaks
	f.mu.Unlock()
	f.await(context.Background(), func() bool { return !f.stalled && f.loss == Nothing || f.breaks > cut })
	lost := f.breaks > cut
	f.mu.Unlock()
	if lost {
		return nil, errCut
	}
	return f.Store.Read(queue, after, limit)
}

// LocalEngine returns a broker of package local over a Faulty for the suite.
func LocalEngine(e *local.Engine, store *Faulty) *Engine {
	return &Engine{
		Open:       func(_ testing.TB, events event.Sink) broker.Broker { return e.Client(Shards, events) },
		OpenShards: func(_ testing.TB, shards int) broker.Broker { return e.Client(shards, nil) },
		Depth: func(_ testing.TB, shard int) int {
			all, _ := e.Depth(shard)
			return all
		},
		DeadLetters: func(t testing.TB) []DeadLetter { return deadOf(t, e) },
		PublishForeign: func(_ testing.TB, shard int, id string, body []byte) {
			enqueue(e, shard, id, body)
		},
		BusInProcess: true,

		Break:   func(testing.TB) { store.Break(e) },
		Lose:    func(_ testing.TB, what Loss) { store.Lose(what) },
		Stop:    func(testing.TB) { store.Stop(e) },
		Start:   func(testing.TB) { store.Start() },
		Stall:   func(testing.TB) { store.Stall() },
		Resume:  func(testing.TB) { store.Resume() },
		Block:   func(testing.TB) { e.Block(errors.New("low on memory")) },
		Unblock: func(testing.TB) { e.Block(nil) },
	}
}

func deadOf(t testing.TB, e *local.Engine) (dead []DeadLetter) {
	c := e.Client(0, nil)
	defer c.Close()
	err := c.DeadLetters(context.Background(), func(l broker.DeadLetter) broker.Verdict {
		id := l.Envelope.ID
		if id == message.KeyedID("", l.Envelope.Body) {
			id = "" // it had none
		}
		dead = append(dead, DeadLetter{id, l.Envelope.Body, l.Reason, l.Envelope.Shard, l.Time})
		return broker.Keep
	})
	if err != nil {
		t.Error(err)
	}
	return dead
}
