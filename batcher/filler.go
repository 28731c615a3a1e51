package batcher

import (
	"time"

	"async-data-processor/message"
)

// filler moves runs of messages from one delivery at a time to the batches.
type filler struct {
	size   int // of a full batch
	most   int // of those that leave together
	linger time.Duration

	// batch is what may leave: full ones, or one that is incomplete and was
	// released; nil if there is none.
	batch *message.Batch
	// next is the runs of the incomplete batch behind it, and pending the number
	// of their messages, less than size. They become a batch when they are
	// complete, or may leave and nothing is ahead of them.
	next    []Opened
	pending int
	// released tells that next may leave incomplete, because of cause.
	released bool
	cause    message.Cause
	timer    *time.Timer // runs while there is a next that is not released
	// rest is what of the current delivery has not found a place.
	rest Opened
}

func newFiller(cfg Config) *filler {
	f := &filler{size: cfg.Size, most: max(cfg.Together/cfg.Size, 1) * cfg.Size, linger: cfg.Linger}
	f.timer = time.NewTimer(f.linger)
	f.timer.Stop()
	return f
}

// full tells that there is no room for another delivery.
func (f *filler) full() bool { return f.batch != nil && len(f.batch.Messages) >= f.most }

// fill moves what fits.
func (f *filler) fill() {
	for len(f.rest.Messages) > 0 && !f.full() {
		held := f.pending
		if f.batch != nil {
			held += len(f.batch.Messages)
		}
		// Of what is held and comes, that much makes full batches.
		whole := min((held+len(f.rest.Messages))/f.size*f.size, f.most)
		if whole <= held {
			f.wait()
			break
		}
		f.complete(whole - held)
	}
	if f.batch == nil && f.released {
		f.join()
		f.batch.Cause = f.cause
	}
}

// wait puts the rest, which completes no batch, behind what is incomplete.
func (f *filler) wait() {
	if f.batch != nil && len(f.batch.Messages)%f.size != 0 {
		f.batch.Add(f.rest.Delivery, f.rest.Messages...) // released before, and not taken yet
	} else {
		if f.pending == 0 {
			f.timer.Reset(f.linger)
		}
		f.next = append(f.next, f.rest)
		f.pending += len(f.rest.Messages)
	}
	f.rest = Opened{}
}

// complete makes full batches of all that is held and n messages of the rest.
func (f *filler) complete(n int) {
	f.join()
	f.batch.Add(f.rest.Delivery, f.rest.Messages[:n]...)
	f.batch.Cause = message.Full
	if f.rest.Messages = f.rest.Messages[n:]; len(f.rest.Messages) == 0 {
		f.rest = Opened{}
	}
}

// join moves next to the end of the batch.
func (f *filler) join() {
	if f.batch == nil {
		f.batch = &message.Batch{Size: f.size}
	}
	for _, run := range f.next {
		f.batch.Add(run.Delivery, run.Messages...)
	}
	clear(f.next) // or it would keep deliveries in memory
	f.next, f.pending, f.released = f.next[:0], 0, false
	f.timer.Stop()
}

// release lets what is incomplete leave as soon as nothing is ahead of it.
func (f *filler) release(c message.Cause) {
	if f.pending > 0 && !f.released {
		f.released, f.cause = true, c
	}
}
