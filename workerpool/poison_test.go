package workerpool_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"async-data-processor/event"
)

// TestPanicCostsOneMessage: whichever message of a batch it is that panics, and
// however, it is the only one that is not written, and costs one worker.
func TestPanicCostsOneMessage(t *testing.T) {
	tests := []struct {
		name  string
		panic func()
		want  string
	}{
		{"text", func() { panic("boom") }, "boom"},
		{"error", func() { panic(errDiskFull) }, errDiskFull.Error()},
		{"nil", func() { panic(nil) }, "panic called with nil argument"},
		{"runtime", func() { clear([]int{}[1:][:len("x")]) }, "slice bounds out of range"},
	}
	for _, tt := range tests {
		step := func(call) error {
			tt.panic()
			return nil
		}
		for place := 5; place < 10; place++ {
			id := fmt.Sprint("b", place)
			for name, o := range map[string]*output{
				"before the right": {before: poison(step, id)},
				"with the right":   {after: poison(step, id)},
			} {
				t.Run(fmt.Sprint(tt.name, "/", id, "/", name), func(t *testing.T) {
					inBubble(t, o, func(r *rig) {
						r.handMany(20)
						r.at(time.Second)
						r.died(id)
						if r.happened("b0", "wrote", "ack"); len(o.visible) != 99 {
							r.t.Errorf("%d messages are in files, want 99", len(o.visible))
						}
						panicked := told[event.WorkerPanicked](r)
						if len(panicked) != 1 {
							r.t.Fatalf("%d panics told, want 1", len(panicked))
						}
						if stack := string(panicked[0].Stack); panicked[0].Value == nil || !strings.Contains(stack, "poison_test.go") {
							r.t.Errorf("told the panic %v with stack\n%s", panicked[0].Value, stack)
						}
						w := r.worker(panicked[0].Worker.ID)
						if !strings.HasPrefix(w.WhyStopped, "panicked: ") || !strings.Contains(w.WhyStopped, tt.want) || w.Dead != 1 {
							r.t.Errorf("worker %+v, want it to have panicked with %q", w, tt.want)
						}
						died := told[event.MessageDied](r)
						if len(died) != 1 || died[0].ID != id || died[0].Worker.ID != w.ID || !strings.Contains(died[0].Err.Error(), tt.want) {
							r.t.Errorf("told %+v, want the death of %s", died, id)
						}
						r.replaced(1)
						r.drain()
					})
				})
			}
		}
	}
}

// TestPanicAmongMany: so it is of batches that leave together, even of thousands.
func TestPanicAmongMany(t *testing.T) {
	for _, n := range []int{40, 4096} {
		dead := []string{"b0", fmt.Sprint("b", n/3), fmt.Sprint("b", n-1)}
		o := &output{after: poison(boom, dead...)}
		inBubble(t, o, func(r *rig) {
			r.hand(n)
			r.died(slices.Sorted(slices.Values(dead))...)
			if len(o.visible) != n-len(dead) {
				r.t.Errorf("%d of %d messages are in files", len(o.visible), n)
			}
			r.replaced(1)
			r.drain()
		})
	}
}

// replaced asserts how many workers were lost, and that others have come.
func (r *rig) replaced(lost int) {
	r.t.Helper()
	alive, gone := 0, 0
	for _, w := range r.pool.History() {
		switch {
		case w.State == event.Idle:
			alive++
		case strings.HasPrefix(w.WhyStopped, "panicked: "):
			gone++
		}
	}
	if alive < r.cfg.Min || gone != lost {
		r.t.Errorf("%d workers alive and %d lost, want at least %d and %d", alive, gone, r.cfg.Min, lost)
	}
}

