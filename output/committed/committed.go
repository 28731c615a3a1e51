// Package committed remembers which message ids are in files, so that a
// message that comes again is not written again.
//
// A Window promises:
//
//   - it holds the ids committed last, as many and for as long as it was made for;
//   - its memory is bounded by their number (see New);
//   - of the batches that have an id at the same time one writes it, and the others
//     learn the outcome.
package committed

import (
	"context"
	"errors"
	"iter"
	"math/bits"
	"sync"
	"time"
)

// ErrPending: another batch has held one of the ids for patience, and it is not
// known yet whether the id will be in a file.
var ErrPending = errors.New("another batch with one of the ids is still being written")

// patience bounds how long a batch waits for another. It is long for a write, and
// short against a worker's time-out: when the disk hangs, the worker is to keep its
// batch and not to be replaced.
const patience = 5 * time.Second

// Window is the ids that were committed last. Its methods may be called
// concurrently.
type Window struct {
	began time.Time // of the window's clock, which never jumps; read-only

	mu      sync.Mutex // guards what follows
	store   store
	pending map[block]*run // the claimed ids: the runs of a block are linked
	// stood is for how long the ages of what was committed until loaded stood still.
	loaded int64
	stood  time.Duration
	set    time.Duration // by how much the wall clock was set since began
}

// New returns an empty window that remembers at least the last ids, an id per
// message, for age since their commit. Both must be positive; age counts in
// milliseconds. The last keep of the ids are remembered whatever their age.
//
// It takes memory as it fills. Ids of one submission that were committed together
// share a record:
//
//	every id is of another submission           49 bytes per id at most, 45 of 200,000
//	batches of 5 of a large submission          10
//	thousands at once, of submissions of 100
//	over 5 shards                               5
//	a claim, besides                            24, and 100 for each 64 of a submission
func New(ids, keep int, age time.Duration) *Window {
	return &Window{began: time.Now(), store: newStore(ids, keep, age), pending: make(map[block]*run)}
}

// now is how long ago the window was made, in milliseconds of the monotonic clock.
func (w *Window) now() int64 { return time.Since(w.began).Milliseconds() }

// Claim is the ids of one batch while it is being written.
type Claim struct {
	window *Window
	// keys is those of the batch, in its order. A key that this batch must not
	// write is marked. Guarded by window.mu until Window.Claim returns, read-only
	// after.
	keys  []Key
	fresh int // those that are not marked; as keys

	runs []run         // guarded by window.mu once it is claimed
	few  [2]run        // for the runs of a small batch
	over bool          // guarded by window.mu
	done chan struct{} // made by the first claim that waits; guarded by window.mu
}

// Claim reserves those of the keys that are not in the window, all in one
// step. It waits for a key that another claim has: once committed the key is in the
// window, once released this claim gets it. A claim that waits has reserved nothing,
// so no two claims wait for each other.
//
// It fails with ctx's cause, or with ErrPending after 5 seconds. keys belongs to
// the claim from then on.
func (w *Window) Claim(ctx context.Context, keys []Key) (*Claim, error) {
	c := &Claim{window: w, keys: keys}
	c.gather()
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
			return nil, ErrPending
		}
	}
}

// try makes the claim, or returns what to wait for before the next try.
func (w *Window) try(c *Claim) (wait <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.store.expire(w.now())
	for i := range c.runs {
		r := &c.runs[i]
		for rival := w.pending[r.block]; rival != nil; rival = rival.next {
			if rival.bits&r.bits == 0 {
				continue
			}
			if rival.claim.done == nil {
				rival.claim.done = make(chan struct{})
			}
			return rival.claim.done
		}
	}
	for i := range c.runs {
		w.take(c, &c.runs[i])
	}
	return nil
}

// take gives a claim the ids of a run that no claim has. The caller holds the lock.
func (w *Window) take(c *Claim, r *run) {
	first := w.pending[r.block]
	fresh := r.bits
	for own := first; own != nil; own = own.next { // the same ids earlier in the batch
		if own.claim == c {
			fresh &^= own.bits
		}
	}
	fresh &^= w.store.known(r.block, fresh)
	c.mark(r, fresh)
	r.bits = fresh
	if fresh != 0 {
		r.next = first
		w.pending[r.block] = r
	}
}

// mark marks those of a run that are not fresh, or are so for the second time.
func (c *Claim) mark(r *run, fresh uint64) {
	c.fresh += bits.OnesCount64(fresh)
	if bits.OnesCount64(fresh) == r.to-r.from {
		return
	}
	for i, k := range c.keys[r.from:r.to] {
		if fresh&k.bit() == 0 {
			c.keys[r.from+i] = duplicate
		}
		fresh &^= k.bit()
	}
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
	w.store.commit(c.runs, now)
	w.store.expire(now)
	c.end()
}

// Release gives the ids to the next claim of them. They are in no file, and this
// claim's batch will never write them. It does nothing if the claim is over. Any
// goroutine may call it.
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
	for i := range c.runs {
		c.window.leave(&c.runs[i])
	}
	if c.done != nil {
		close(c.done)
	}
}

// leave takes a run out of pending. The caller holds the lock.
func (w *Window) leave(r *run) {
	switch first := w.pending[r.block]; {
	case r.bits == 0: // it never was
	case first != r:
		for first.next != r {
			first = first.next
		}
		first.next = r.next
	case r.next == nil:
		delete(w.pending, r.block)
	default:
		w.pending[r.block] = r.next
	}
	r.next = nil // it is not to keep others alive
}

// Remembered returns how many ids are in the window, and how long ago the oldest was
// committed.
func (w *Window) Remembered() (ids int, oldest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.store.ids == 0 {
		return 0, 0
	}
	return w.store.ids, time.Duration(w.now()-w.store.at(w.store.first).at) * time.Millisecond
}

// Full tells whether the window has no use for ids that were committed so long ago, behind
// so many that are newer.
func (w *Window) Full(newer int, ago time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.store.full(newer, ago.Milliseconds())
}

// Load puts what was committed before in front of what the window has, which is
// older, or the same. files yields how long ago the ids of a file were committed, and
// what reads them in the file's order (the last are the newest); the newest file comes
// first. Load reads no more than the window holds, and returns how many ids are in it.
func (w *Window) Load(files iter.Seq2[time.Duration, func() []Key]) (ids int) {
	w.mu.Lock()
	loaded := w.store.empty()
	w.mu.Unlock()
	var last [1]run
	for ago, read := range files {
		if loaded.full(loaded.ids, ago.Milliseconds()) {
			loaded.forgot = true
			break
		}
		at := w.now() - ago.Milliseconds()
		for keys := read(); len(keys) > 0 && loaded.ids < loaded.limit; {
			last[0], keys = cutRun(keys)
			last[0].bits &^= loaded.known(last[0].block, last[0].bits)
			loaded.commit(last[:], at)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	for n := w.store.next; n != w.store.first; n-- {
		r := w.store.at(n - 1)
		if loaded.full(loaded.ids, now-r.at) {
			loaded.forgot = true
			break
		}
		last[0] = run{block: r.block(), bits: r.bits}
		last[0].bits &^= loaded.known(last[0].block, last[0].bits)
		loaded.commit(last[:], r.at)
	}
	loaded.reverse()
	loaded.expire(now)
	loaded.forgot = loaded.forgot || w.store.forgot || loaded.ids >= loaded.limit // the rest of a file may be missing
	w.store = loaded
	return w.store.ids
}
