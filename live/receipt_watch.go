package live

import (
	"slices"
	"time"

	"async-data-processor/message"
)

// Watch is one who waits for what becomes of a submission. Its methods may be called
// concurrently.
type Watch struct {
	receipts *Receipts
	entry    *entry
	changed  chan struct{} // holds one
	ready    chan struct{}

	// Guarded by receipts.mu.
	told  func(Progress) // called once when it is done; nil for nothing
	known bool           // ready is closed
}

// Watch watches a submission until Close. The error is ErrNoID, or ErrTooMany.
func (r *Receipts) Watch(id string) (*Watch, error) { return r.watch(id, nil, nil, false) }

// watch is Watch. shards are those that have the messages of a submission that this
// process has just accepted; nil else. told is as Await has it, and reserved tells that
// it counts already.
func (r *Receipts) watch(id string, shards []message.ShardCount, told func(Progress), reserved bool) (*Watch, error) {
	count, err := countOf(id)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	accepted, has, found := time.Time{}, bitset(nil), false
	if shards != nil {
		for _, s := range shards {
			has.add(s.Shard)
		}
		accepted, found = now, true
	} else if r.memory != nil {
		accepted, has, found = r.memory.find(id)
	}
	servers := r.servers()
	w := &Watch{receipts: r, changed: make(chan struct{}, 1), ready: make(chan struct{}), told: told}
	r.mu.Lock()
	if !reserved && r.watches >= maxWatches {
		r.mu.Unlock()
		return nil, ErrTooMany
	}
	if !reserved {
		r.watches++
	}
	e := r.entries[id]
	if e == nil {
		e = &entry{id: id, count: count, created: now, seek: !found, urgent: shards == nil}
		r.entries[id] = e
		r.untell(e, now)
		if r.looks.fresh(now) {
			e.found(r.looks.last)
		}
	}
	if found && e.accepted.IsZero() {
		e.accepted = accepted
	}
	if e.shards == nil {
		e.shards = has
	}
	e.urgent = e.urgent || shards == nil
	w.entry = e
	e.watches = append(e.watches, w)
	w.notify()
	r.judge(e, false, servers, now)
	if len(r.finished) > 0 {
		r.wake() // the caller may hold what told needs
	}
	r.mu.Unlock()
	return w, nil
}

// notify tells that something has changed. mu is held.
func (w *Watch) notify() {
	wakeUp(w.changed)
	if w.entry.ready && !w.known {
		w.known = true
		close(w.ready)
	}
	if w.entry.done && w.told != nil {
		w.receipts.finished = append(w.receipts.finished, w)
	}
}

// calls returns what has to be called without the lock. mu is held.
func (r *Receipts) calls() (calls []func()) {
	for _, w := range r.finished {
		if told := w.told; told != nil {
			w.told = nil
			p := w.entry.progress()
			calls = append(calls, func() { told(p) })
		}
	}
	r.finished = r.finished[:0]
	return calls
}

// Ready is closed once Receipt tells whether the submission is known: after a second at
// most, and without a silent owner much sooner.
func (w *Watch) Ready() <-chan struct{} { return w.ready }

// Changed has a token when Receipt may tell something new.
func (w *Watch) Changed() <-chan struct{} { return w.changed }

// Receipt returns what is known now. After Ready the error may be ErrNotKnown or
// ErrForgotten.
func (w *Watch) Receipt() (Receipt, error) {
	r := w.receipts
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := w.entry.failure; err != nil {
		return Receipt{}, err
	}
	return w.entry.receipt(&r.shards, time.Now()), nil
}

// Close ends the watch. It may be called more than once.
func (w *Watch) Close() {
	r := w.receipts
	r.mu.Lock()
	defer r.mu.Unlock()
	e := w.entry
	i := slices.Index(e.watches, w)
	if i < 0 {
		return
	}
	w.told = nil
	r.watches--
	if e.watches = slices.Delete(e.watches, i, i+1); len(e.watches) == 0 {
		delete(r.entries, e.id) // owners forget it when its lease ends
	}
}
