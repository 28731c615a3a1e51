package live

import (
	"context"
	"fmt"
	"testing"
	"time"

	"async-data-processor/broker/brokertest"
	"async-data-processor/message"
)

// BenchmarkPass is what a batch of five costs its writer: without a viewer, with one of
// all at 50 a second, and with 64 of those, each with a filter of its own.
func BenchmarkPass(b *testing.B) {
	for name, queries := range map[string]int{"nobody": 0, "one": 1, "64": 64} {
		b.Run(name, func(b *testing.B) {
			memory := brokertest.NewMemory(1)
			tail := NewTail(TailConfig{Bus: memory, Node: func() string { return "a" }, Payload: PayloadFull})
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			go tail.Run(ctx)
			for i := range queries {
				q := Query{Rate: 50}
				if queries > 1 {
					q.Shards = []int{0, i + 1}
				}
				v, err := tail.View(q)
				if err != nil {
					b.Fatal(err)
				}
				go func() {
					for {
						if _, err := v.Next(ctx); err != nil {
							return
						}
					}
				}()
			}
			for queries > 0 && !tail.Watched(StageWritten) {
				time.Sleep(time.Millisecond)
			}
			p := Passed{Stage: StageWritten, Worker: "0-1", File: "f", At: time.Now()}
			for i := range 5 {
				p.Messages = append(p.Messages, message.Message{Line: fmt.Appendf(nil, `{"message_id":"01JD8Y6G5V3X9Q2R7T4B1C0D5E.%d","timestamp":"2019-10-12T08:10:54.52Z","value":"%0100d"}`, i, i)})
			}
			b.ReportAllocs()
			for b.Loop() {
				if tail.Watched(StageWritten) {
					tail.Pass(p)
				}
			}
		})
	}
}
