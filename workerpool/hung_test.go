package workerpool_test

import (
	"testing"
	"time"

	"async-data-processor/event"
)

// TestHungOutput: an output that hangs costs a bounded number of batches a
// return, not every batch again and again; when it wakes up all goes on.
func TestHungOutput(t *testing.T) {
	const most, wakes = 4, time.Hour
	o := new(output)
	began := time.Now()
	o.before = func(call) error {
		time.Sleep(wakes - time.Since(began))
		return nil
	}
	inBubble(t, o, func(r *rig) {
		began = r.began
		r.handMany(40)
		r.at(wakes - time.Second)
		count[event.BatchReturned](r, 2*most)
		if len(told[event.BatchHeld](r)) == 0 {
			r.t.Error("nothing was told of the held batches")
		}
		r.at(wakes + time.Minute)
		count[event.BatchWritten](r, 40-2*most)
		r.drain()
	})
}

// TestDeadlineCostsNoWorkers: behind the deadline what still comes is returned
// by the workers that are there.
func TestDeadlineCostsNoWorkers(t *testing.T) {
	inBubble(t, new(output), func(r *rig) {
		r.cancel(errDeadline)
		r.handMany(20)
		r.at(time.Second)
		count[event.BatchReturned](r, 20)
		// The backlog may have brought the pool to its maximum.
		if n := len(r.pool.History()); n > r.cfg.Max {
			r.t.Errorf("%d workers in the history, want at most %d, for none was lost", n, r.cfg.Max)
		}
		r.drain()
	})
}
