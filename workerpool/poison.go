package workerpool

import (
	"context"
	"errors"
	"fmt"

	"async-data-processor/event"
	"async-data-processor/message"
)

// panicked is a panic of the writer.
type panicked struct {
	value any
	stack []byte
}

// isolate settles a batch whose writing panicked. Which of its messages are to
// blame nobody can tell but by writing them apart: it halves the batch until
// what panics is one message, and that one is dead.
func (w *worker) isolate(ctx context.Context, b *message.Batch, p *panicked) {
	if len(b.Messages) == 1 {
		w.bury(b, p)
		return
	}
	first, second := b.Split()
	for _, half := range []*message.Batch{first, second} {
		// Whether this worker can go on does not matter, it ends anyway.
		if p, _ := w.write(ctx, half); p != nil {
			w.isolate(ctx, half, p)
		}
	}
}

// bury makes a dead letter of a batch of one message.
func (w *worker) bury(b *message.Batch, p *panicked) {
	why := fmt.Errorf("writing it panicked: %v", p.value)
	err := errors.Join(why, b.Settle(message.Outcome{Kind: message.DeadLetter, Reason: why.Error()}))
	w.pool.mu.Lock()
	w.record.Dead++
	w.pool.mu.Unlock()
	w.send(event.MessageDied{Worker: w.snapshot(), ID: b.Messages[0].ID(), Err: err})
}
