// Package batcher gathers a shard's messages into batches: a batch leaves as
// soon as it is full, or has lingered, or at the drain; it is never empty and
// never over its size. A message never waits for anything but that.
package batcher

import (
	"time"

	"async-data-processor/message"
)

// Config sets the shape of batches.
type Config struct {
	// Size is how many messages make a batch full; at least 1.
	Size int
	// Linger is how long an incomplete batch waits, counted from its first message.
	Linger time.Duration
}

// Run hands the messages of deliveries over in batches until deliveries is
// closed; then it flushes what it holds, closes batches, and returns. A lingered
// batch that finds no room in batches yet goes on filling.
//
// The pace is the workers': while a full batch waits to be taken no further
// delivery is, so the broker's prefetch bounds what is in memory.
func Run(cfg Config, deliveries <-chan Opened, batches chan<- *message.Batch) {
	defer close(batches)
	f := filler{size: cfg.Size}
	linger := time.NewTimer(cfg.Linger)
	linger.Stop()
	defer linger.Stop()

	for deliveries != nil || f.batch != nil {
		intake, handover := deliveries, chan<- *message.Batch(nil)
		if f.full() {
			intake = nil
		}
		if f.due {
			handover = batches
		}
		select {
		case d, ok := <-intake:
			if !ok {
				deliveries = nil
				f.leave(message.Flushed)
				continue
			}
			f.rest = d
		case handover <- f.batch:
			linger.Stop()
			f.batch, f.due = nil, false
		case <-linger.C:
			f.leave(message.Lingered)
		}
		if f.fill() {
			linger.Reset(cfg.Linger)
		}
	}
}

// Opened is a delivery with its messages, of which there is at least one.
type Opened struct {
	Delivery *message.Delivery
	Messages []message.Message
}

// filler moves messages from the delivery in hand to the batch that fills.
type filler struct {
	size  int
	batch *message.Batch // nil while there is nothing in it
	due   bool           // the batch may leave
	rest  Opened         // what of the delivery in hand has not found a place
}

func (f *filler) full() bool { return f.batch != nil && len(f.batch.Messages) >= f.size }

// fill moves what fits; it returns whether that began a batch.
func (f *filler) fill() (began bool) {
	if len(f.rest.Messages) == 0 || f.full() {
		return false
	}
	if began = f.batch == nil; began {
		f.batch = &message.Batch{Messages: make([]message.Message, 0, f.size)}
	}
	n := min(f.size-len(f.batch.Messages), len(f.rest.Messages))
	f.batch.Add(f.rest.Delivery, f.rest.Messages[:n]...)
	f.rest.Messages = f.rest.Messages[n:]
	if f.full() {
		f.leave(message.Full)
	}
	return began
}

// leave lets the batch go as soon as a worker takes it.
func (f *filler) leave(c message.Cause) {
	if f.batch == nil || f.due && c != message.Full {
		return
	}
	f.due = true
	f.batch.Cause = c
}
