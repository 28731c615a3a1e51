package workerpool_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"async-data-processor/event"
)

const timedOut = "timed out"

func TestTimeoutBeforeTheRight(t *testing.T) {
	var cause error
	o := new(output)
	o.before = only(func(c call) error {
		time.Sleep(time.Minute)
		cause = context.Cause(c.ctx)
		return nil
	}, "b0")
	inBubble(t, o, func(r *rig) {
		b := r.hand(5)
		r.at(30*time.Second - 1)
		r.happened(b)
		r.states(map[event.State]int{event.Busy: 1, event.Idle: 2})
		r.at(30 * time.Second)
		r.happened(b, "return")
		r.states(map[event.State]int{event.Idle: 3, event.Stopped: 1})

		e := told[event.WorkerTimedOut](r)
		if len(e) != 1 || !e[0].Returned || e[0].Worker.State != event.TimedOut {
			r.t.Fatalf("told %+v", e)
		}
		r.lived(e[0].Worker.ID, minimum, timedOut)
		r.lived("7-4", minimum, "")

		r.handMany(10)
		r.at(time.Minute)
		r.happened(b, "return", "refused")
		if cause == nil || errors.Is(cause, context.Canceled) {
			r.t.Errorf("the writer's context was cancelled because of %v, want a reason of the pool", cause)
		}
		count[event.BatchWritten](r, 10)
		r.drain()
	})
}

func TestTimeoutWithTheRight(t *testing.T) {
	o := new(output)
	o.after = only(func(c call) error {
		time.Sleep(time.Minute)
		return c.ctx.Err() // it may finish
	}, "b0")
	inBubble(t, o, func(r *rig) {
		b := r.hand(5)
		r.at(30 * time.Second)
		r.happened(b)
		r.states(map[event.State]int{event.TimedOut: 1, event.Idle: 3})
		e := told[event.WorkerTimedOut](r)
		if len(e) != 1 || e[0].Returned {
			r.t.Fatalf("told %+v", e)
		}
		r.lived("7-4", minimum, "")

		r.at(time.Minute)
		r.happened(b, "wrote", "ack")
		r.lived(e[0].Worker.ID, minimum, timedOut)
		if w := r.worker(e[0].Worker.ID); w.Batches != 1 || w.Messages != 5 {
			r.t.Errorf("worker %+v", w)
		}
		r.drain()
	})
}

// TestTimeoutWithTheRightThenFailure: the batch cannot be given up any more,
// so its worker tries until it succeeds, counted out of the pool.
func TestTimeoutWithTheRightThenFailure(t *testing.T) {
	o := new(output)
	o.after = only(first(func(call) error {
		time.Sleep(time.Minute)
		return errDiskFull
	}), "b0")
	inBubble(t, o, func(r *rig) {
		b := r.hand(5)
		r.at(time.Minute)
		r.happened(b)
		r.states(map[event.State]int{event.TimedOut: 1, event.Idle: 3})
		r.at(2 * time.Minute)
		r.happened(b, "wrote", "ack")
		e := told[event.WorkerTimedOut](r)
		if len(e) != 1 {
			r.t.Fatalf("told %+v", e)
		}
		r.lived(e[0].Worker.ID, minimum, timedOut)
		count[event.BatchHeld](r, 1)
		r.drain()
	})
}

// TestTimeoutOfALaterAttempt: the right of an earlier attempt still holds.
func TestTimeoutOfALaterAttempt(t *testing.T) {
	o := &output{after: first(fails)}
	o.before = func(c call) error {
		if c.attempt == 2 {
			time.Sleep(time.Minute)
		}
		return nil
	}
	inBubble(t, o, func(r *rig) {
		b := r.hand(5)
		r.at(50 * time.Second)
		r.states(map[event.State]int{event.TimedOut: 1, event.Idle: 3})
		r.at(2 * time.Minute)
		r.happened(b, "wrote", "ack")
		r.drain()
	})
}

// TestTimeoutIsOfOneAttempt: slow failures do not add up to a timeout.
func TestTimeoutIsOfOneAttempt(t *testing.T) {
	o := new(output)
	o.before = func(c call) error {
		time.Sleep(20 * time.Second)
		if c.attempt < 5 {
			return errDiskFull
		}
		return nil
	}
	inBubble(t, o, func(r *rig) {
		b := r.hand(5)
		r.at(3 * time.Minute)
		r.happened(b, "wrote", "ack")
		r.states(map[event.State]int{event.Idle: 3})
		r.drain()
	})
}

// TestTimeoutOfAll: when every write hangs, the pool goes on with new workers.
func TestTimeoutOfAll(t *testing.T) {
	o := &output{before: func(c call) error {
		if c.worker <= "7-4" {
			time.Sleep(time.Hour)
		}
		return nil
	}}
	inBubble(t, o, func(r *rig) {
		r.handMany(20)
		r.at(time.Minute)
		count[event.WorkerTimedOut](r, 4)
		count[event.BatchWritten](r, 16)
		r.drain()
	})
}

// TestCancelDuringHungWrite: the pool's end does not wait for a write that
// cannot be interrupted.
func TestCancelDuringHungWrite(t *testing.T) {
	inBubble(t, &output{before: hangs(time.Hour)}, func(r *rig) {
		r.handMany(10)
		r.at(time.Second)
		r.cancel(errDeadline)
		r.close()
		r.over()
		if took := time.Since(r.began); took != time.Second {
			r.t.Errorf("the end came after %v", took)
		}
		for _, e := range told[event.BatchReturned](r) {
			if !errors.Is(e.Err, errDeadline) {
				r.t.Errorf("told %+v", e)
			}
		}
		count[event.WorkerTimedOut](r, 0)
		r.at(2 * time.Hour)
		r.happened("b0", "return", "refused")
	})
}

// TestCancelWhilePublishing: what may be visible any moment is waited for.
func TestCancelWhilePublishing(t *testing.T) {
	inBubble(t, &output{after: hangs(time.Minute)}, func(r *rig) {
		b := r.hand(5)
		r.at(time.Second)
		r.cancel(errDeadline)
		r.close()
		r.at(time.Minute - 1)
		r.runs()
		r.at(time.Minute)
		r.over()
		r.happened(b, "wrote", "ack")
	})
}

// TestOrphanPanics: a panic of a write that was given up changes nothing.
func TestOrphanPanics(t *testing.T) {
	o := &output{before: func(call) error {
		time.Sleep(time.Minute)
		panic("boom")
	}}
	inBubble(t, o, func(r *rig) {
		b := r.hand(5)
		r.at(time.Hour)
		r.happened(b, "return")
		r.drain()
	})
}

// TestTimeoutDoubles: a disk that is slow and no more gets the time it takes,
// so that its batches do not come back again and again; and the time-out is as
// before once it is fast.
func TestTimeoutDoubles(t *testing.T) {
	slow := true
	o := new(output)
	o.before = func(call) error {
		if slow {
			time.Sleep(40 * time.Second)
		}
		return nil
	}
	inBubble(t, o, func(r *rig) {
		first := r.hand(5)
		r.at(30 * time.Second)
		r.happened(first, "return")
		second := r.hand(5)
		r.at(70*time.Second + 1)
		r.happened(second, "wrote", "ack")
		slow = false
		r.hand(5)
		r.at(71 * time.Second)
		slow = true
		third := r.hand(5)
		r.at(101*time.Second + 1)
		r.happened(third, "return")
		r.at(5 * time.Minute) // what was left behind ends
		r.drain()
	})
}
