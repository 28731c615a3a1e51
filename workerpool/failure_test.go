package workerpool_test

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"async-data-processor/event"
	"async-data-processor/workerpool"
)

const cancelled = "cancelled"

func fails(call) error { return errDiskFull }

func TestFailingWriteIsHeldAndRetried(t *testing.T) {
	const failures = 9
	var tries []time.Duration
	var began time.Time
	o := new(output)
	o.before = func(c call) error {
		tries = append(tries, c.at.Sub(began))
		if c.attempt <= failures {
			return errDiskFull
		}
		return nil
	}
	inBubble(t, o, func(r *rig) {
		began = r.began
		b := r.hand(5)
		r.at(workerpool.HoldMin - 1)
		r.states(map[event.State]int{event.Holding: 1, event.Idle: 2})
		r.happened(b)
		r.at(time.Minute)
		r.happened(b, "wrote", "ack")

		held := told[event.BatchHeld](r)
		if len(held) != failures || len(tries) != failures+1 {
			r.t.Fatalf("held %d times and tried %d times, want %d and one more", len(held), len(tries), failures)
		}
		retry := workerpool.HoldMin
		for i, e := range held {
			if e.Attempt != i+1 || !errors.Is(e.Err, errDiskFull) || e.Retry != retry || e.Worker.State != event.Holding {
				r.t.Errorf("told %+v, want attempt %d and a retry after %v", e, i+1, retry)
			}
			if waited := tries[i+1] - tries[i]; waited != retry {
				r.t.Errorf("attempt %d came after %v, want %v", i+2, waited, retry)
			}
			retry = min(2*retry, workerpool.HoldMax)
		}
		if last := held[failures-1].Retry; last != workerpool.HoldMax {
			r.t.Errorf("the last wait was %v, want %v", last, workerpool.HoldMax)
		}
		written := told[event.BatchWritten](r)[0]
		if written.Worker.ID != held[0].Worker.ID || written.Took != tries[failures] {
			r.t.Errorf("told %+v, want it of worker %s after %v", written, held[0].Worker.ID, tries[failures])
		}
		r.states(map[event.State]int{event.Idle: 3})

		// The next failure starts with a short wait again.
		o.before = first(fails)
		r.at(time.Hour)
		r.hand(1)
		r.at(time.Hour + time.Second)
		if e := told[event.BatchHeld](r)[failures]; e.Attempt != 1 || e.Retry != workerpool.HoldMin {
			r.t.Errorf("told %+v", e)
		}
		r.drain()
	})
}

// TestLongOutageCostsNothing: no batch is given up and no worker lost, however
// long the output cannot take any.
func TestLongOutageCostsNothing(t *testing.T) {
	for name, hook := range map[string]func(*output, func(call) error){
		"before the right":    func(o *output, step func(call) error) { o.before = step },
		"although with right": func(o *output, step func(call) error) { o.after = step },
	} {
		t.Run(name, func(t *testing.T) {
			o := new(output)
			inBubble(t, o, func(r *rig) {
				hook(o, func(c call) error {
					if c.at.Before(r.began.Add(time.Hour)) {
						return errDiskFull
					}
					return nil
				})
				r.handMany(20)
				r.at(time.Hour - 1)
				r.states(map[event.State]int{event.Holding: 4})
				if n := len(told[event.BatchReturned](r)) + len(told[event.BatchWritten](r)); n != 0 {
					r.t.Errorf("%d batches ended during the outage", n)
				}
				r.at(time.Hour + workerpool.HoldMax)
				r.states(map[event.State]int{event.Idle: 4})
				count[event.BatchWritten](r, 20)
				r.drain()
			})
		})
	}
}

func TestHeldBatchDoesNotStopOthers(t *testing.T) {
	cfg := workerpool.Config{Min: 3, Max: 3, Timeout: time.Second}
	inBubbleWith(t, cfg, &output{before: only(fails, "b0")}, func(r *rig) {
		r.handMany(10)
		r.at(time.Second)
		r.states(map[event.State]int{event.Holding: 1, event.Idle: 2})
		count[event.BatchWritten](r, 9)
		r.cancel(errDeadline)
		r.drain()
		r.happened("b0", "return")
	})
}

func TestCancelWhileHolding(t *testing.T) {
	inBubble(t, &output{before: fails}, func(r *rig) {
		b := r.hand(5)
		r.at(time.Hour + time.Millisecond)
		r.happened(b)
		r.cancel(errDeadline)
		r.happened(b, "return")
		returned := told[event.BatchReturned](r)[0]
		if returned.Messages != 5 || !errors.Is(returned.Err, errDeadline) || !errors.Is(returned.Err, errDiskFull) {
			r.t.Errorf("told %+v", returned)
		}
		r.lived(returned.Worker.ID, minimum, cancelled)

		r.runs() // there may be more batches to return
		late := r.hand(2)
		r.happened(late, "return")
		r.close()
		r.over()
	})
}

// TestCancelWhilePublishingFails: the writer had the right to the batch, but
// says that nothing of it is visible.
func TestCancelWhilePublishingFails(t *testing.T) {
	inBubble(t, &output{after: takes(time.Hour)}, func(r *rig) {
		b := r.hand(5)
		r.at(time.Second)
		r.cancel(errDeadline)
		r.happened(b, "return")
		if e := told[event.BatchReturned](r)[0]; !errors.Is(e.Err, errDeadline) {
			r.t.Errorf("told %+v", e)
		}
		count[event.BatchHeld](r, 0)
		r.close()
		r.over()
	})
}

func TestSettleFailure(t *testing.T) {
	inBubble(t, &output{before: only(fails, "b5")}, func(r *rig) {
		r.settling = errors.New("the connection is gone")
		r.hand(5)
		r.hand(5)
		r.at(time.Second)
		r.happened("b0", "wrote", "ack")
		failed := told[event.SettleFailed](r)
		if len(failed) != 1 || !errors.Is(failed[0].Err, r.settling) || failed[0].Worker.Messages != 5 {
			r.t.Errorf("told %+v", failed)
		}
		if got := r.worker(failed[0].Worker.ID); got.State != event.Idle || got.Batches != 1 {
			r.t.Errorf("worker %+v", got)
		}

		r.cancel(errDeadline)
		r.happened("b5", "return")
		if e := told[event.BatchReturned](r)[0]; !errors.Is(e.Err, r.settling) || !errors.Is(e.Err, errDeadline) {
			r.t.Errorf("told %+v", e)
		}
		r.drain()
	})
}

// TestWriteThatNeverReturns: a goroutine that ends inside Write has not said
// that the batch is durable.
func TestWriteThatNeverReturns(t *testing.T) {
	exits := func(call) error {
		runtime.Goexit()
		return nil
	}
	for name, o := range map[string]*output{
		"before the right": {before: first(exits)},
		"with the right":   {after: first(exits)},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, o, func(r *rig) {
				b := r.hand(5)
				r.happened(b)
				r.at(time.Second)
				r.happened(b, "wrote", "ack")
				count[event.BatchHeld](r, 1)
				r.drain()
			})
		})
	}
}
