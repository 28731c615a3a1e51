package workerpool_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"async-data-processor/event"
	"async-data-processor/workerpool"
)

const resized = "resized"

// TestResizeGrows: while batches wait, a larger maximum is reached at once.
func TestResizeGrows(t *testing.T) {
	inBubble(t, &output{before: takes(10 * time.Second)}, func(r *rig) {
		r.handMany(40)
		r.at(time.Second)
		r.states(map[event.State]int{event.Busy: 4})
		r.pool.Resize(3, 32)
		r.states(map[event.State]int{event.Busy: 32})
		r.drain()
	})
}

// TestResizeRaisesTheMinimum: without any batch, the minimum is there at once.
func TestResizeRaisesTheMinimum(t *testing.T) {
	inBubble(t, new(output), func(r *rig) {
		r.pool.Resize(7, 7)
		r.states(map[event.State]int{event.Idle: 7})
		r.drain()
	})
}

// TestResizeShrinks: a busy worker is never ended, and ends after its batch although
// others wait; an idle one ends at once.
func TestResizeShrinks(t *testing.T) {
	o := &output{before: takes(10 * time.Second)}
	inBubble(t, o, func(r *rig) {
		r.pool.Resize(8, 8)
		r.handMany(100)
		r.at(5 * time.Second)
		r.states(map[event.State]int{event.Busy: 8})
		r.pool.Resize(1, 2)
		r.at(10*time.Second - time.Nanosecond)
		r.states(map[event.State]int{event.Busy: 8})
		r.at(11 * time.Second)
		r.states(map[event.State]int{event.Busy: 2, event.Stopped: 6})
		count[event.BatchReturned](r, 0)
		for _, w := range r.pool.History() {
			if w.State == event.Stopped && (w.WhyStopped != resized || w.Batches != 1) {
				t.Errorf("worker %+v", w)
			}
		}
		r.drain()
	})
}

// TestResizeEndsIdleWorkers does not wait for the time after which a pool shrinks by
// itself.
func TestResizeEndsIdleWorkers(t *testing.T) {
	inBubble(t, new(output), func(r *rig) {
		r.pool.Resize(20, 20)
		r.at(time.Second)
		r.pool.Resize(2, 2)
		r.at(time.Second + 20*workerpool.LookInterval)
		r.states(map[event.State]int{event.Idle: 2, event.Stopped: 18})
		r.drain()
	})
}

// TestResizeOfAHungPool: the places for writes grow with the maximum, and do not shrink.
func TestResizeOfAHungPool(t *testing.T) {
	o := new(output)
	o.before = func(call) error {
		time.Sleep(5 * time.Hour)
		return nil
	}
	inBubble(t, o, func(r *rig) {
		stuck := func(want string) {
			t.Helper()
			if _, _, why := r.pool.Held(); why == nil || why.Error() != want {
				t.Errorf("after %v a worker holds a batch because of %v, want %q", time.Since(r.began), why, want)
			}
		}
		r.handMany(200)
		r.at(10 * time.Minute)
		stuck("all 8 write slots are stuck: the disk does not respond")
		r.pool.Resize(32, 32)
		r.at(2 * time.Hour)
		stuck("all 64 write slots are stuck: the disk does not respond")
		r.pool.Resize(1, 1)
		r.at(3 * time.Hour)
		stuck("all 64 write slots are stuck: the disk does not respond")
		r.abort()
	})
}

// TestResizeAtRandom: whatever the bounds, each batch is settled once, and the pool
// comes to its bounds.
func TestResizeAtRandom(t *testing.T) {
	inBubble(t, &output{before: takes(70 * time.Millisecond)}, func(r *rig) {
		r.shrinks = true
		dice := rand.New(rand.NewPCG(1, 2))
		for range 500 {
			r.handMany(dice.IntN(20))
			lowest := 1 + dice.IntN(workerpool.MaxWorkers)
			highest := lowest + dice.IntN(workerpool.MaxWorkers-lowest+1)
			r.pool.Resize(lowest, highest)
			time.Sleep(time.Duration(dice.IntN(300)) * time.Millisecond)
		}
		r.pool.Resize(2, 3)
		time.Sleep(time.Hour)
		alive := 0
		for _, w := range r.pool.History() {
			if w.State != event.Stopped {
				alive++
			}
		}
		if alive != 2 {
			t.Errorf("%d workers are left, want 2", alive)
		}
		r.drain()
	})
}
