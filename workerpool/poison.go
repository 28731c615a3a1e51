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

// isolate settles a batch whose writing panicked. Only writing its messages apart
// tells which of them do it: isolate halves the batch until what panics is one
// message, and that one becomes a dead letter.
func (w *worker) isolate(ctx context.Context, b *message.Batch, p *panicked) {
	if len(b.Messages) == 1 {
		w.deadLetter(b, p)
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

// deadLetter makes a dead letter of a batch of one message.
func (w *worker) deadLetter(b *message.Batch, p *panicked) {
	why := fmt.Errorf("writing it panicked: %v", p.value)
	err := errors.Join(why, b.Settle(message.Outcome{Kind: message.DeadLetter, Reason: why.Error()}))
	w.pool.mu.Lock()
	w.record.Dead++
	delete(w.pool.held, w.record.ID)
	w.pool.mu.Unlock()
	w.send(event.MessageDied{Worker: w.snapshot(), ID: b.Messages[0].ID(), Err: err})
}
