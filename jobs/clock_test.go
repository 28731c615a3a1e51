package jobs

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"async-data-processor/event"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
)

// setStore has a clock that is set by hand, and may refuse changes of leases.
type setStore struct {
	Store
	ahead time.Duration
	full  atomic.Bool
}

func (s *setStore) Writable(ctx context.Context) error {
	if s.full.Load() {
		return errAway
	}
	return s.Store.Writable(ctx)
}

func (s *setStore) Renew(ctx context.Context, runner string, f []store.Fence) (renewed, cancelling []store.Fence, err error) {
	if s.full.Load() {
		return nil, nil, errAway
	}
	return s.Store.Renew(ctx, runner, f)
}

func (s *setStore) Clock(ctx context.Context) (time.Time, error) {
	return time.Now().Add(s.ahead), ctx.Err()
}

// TestClockJumpsAhead: a lease does not end as the database's clock jumps, if its runner is
// there. One whose runner is gone ends.
func TestClockJumpsAhead(t *testing.T) {
	inBubble(t, func(rg *rig) {
		s := &setStore{Store: rg.store}
		e := rg.start("node", s)
		gone, _ := e.connect("r1", 1, nil)
		lost := e.create("hello")
		gone.take(gone.hear(frame.Offer))
		gone.leave()
		time.Sleep(frame.Lease) // the start is over
		p, _ := e.connect("r2", 1, []string{"gpu"})
		run := e.create("gpu")
		offer := p.hear(frame.Offer)
		p.take(offer)
		s.ahead = time.Hour
		rg.set("lease_until = 1")
		time.Sleep(frame.Beat - time.Second)
		if got := rg.run(run.ID); got.State != store.Running {
			t.Fatalf("before the beat: %+v", got)
		}
		p.say(frame.Frame{Type: frame.BeatFrame, Seq: 1, Attempts: []frame.Attempt{{Run: run.ID, Attempt: 1}}})
		p.hear(frame.BeatFrame)
		time.Sleep(2 * frame.Beat)
		if got := rg.run(run.ID); got.State != store.Running {
			t.Errorf("after the beat: %+v", got)
		}
		if got := rg.run(lost.ID); got.State != store.Dead || got.Outcome != store.Lost {
			t.Errorf("the run whose runner is gone: %+v", got)
		}
		e.stop()
	})
}

// TestClockMoved: a slow answer is no jump, and a jump is one in spite of a slow answer.
func TestClockMoved(t *testing.T) {
	began := time.Now()
	second := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	look := func(theirs, before, after int) clock { return clock{second(theirs), second(before), second(after)} }
	for _, c := range []struct {
		name string
		was  clock
		is   clock
		want int
	}{
		{"no look before", clock{}, look(0, 0, 0), -1},
		{"as the own one", look(100, 0, 0), look(110, 10, 10), 0},
		{"a slow answer", look(100, 0, 0), look(118, 10, 20), 0},
		{"a slow answer before", look(100, 0, 8), look(103, 10, 10), 0},
		{"ahead", look(100, 0, 0), look(113, 10, 10), 1},
		{"back", look(100, 0, 0), look(107, 10, 10), -1},
		{"back by an hour", look(3700, 0, 0), look(110, 10, 10), -1},
	} {
		if got := c.is.moved(c.was); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// TestFullDisk: a database that answers and takes no changes shows, and is told of once. When
// it takes them again, runners have time to come back before leases end.
func TestFullDisk(t *testing.T) {
	inBubble(t, func(rg *rig) {
		s := &setStore{Store: rg.store}
		e := rg.start("node", s)
		p, _ := e.connect("r1", 1, nil)
		run := e.create("hello")
		offer := p.hear(frame.Offer)
		p.take(offer)
		time.Sleep(frame.Lease) // the start is over
		if err := e.Ready(); err != nil {
			t.Fatal(err)
		}
		s.full.Store(true)
		p.leave()
		time.Sleep(frame.Lease)
		if e.Ready() == nil {
			t.Error("the engine says that it can work")
		}
		rg.set("lease_until = 1")
		s.full.Store(false)
		time.Sleep(frame.Beat - time.Second)
		p, _ = e.connect("r1", 1, nil, frame.Attempt{Run: run.ID, Attempt: 1})
		p.end(offer, frame.Exited, 0, frame.End)
		if got := rg.run(run.ID); got.State != store.Succeeded {
			t.Errorf("the run is %+v", got)
		}
		told := eventsOf[event.StateDatabase](rg)
		if err := e.Ready(); err != nil || len(told) != 2 || told[0].Err == nil || told[1].Err != nil {
			t.Errorf("at the end %v, told %+v", err, told)
		}
		e.stop()
	})
}
