package workerpool_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"async-data-processor/event"
	"async-data-processor/message"
	"async-data-processor/workerpool"
)

// nowhere is a Writer that only asks for the right.
type nowhere struct{}

func (nowhere) Write(_ context.Context, worker string, b *message.Batch) (file string, written int, err error) {
	b.BeginPublish()
	return worker, len(b.Messages), nil
}

// BenchmarkPool takes batches of several deliveries from a batcher's hands to
// their settling. The figures are for a message.
func BenchmarkPool(b *testing.B) {
	for _, bb := range []struct{ messages, each int }{{5, 5}, {40, 80}, {4096, 80}} {
		b.Run(fmt.Sprintf("%d of %d", bb.messages, bb.each), func(b *testing.B) {
			batches := make(chan *message.Batch, 1)
			p := workerpool.New(workerpool.Config{
				Min: 3, Max: 4, Timeout: time.Minute, Writer: nowhere{}, Events: func(event.Event) {},
			}, batches)
			done := make(chan struct{})
			go func() {
				defer close(done)
				p.Run(context.Background())
			}()
			run := make([]message.Message, bb.each)
			settle := func(message.Outcome) error { return nil }
			b.ReportAllocs()
			for n := 0; n < b.N; {
				batch := &message.Batch{Size: 5}
				for len(batch.Messages) < bb.messages {
					d := message.NewDelivery(message.Envelope{}, false, settle)
					d.Expect(bb.each)
					batch.Add(d, run...)
				}
				n += len(batch.Messages)
				batches <- batch
			}
			close(batches)
			<-done
		})
	}
}
