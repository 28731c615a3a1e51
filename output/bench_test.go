package output

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"async-data-processor/message"
)

// numberedBatch is a batch that every call of next turns into another one.
type numberedBatch struct {
	*message.Batch
	n int
}

func newNumberedBatch(n int) *numberedBatch {
	return &numberedBatch{Batch: newBatch(numbered("01JD8Y6G5V0000000000000000", n)...)}
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
		batch := newNumberedBatch(5)
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
			batch := newNumberedBatch(5)
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
		batch := newNumberedBatch(5)
		mustWrite(b, s, batch.next())
		b.ReportAllocs()
		for b.Loop() {
			mustWrite(b, s, batch.Batch)
		}
	})
}

// BenchmarkSeveral is eight full batches with one fsync of the folder.
func BenchmarkSeveral(b *testing.B) {
	s := openShard(b, b.TempDir())
	batch := newNumberedBatch(40)
	batch.Size = 5
	b.ReportAllocs()
	for b.Loop() {
		mustWrite(b, s, batch.next())
	}
	b.ReportMetric(float64(8*b.N)/b.Elapsed().Seconds(), "files/s")
}

// BenchmarkAppend is a Write where files roll.
func BenchmarkAppend(b *testing.B) {
	for _, messages := range []int{5, 100, 4096} {
		b.Run(fmt.Sprint(messages), func(b *testing.B) {
			s := rollingShard(b, b.TempDir(), Roll{Bytes: 64 << 20})
			batch := newNumberedBatch(messages)
			b.ReportAllocs()
			for b.Loop() {
				mustWrite(b, s, batch.next())
			}
			b.ReportMetric(float64(messages*b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}
