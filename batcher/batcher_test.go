package batcher_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/batcher"
	"async-data-processor/message"
)

func TestFullBatchLeavesAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for range 3 {
			first := r.sent
			for range 4 {
				r.deliver(1)
				r.none()
			}
			r.deliver(1)
			r.take(first, 5, message.Full)
		}
		if took := time.Since(r.began); took != 0 {
			t.Errorf("it took %v, want no time at all", took)
		}
		r.drain()
	})
}

func TestNothingLeavesWithoutMessages(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.at(time.Hour)
		r.none()
		r.drain()
	})
}

func TestEnvelopeSpansBatches(t *testing.T) {
	for _, n := range []int{1, 4, 5, 6, 10, 12, 2000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				p := r.deliver(n)
				for first := 0; first < n; first += 5 {
					r.unsettled(p)
					size, cause := 5, message.Full
					if n-first < 5 {
						r.none()
						r.at(time.Second)
						size, cause = n-first, message.Lingered
					}
					settle(t, r.take(first, size, cause), message.Ack)
				}
				r.settledAs(message.Ack, p)
				r.drain()
			})
		})
	}
}

// TestBatchSpansDeliveries: each delivery is settled with the batch that has
// its last message, whatever the order in which batches end.
func TestBatchSpansDeliveries(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		a, b, c := r.deliver(2), r.deliver(2), r.deliver(3)
		one := r.take(0, 5, message.Full)
		d := r.deliver(3)
		two := r.take(5, 5, message.Full)

		settle(t, two, message.Ack)
		r.settledAs(message.Ack, d)
		r.unsettled(a, b, c)
		settle(t, one, message.Ack)
		r.settledAs(message.Ack, a, b, c)
		r.drain()
	})
}

func TestDeliveryReturnsIfOneOfItsBatchesDoes(t *testing.T) {
	for returned := range 3 {
		inBubble(t, func(t *testing.T, r *rig) {
			p := r.deliver(12)
			one, two := r.take(0, 5, message.Full), r.take(5, 5, message.Full)
			last := r.deliver(3)
			three := r.take(10, 5, message.Full)
			for i, b := range []*message.Batch{one, two, three} {
				r.unsettled(p, last)
				if i == returned {
					settle(t, b, message.Return)
				} else {
					settle(t, b, message.Ack)
				}
			}
			r.settledAs(message.Return, p)
			if returned == 2 {
				r.settledAs(message.Return, last)
			} else {
				r.settledAs(message.Ack, last)
			}
			r.drain()
		})
	}
}

func TestBackPressure(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.deliver(4)
		r.deliver(13)
		for first := 0; first < 15; first += 5 {
			// However long the workers take.
			r.refuse()
			time.Sleep(time.Hour)
			r.refuse()
			r.take(first, 5, message.Full)
		}
		r.deliver(3)
		r.take(15, 5, message.Full)
		r.drain()
	})
}

func TestSizeOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, batcher.Config{Size: 1, Linger: time.Second})
		p := r.deliver(3)
		for i := range 3 {
			r.refuse()
			r.unsettled(p)
			settle(t, r.take(i, 1, message.Full), message.Ack)
		}
		r.settledAs(message.Ack, p)
		r.at(time.Minute)
		r.none()
		r.drain()
	})
}

func TestDrain(t *testing.T) {
	t.Run("flushes what is held", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			p := r.deliver(3)
			close(r.deliveries)
			settle(t, r.take(0, 3, message.Flushed), message.Ack)
			r.settledAs(message.Ack, p)
			r.closed()
		})
	})
	t.Run("waits for the workers", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.deliver(3)
			close(r.deliveries)
			r.at(time.Hour) // past the linger: the cause stays
			r.take(0, 3, message.Flushed)
			r.closed()
		})
	})
	t.Run("after a full batch its rest", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.deliver(12)
			close(r.deliveries)
			r.at(time.Hour)
			r.take(0, 5, message.Full)
			r.take(5, 5, message.Full)
			r.take(10, 2, message.Flushed)
			r.closed()
		})
	})
	t.Run("a full batch is the last", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.deliver(5)
			close(r.deliveries)
			r.take(0, 5, message.Full)
			r.closed()
		})
	})
	t.Run("a lingered batch keeps its cause", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.deliver(2)
			r.at(time.Second)
			synctest.Wait()
			close(r.deliveries)
			r.take(0, 2, message.Lingered)
			r.closed()
		})
	})
	t.Run("between two batches", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.deliver(5)
			r.take(0, 5, message.Full)
			r.drain()
		})
	})
	t.Run("at once", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) { r.drain() })
	})
}
