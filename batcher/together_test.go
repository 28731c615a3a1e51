package batcher_test

import (
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/batcher"
	"async-data-processor/message"
)

// together runs a test of a batcher that lets three batches of 5 leave together.
func together(t *testing.T, test func(t *testing.T, r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		// 19 messages are three batches and a part of one, which does not go along.
		test(t, start(t, batcher.Config{Size: 5, Together: 19, Linger: time.Second}))
	})
}

// TestFullBatchesLeaveTogether: those that found no worker, and no others.
func TestFullBatchesLeaveTogether(t *testing.T) {
	together(t, func(t *testing.T, r *rig) {
		p := r.deliver(5)
		if b := r.take(0, 5, message.Full); b.Batches() != 1 || b.Size != 5 {
			t.Errorf("it counts for %d batches of %d, want 1 of 5", b.Batches(), b.Size)
		} else {
			settle(t, b, message.Ack)
		}
		r.settledAs(message.Ack, p)

		a, b := r.deliver(4), r.deliver(8)
		ten := r.take(5, 10, message.Full)
		if ten.Batches() != 2 {
			t.Errorf("it counts for %d batches, want 2", ten.Batches())
		}
		settle(t, ten, message.Ack)
		r.settledAs(message.Ack, a)
		r.unsettled(b)
		r.at(time.Second)
		settle(t, r.take(15, 2, message.Lingered), message.Ack)
		r.settledAs(message.Ack, b)
		r.drain()
	})
}

// TestTogetherIsBounded: a long delivery waits for the workers, and intake with it.
func TestTogetherIsBounded(t *testing.T) {
	together(t, func(t *testing.T, r *rig) {
		for range 14 {
			r.deliver(1)
		}
		r.deliver(25)
		r.refuse()
		r.take(0, 15, message.Full)
		r.refuse()
		r.take(15, 15, message.Full)
		r.deliver(2) // there are 9
		r.take(30, 10, message.Full)
		r.at(time.Second)
		r.take(40, 1, message.Lingered)
		r.drain()
	})
}

// TestIncompleteBehindFull: an incomplete batch lingers behind full ones, from its
// own first message, and goes on filling while they wait.
func TestIncompleteBehindFull(t *testing.T) {
	t.Run("not taken along", func(t *testing.T) {
		together(t, func(t *testing.T, r *rig) {
			r.deliver(7)
			r.at(time.Hour)
			r.take(0, 5, message.Full)
			r.take(5, 2, message.Lingered) // at once: it has lingered behind the other
			r.drain()
		})
	})
	t.Run("not before its time", func(t *testing.T) {
		together(t, func(t *testing.T, r *rig) {
			r.deliver(5)
			r.at(700 * time.Millisecond)
			r.deliver(2)
			r.at(1600 * time.Millisecond)
			r.take(0, 5, message.Full)
			r.none()
			r.at(1700*time.Millisecond - 1)
			r.none()
			r.at(1700 * time.Millisecond)
			r.take(5, 2, message.Lingered)
			r.drain()
		})
	})
	t.Run("filled", func(t *testing.T) {
		together(t, func(t *testing.T, r *rig) {
			r.deliver(7)
			r.at(time.Hour)
			r.deliver(4)
			r.take(0, 10, message.Full)
			r.none() // what is left of the delivery has not waited
			r.at(time.Hour + time.Second)
			r.take(10, 1, message.Lingered)
			r.drain()
		})
	})
	t.Run("filled after it has lingered alone", func(t *testing.T) {
		together(t, func(t *testing.T, r *rig) {
			r.deliver(2)
			r.at(time.Hour)
			r.deliver(9)
			r.take(0, 10, message.Full)
			r.none()
			r.at(time.Hour + time.Second)
			r.take(10, 1, message.Lingered)
			r.drain()
		})
	})
	t.Run("flushed", func(t *testing.T) {
		together(t, func(t *testing.T, r *rig) {
			r.deliver(12)
			close(r.deliveries)
			r.at(time.Hour)
			r.take(0, 10, message.Full)
			r.take(10, 2, message.Flushed)
			r.closed()
		})
	})
}

// BenchmarkRun carries messages from envelopes to batches.
func BenchmarkRun(b *testing.B) {
	for _, bb := range []struct {
		name               string
		envelope, together int
	}{{"one", 1, 40}, {"eighty", 80, 40}, {"eighty rolling", 80, 4096}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			deliveries, batches := make(chan batcher.Opened), make(chan *message.Batch, 1)
			p := pack(0, bb.envelope)
			go func() {
				defer close(deliveries)
				for range b.N/bb.envelope + 1 {
					deliveries <- p.Opened
				}
			}()
			go batcher.Run(batcher.Config{Size: 5, Together: bb.together, Linger: time.Second}, deliveries, batches)
			left := 0
			for range batches {
				left++
			}
			b.ReportMetric(float64(b.N)/float64(left), "messages/batch")
		})
	}
}
