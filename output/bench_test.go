package output

import (
	"context"
	"sync"
	"testing"

	"async-data-processor/message"
)

// numberedBatch is a batch of which every call of next makes another one.
type numberedBatch struct {
	*message.Batch
	n int
}

func newNumberedBatch() *numberedBatch {
	return &numberedBatch{Batch: newBatch(numbered("01JD8Y6G5V0000000000000000", 5)...)}
}

func (b *numberedBatch) next() *message.Batch {
	b.n++
	for _, m := range b.Messages {
		digits := m.RawID()[10:26]
		for i, n := len(digits)-1, b.n; n > 0; i, n = i-1, n/10 {
			digits[i] = '0' + byte(n%10)
		}
	}
	return b.Batch
}

func BenchmarkWrite(b *testing.B) {
	b.Run("1 worker", func(b *testing.B) {
		s := openShard(b, b.TempDir())
		batch := newNumberedBatch()
		b.ReportAllocs()
		for b.Loop() {
			mustWrite(b, s, batch.next())
		}
	})
	b.Run("5 workers", func(b *testing.B) {
		s := openShard(b, b.TempDir())
		b.ReportAllocs()
		next := make(chan struct{})
		var wg sync.WaitGroup
		for w := range 5 {
			batch := newNumberedBatch()
			batch.n = w * 1e9
			wg.Go(func() {
				for range next {
					if _, _, err := s.Write(context.Background(), worker, batch.next()); err != nil {
						b.Error(err)
					}
				}
			})
		}
		for b.Loop() {
			next <- struct{}{}
		}
		close(next)
		wg.Wait()
	})
	b.Run("duplicates", func(b *testing.B) {
		s := openShard(b, b.TempDir())
		batch := newNumberedBatch()
		mustWrite(b, s, batch.next())
		b.ReportAllocs()
		for b.Loop() {
			mustWrite(b, s, batch.Batch)
		}
	})
}