// TestPanicAlone: a batch of one needs no isolating. The history says why there is
// a new worker.
func TestPanicAlone(t *testing.T) {
	inBubble(t, &output{before: boom}, func(r *rig) {
		b := r.hand(1)
		r.happened(b, "dead-letter")
		r.died(b)
		r.states(map[event.State]int{event.Idle: 3, event.Stopped: 1})
		r.lived("7-4", minimum, "")
		r.lived(told[event.WorkerPanicked](r)[0].Worker.ID, minimum, "panicked: boom")
		r.drain()
	})
}

// TestPanicAtTheDrain: every message of every batch panics.
func TestPanicAtTheDrain(t *testing.T) {
	inBubble(t, &output{before: boom}, func(r *rig) {
		r.handMany(50)
		r.close()
		r.over()
		count[event.MessageDied](r, 250)
		if len(r.dead) != 250 {
			r.t.Errorf("%d messages are dead, want 250", len(r.dead))
		}
		count[event.WorkerPanicked](r, 50)
	})
}

// TestIsolationHolds: an output that cannot take the mates of the poison has
// them held, and is not taken for poison itself.
func TestIsolationHolds(t *testing.T) {
	o := new(output)
	inBubble(t, o, func(r *rig) {
		full := func(c call) error {
			if c.at.Before(r.began.Add(time.Hour)) {
				return errDiskFull
			}
			return nil
		}
		o.before = inTurn(poison(boom, "b2"), full)
		b := r.hand(5)
		r.at(time.Hour - 1)
		r.states(map[event.State]int{event.Holding: 1, event.Idle: 2})
		r.happened(b)
		r.at(2 * time.Hour)
		r.happened(b, "wrote", "dead-letter")
		r.died("b2")
		r.replaced(1)
		r.drain()
	})
}

// TestIsolationTimesOut: a part that hangs is returned, and with it the
// envelope; the poison is found again when it comes again.
func TestIsolationTimesOut(t *testing.T) {
	hang := func(c call) error {
		if c.batch != "b0" || len(c.ids) == 5 {
			return nil
		}
		return hangs(time.Hour)(c)
	}
	inBubble(t, &output{before: inTurn(hang, poison(boom, "b4"))}, func(r *rig) {
		b := r.hand(5)
		r.at(r.cfg.Timeout - 1)
		r.happened(b)
		r.at(r.cfg.Timeout)
		r.happened(b, "return")
		if got := strings.Join(r.output.visible, " "); got != "b2 b3" {
			r.t.Errorf("in files are %s, want the other mates of b4", got)
		}
		r.died()
		count[event.MessageDied](r, 1)
		r.replaced(1)
		r.at(2 * time.Hour)
		r.drain()
	})
}

// TestIsolationIsCancelled: behind the drain's deadline the parts that are not
// written yet are returned.
func TestIsolationIsCancelled(t *testing.T) {
	o := &output{before: inTurn(poison(boom, "b4"), poison(fails, "b1"))}
	inBubble(t, o, func(r *rig) {
		b := r.hand(5)
		r.at(time.Minute)
		r.happened(b)
		r.cancel(errDeadline)
		r.happened(b, "return")
		for _, e := range told[event.BatchReturned](r) {
			if !errors.Is(e.Err, errDeadline) {
				r.t.Errorf("told %+v", e)
			}
		}
		r.died()
		r.drain()
	})
}

// TestPanicAfterTheTimeout: a writer that publishes late and then panics loses
// its worker once, and its batch is isolated all the same.
func TestPanicAfterTheTimeout(t *testing.T) {
	late := func(c call) error {
		if len(c.ids) == 5 {
			return hangs(time.Minute)(c)
		}
		return nil
	}
	inBubble(t, &output{after: inTurn(late, poison(boom, "b3"))}, func(r *rig) {
		b := r.hand(5)
		r.at(time.Hour)
		r.happened(b, "wrote", "dead-letter")
		r.died("b3")
		r.replaced(1)
		if e := told[event.WorkerTimedOut](r); len(e) != 1 || e[0].Returned {
			r.t.Errorf("told %+v, want one time-out with the batch not returned", e)
		}
		r.drain()
	})
}
