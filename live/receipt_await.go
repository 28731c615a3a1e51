package live

import (
	"sync"

	"async-data-processor/message"
)

// Progress is how far the messages of a submission have come.
type Progress struct {
	// Written is how many are durable in a file, and Dead how many are dead letters.
	Written, Dead int
	// Done tells that there are no others.
	Done bool
}

// progress is what is known now. mu of the Receipts is held.
func (e *entry) progress() Progress {
	return Progress{Written: e.all.count(), Dead: e.dead.bits().without(e.all).count(), Done: e.done}
}

// Waiting is a place among those who wait for a submission that is not accepted yet. Its
// methods may be called concurrently.
type Waiting struct {
	receipts *Receipts
	id       string
	client   string
	told     func(Progress)

	mu    sync.Mutex // guards what follows
	watch *Watch     // nil until the submission is accepted
	ended bool
}

// Await takes a place for a submission that a client is about to publish. It returns false
// if 10,000 places are taken already, or 5,000 by this client. told is called at most once:
// when each of its messages is written or dead. It is called after Accepted, and returns
// soon. End is called at least once.
//
// A place costs the bus nothing until Accepted. Nothing is missed meanwhile, since owners
// tell what is written, not what has happened since they were asked.
func (r *Receipts) Await(id, client string, told func(Progress)) (*Waiting, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watches >= maxWatches || !r.waits.take(client) {
		return nil, false
	}
	r.watches++
	return &Waiting{receipts: r, id: id, client: client, told: told}, true
}

// Accepted begins the watch: the submission is published, and these shards have its
// messages.
func (w *Waiting) Accepted(shards []message.ShardCount) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended || w.watch != nil {
		return
	}
	w.watch, _ = w.receipts.watch(w.id, shards, w.told, true) // nil if the id has no count
}

// Progress returns what is known now.
func (w *Waiting) Progress() (p Progress) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watch == nil {
		return p
	}
	w.receipts.mu.Lock()
	defer w.receipts.mu.Unlock()
	return w.watch.entry.progress()
}

// End ends the watch, and frees the place. A call of told that has begun may end later.
func (w *Waiting) End() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	w.ended = true
	if w.watch != nil {
		w.watch.Close()
	}
	w.receipts.mu.Lock()
	defer w.receipts.mu.Unlock()
	w.receipts.waits.give(w.client)
	if w.watch == nil {
		w.receipts.watches--
	}
}
