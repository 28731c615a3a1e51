package committed

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkClaim is of a full window. Of submissions of 100 entries over five
// shards one has each fifth, of which a file of five and a turn of a rolling one
// hold batches.
func BenchmarkClaim(b *testing.B) {
	for _, submission := range []struct{ entries, shards int }{{1, 1}, {7, 1}, {100, 5}, {1000, 1}} {
		for _, batch := range []int{5, 4096} {
			b.Run(fmt.Sprintf("entries=%d/shards=%d/batch=%d", submission.entries, submission.shards, batch), func(b *testing.B) {
				w := New(200_000, time.Hour)
				ks := make([]Key, batch)
				submitted, index := uint64(0), 0
				next := func() {
					for i := range ks {
						ks[i] = Key{submitted, submitted, uint32(index)}
						if index += submission.shards; index >= submission.entries {
							submitted, index = submitted+1, 0
						}
					}
				}
				claim := func() {
					c, err := w.Claim(b.Context(), ks)
					if err != nil || c.Fresh() != batch {
						b.Fatal(err)
					}
					c.Commit()
				}
				for range 200_000/batch + 1 {
					next()
					claim()
				}
				b.ReportAllocs()
				for b.Loop() {
					next()
					claim()
				}
				b.ReportMetric(float64(w.store.size())/float64(w.store.ids), "bytes/id")
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/id")
			})
		}
	}
}

// BenchmarkLoad is of a rolling file with more ids than the window holds.
func BenchmarkLoad(b *testing.B) {
	ks := make([]Key, 700_000)
	for i := range ks {
		ks[i] = Key{uint64(i / 20), uint64(i / 20), uint32(i % 20 * 5)}
	}
	b.ReportAllocs()
	for b.Loop() {
		w := New(200_000, time.Hour)
		if n := w.Load(func(yield func([]Key, time.Time) bool) { yield(ks, time.Now()) }); n < 200_000 {
			b.Fatal(n)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*200_000), "ns/id")
}

func BenchmarkKeyOf(b *testing.B) {
	for _, id := range []string{ulid + ".123", "somebody-elses-order-0000000001"} {
		b.Run(id, func(b *testing.B) {
			text := []byte(id)
			b.ReportAllocs()
			for b.Loop() {
				KeyOf(text)
			}
		})
	}
}
