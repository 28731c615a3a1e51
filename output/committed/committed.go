// Package committed remembers which message ids are in files, so that a
// message that comes again is not written again.
//
// It promises of a Window that the ids committed last are in it, as many and
// for as long as it was made for; that its memory is bounded by their number
// (see New); and that of the batches in hand at one time one writes an id, the
// others hear what became of that.
package committed

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"
)

// ErrInHand: another batch has held one of the ids for patience, and nobody
// can say yet whether it will be in a file.
var ErrInHand = errors.New("another batch with one of the ids is still being written")

// patience bounds how long a batch waits for another. It is long for a write,
// and short against a worker's time-out: who waits for a disk that hangs is to
// hold its batch, not to lose it.
const patience = 5 * time.Second

// Window is the ids that were committed last. Its methods may be called
// concurrently.
type Window struct {
	began time.Time // its monotonic part makes the window's clock; read-only

	mu      sync.Mutex // guards what follows
	store   store
	pending map[Key]*Claim // the ids in hand
}

// New returns an empty window that remembers at least the last ids, an id per
// message, for age since their commit. Both must be positive; age counts in
// milliseconds.
//
// It takes memory as it fills: up to 49 bytes per id, and 45 with the default
// of 200,000, if every id is of another submission. Ids of one submission that
// were committed together share a record: batches of five of a large submission
// take 10 bytes per id.
func New(ids int, age time.Duration) *Window {
	return &Window{began: time.Now(), store: newStore(ids, age), pending: make(map[Key]*Claim)}
}

// now is the wall clock, but for jumps of it since the window was made: it is
// compared with the times of files from before.
func (w *Window) now() int64 { return w.began.Add(time.Since(w.began)).UnixMilli() }

// Claim is the ids of one batch while it is in hand.
type Claim struct {
	window *Window
	// keys is those of the batch, in its order; what is not for this batch to
	// write is marked. Guarded by window.mu until Window.Claim returns,
	// read-only after.
	keys  []Key
	fresh int // those that are not marked; as keys

	over bool          // guarded by window.mu
	done chan struct{} // made by the first who waits; guarded by window.mu
}

// Claim reserves those of the keys that are not in the window, all in one
// step. A key that another claim has is waited for: once it is committed it is
// in the window, once it is released this claim gets it. Who waits has
// reserved nothing, so no two can wait for each other.
//
// It fails with ctx's cause, or with ErrInHand after 5 seconds. keys belongs to
// the claim from then on.
func (w *Window) Claim(ctx context.Context, keys []Key) (*Claim, error) {
	c := &Claim{window: w, keys: keys}
	var expired <-chan time.Time
	for {
		wait := w.try(c)
		if wait == nil {
			return c, nil
		}
		if expired == nil {
			t := time.NewTimer(patience)
			defer t.Stop()
			expired = t.C
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-expired:
			return nil, ErrInHand
		}
	}
}

// try makes the claim, or returns what to wait for before the next try.
func (w *Window) try(c *Claim) (wait <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.store.expire(w.now())
	for _, k := range c.keys {
		if rival := w.pending[k]; rival != nil {
			if rival.done == nil {
				rival.done = make(chan struct{})
			}
			return rival.done
		}
	}
	for i, k := range c.keys {
		switch {
		case k == noKey:
			c.fresh++
		case w.pending[k] != nil || w.store.has(k): // pending by now is this claim's own
			c.keys[i] = duplicate
		default:
			c.fresh++
			w.pending[k] = c
		}
	}
	return nil
}

// Fresh is how many of the keys are the claim's to write. A key that occurs
// twice is so the first time.
func (c *Claim) Fresh() int { return c.fresh }

// IsFresh tells whether the i-th key is the claim's to write.
func (c *Claim) IsFresh(i int) bool { return c.keys[i] != duplicate }

// Commit puts the fresh ids into the window: they are durable in a file. It
// does nothing if the claim is over.
func (c *Claim) Commit() {
	w := c.window
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.over {
		return
	}
	now := w.now()
	w.store.commit(c.keys, now)
	w.store.expire(now)
	c.end()
}

// Release gives the ids to whoever claims them next: they are in no file, and
// this claim's batch will never bring them there. It does nothing if the claim
// is over; it may be called by any goroutine.
func (c *Claim) Release() {
	c.window.mu.Lock()
	defer c.window.mu.Unlock()
	if !c.over {
		c.end()
	}
}

// end ends the claim. The caller holds the window's lock.
func (c *Claim) end() {
	c.over = true
	for _, k := range c.keys {
		if k.isID() {
			delete(c.window.pending, k)
		}
	}
	if c.done != nil {
		close(c.done)
	}
}

// Load fills an empty window with what was committed before, the newest
// first: each turn of files yields the ids of one file, and when it was
// committed. It asks for no more than the window holds, and returns how many
// ids are in it.
func (w *Window) Load(files iter.Seq2[[]Key, time.Time]) (ids int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for keys, at := range files {
		for i, k := range keys {
			if k != noKey && w.store.has(k) {
				keys[i] = duplicate
			}
		}
		w.store.commit(keys, at.UnixMilli())
		if w.store.ids >= w.store.limit {
			break
		}
	}
	w.store.reverse()
	w.store.expire(w.now())
	return w.store.ids
}
