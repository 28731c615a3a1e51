package batcher_test

import (
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/batcher"
	"async-data-processor/message"
)

func TestLingerCountsFromTheFirstMessage(t *testing.T) {
	t.Run("without traffic", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.at(700 * time.Millisecond) // idle time counts for nothing
			r.deliver(3)
			r.at(1700*time.Millisecond - 1)
			r.none()
			r.at(1700 * time.Millisecond)
			r.take(0, 3, message.Lingered)
			r.drain()
		})
	})
	t.Run("with traffic", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			for i := range 4 {
				r.at(time.Duration(i) * 333 * time.Millisecond)
				r.deliver(1)
			}
			r.at(time.Second - 1)
			r.none()
			r.at(time.Second)
			r.take(0, 4, message.Lingered)
			r.drain()
		})
	})
}

// TestLingerCountsAnew: the time that an earlier batch waited is never held
// against the next, nor is its timer.
func TestLingerCountsAnew(t *testing.T) {
	t.Run("after a full batch", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.deliver(2)
			r.at(700 * time.Millisecond)
			r.deliver(3)
			r.take(0, 5, message.Full)
			r.at(800 * time.Millisecond)
			r.deliver(1)
			r.at(1800*time.Millisecond - 1)
			r.none()
			r.at(1800 * time.Millisecond)
			r.take(5, 1, message.Lingered)
			r.drain()
		})
	})
	t.Run("after a lingered batch", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.deliver(1)
			r.at(time.Second)
			r.take(0, 1, message.Lingered)
			r.deliver(1)
			r.at(2*time.Second - 1)
			r.none()
			r.at(2 * time.Second)
			r.take(1, 1, message.Lingered)
			r.drain()
		})
	})
	t.Run("for what a full batch left over", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.deliver(7)
			r.at(400 * time.Millisecond)
			r.take(0, 5, message.Full)
			r.at(1400*time.Millisecond - 1)
			r.none()
			r.at(1400 * time.Millisecond)
			r.take(5, 2, message.Lingered)
			r.drain()
		})
	})
	t.Run("after a batch that waited longer than the linger", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.deliver(6)
			r.at(time.Minute)
			r.take(0, 5, message.Full)
			r.none()
			r.at(time.Minute + time.Second - 1)
			r.none()
			r.at(time.Minute + time.Second)
			r.take(5, 1, message.Lingered)
			r.drain()
		})
	})
}

// TestLingeredBatchGoesOnFilling: while no worker takes it, more messages in
// it cost nothing.
func TestLingeredBatchGoesOnFilling(t *testing.T) {
	t.Run("in part", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.deliver(1)
			r.at(time.Minute)
			r.deliver(2)
			r.at(2 * time.Minute)
			r.take(0, 3, message.Lingered)
			r.drain()
		})
	})
	t.Run("until it is full", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.deliver(1)
			r.at(time.Minute)
			r.deliver(3)
			r.deliver(4)
			r.refuse()
			r.take(0, 5, message.Full)
			r.none()
			r.at(time.Minute + time.Second)
			r.take(5, 3, message.Lingered)
			r.drain()
		})
	})
}

func TestLingerZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, batcher.Config{Size: 5})
		r.deliver(1)
		r.take(0, 1, message.Lingered)
		r.deliver(12)
		r.take(1, 5, message.Full)
		r.take(6, 5, message.Full)
		r.take(11, 2, message.Lingered)
		r.none()
		if took := time.Since(r.began); took != 0 {
			t.Errorf("it took %v, want no time at all", took)
		}
		r.drain()
	})
}
