// Package batcher gathers a shard's messages into batches: a batch leaves as
// soon as it is full, or has lingered, or is flushed, by request or at the drain; it is
// never empty. A message never waits for anything but that. Full batches that no worker has
// come for wait together, and leave together.
package batcher

import (
	"time"

	"async-data-processor/message"
)

// Config sets the shape of batches.
type Config struct {
	// Size is how many messages make a batch full; at least 1.
	Size int
	// Together is how many messages full batches may have that leave together;
	// with less than two times Size, each leaves for itself.
	Together int
	// Linger is how long an incomplete batch waits, counted from its first message.
	Linger time.Duration
	// Flush has an incomplete batch leave at once; nil for never. It does not count for
	// the part of a delivery that has no room yet: such a caller asks again.
	Flush <-chan struct{}
}

// Run hands the messages of deliveries over in batches until deliveries is
// closed; then it flushes what it holds, closes batches, and returns. A lingered
// batch that finds no room in batches yet goes on filling.
//
// The pace is the workers': while as many full batches wait as may leave
// together no further delivery is taken, so the broker's prefetch bounds what is
// in memory.
func Run(cfg Config, deliveries <-chan Opened, batches chan<- *message.Batch) {
	defer close(batches)
	f := newFiller(cfg)
	defer f.timer.Stop()

	for deliveries != nil || f.batch != nil {
		intake, handover := deliveries, chan<- *message.Batch(nil)
		if f.full() {
			intake = nil
		}
		if f.batch != nil {
			handover = batches
		}
		select {
		case d, ok := <-intake:
			if !ok {
				deliveries = nil
				f.release(message.Flushed)
			}
			f.rest = d
		case handover <- f.batch:
			f.batch = nil
		case <-f.timer.C:
			f.release(message.Lingered)
		case <-cfg.Flush:
			f.release(message.Flushed)
		}
		f.fill()
	}
}

// Opened is a delivery with its messages, at least one.
type Opened struct {
	Delivery *message.Delivery
	Messages []message.Message
}
