package workerpool_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/event"
	"async-data-processor/message"
	"async-data-processor/workerpool"
)

const (
	minimum = "minimum"
	backlog = "batches wait and all workers are busy"
	idle    = "idle"
	drained = "drained"
)

func TestStartsTheMinimum(t *testing.T) {
	inBubble(t, new(output), func(r *rig) {
		r.states(map[event.State]int{event.Idle: 3})
		r.at(time.Hour)
		r.states(map[event.State]int{event.Idle: 3})
		for i := 1; i <= 3; i++ {
			r.lived(fmt.Sprint("7-", i), minimum, "")
		}
		r.drain()
		for i := 1; i <= 3; i++ {
			r.lived(fmt.Sprint("7-", i), minimum, drained)
		}
	})
}

func TestClosedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		batches := make(chan *message.Batch)
		close(batches)
		began := time.Now()
		p := workerpool.New(workerpool.Config{Min: 3, Max: 4, Timeout: time.Second, Writer: new(output)}, batches)
		p.Run(t.Context())
		if took := time.Since(began); took != 0 {
			t.Errorf("Run took %v", took)
		}
		for _, w := range p.History() {
			if w.State != event.Stopped || w.WhyStopped != drained {
				t.Errorf("worker %+v", w)
			}
		}
	})
}

// TestPoolBreathes follows a pool through a backlog and the silence after it.
func TestPoolBreathes(t *testing.T) {
	o := &output{before: takes(time.Second)}
	inBubble(t, o, func(r *rig) {
		// As many batches as workers are no backlog.
		r.handMany(3)
		r.at(500 * time.Millisecond)
		r.states(map[event.State]int{event.Busy: 3})

		// One more is.
		r.hand(5)
		r.at(500*time.Millisecond + workerpool.LookInterval)
		r.states(map[event.State]int{event.Busy: 4})
		r.lived("7-4", backlog, "")

		r.handMany(100)
		r.at(20 * time.Second)
		r.states(map[event.State]int{event.Busy: 4})
		o.checkPeak(r.t, 4)

		for len(r.batches) > 0 {
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Second)
		r.states(map[event.State]int{event.Idle: 4})
		time.Sleep(workerpool.IdleTimeout)
		r.states(map[event.State]int{event.Idle: 3, event.Stopped: 1})
		for _, w := range r.pool.History() {
			if w.State == event.Stopped {
				r.lived(w.ID, w.WhyStarted, idle)
			}
		}

		// Three take the work from then on, until there is a backlog again.
		o.forget()
		r.handMany(3)
		time.Sleep(time.Minute)
		r.states(map[event.State]int{event.Idle: 3, event.Stopped: 1})
		o.checkPeak(r.t, 3)
		r.handMany(50)
		time.Sleep(5 * time.Second)
		r.states(map[event.State]int{event.Busy: 4, event.Stopped: 1})
		r.lived("7-5", backlog, "")
		r.drain()
	})
}

// TestGrowsUnderFastWrites: workers that never come to rest under a backlog
// still get help, although each batch takes less than the supervisor's interval.
func TestGrowsUnderFastWrites(t *testing.T) {
	o := &output{before: takes(time.Millisecond)}
	inBubbleWith(t, workerpool.Config{Min: 1, Max: 8, Timeout: time.Second}, o, func(r *rig) {
		r.handMany(900)
		time.Sleep(workerpool.LookInterval)
		r.states(map[event.State]int{event.Busy: 8})
		r.drain()
		o.checkPeak(r.t, 8)
	})
}

// TestBusyWorkerIsNeverRetired has one worker busy for an hour while the pool
// shrinks around it.
func TestBusyWorkerIsNeverRetired(t *testing.T) {
	o := &output{before: only(takes(time.Hour), "b0")}
	cfg := workerpool.Config{Min: 1, Max: 6, Timeout: 2 * time.Hour}
	o.after = func(c call) error {
		if c.batch != "b0" {
			return takes(time.Second)(c)
		}
		return nil
	}
	inBubbleWith(t, cfg, o, func(r *rig) {
		r.handMany(12)
		r.at(time.Second - 1)
		r.states(map[event.State]int{event.Busy: 6})
		r.at(10 * time.Second)
		r.states(map[event.State]int{event.Busy: 1, event.Idle: 5})
		r.at(time.Hour - 1)
		r.states(map[event.State]int{event.Busy: 1, event.Stopped: 5})
		r.at(time.Hour)
		r.states(map[event.State]int{event.Idle: 1, event.Stopped: 5})
		r.happened("b0", "wrote", "ack")
		r.drain()
	})
}

// TestSteadyLoadKeepsItsWorkers: pauses shorter than the idle timeout do not
// make the pool shrink and grow.
func TestSteadyLoadKeepsItsWorkers(t *testing.T) {
	inBubble(t, &output{before: takes(time.Second)}, func(r *rig) {
		for range 60 {
			r.handMany(8)
			time.Sleep(workerpool.IdleTimeout - workerpool.LookInterval)
		}
		r.states(map[event.State]int{event.Idle: 4})
		r.drain()
	})
}

// TestRetiresOnTime: the idle timeout is counted from when there began to be a
// worker to spare, whatever the others do meanwhile.
func TestRetiresOnTime(t *testing.T) {
	inBubble(t, &output{before: takes(time.Second)}, func(r *rig) {
		r.handMany(8)
		const spare = 2 * time.Second // since then
		r.at(spare + workerpool.IdleTimeout/2)
		r.hand(5)
		r.at(spare + workerpool.IdleTimeout - 1)
		r.states(map[event.State]int{event.Idle: 4})
		r.at(spare + workerpool.IdleTimeout)
		r.states(map[event.State]int{event.Idle: 3, event.Stopped: 1})
		r.drain()
	})
}

// TestWorkComesAsOneIsRetired: whichever comes first, the work is done, and none
// is retired below the minimum, although the supervisor looks again in that instant.
func TestWorkComesAsOneIsRetired(t *testing.T) {
	for i := range 400 {
		more := 2 + i%2*2
		inBubble(t, &output{before: takes(time.Second)}, func(r *rig) {
			r.handMany(8)
			time.Sleep(2*time.Second + workerpool.IdleTimeout)
			r.handMany(more)
			r.at(time.Minute)
			if started := len(r.pool.History()); more == 2 && started != 4 {
				r.t.Errorf("%d workers were started, want 4", started)
			}
			r.drain()
			count[event.BatchWritten](r, 8+more)
		})
		if t.Failed() {
			return
		}
	}
}

func TestAckFollowsWrite(t *testing.T) {
	o := &output{before: takes(time.Second), after: takes(time.Second)}
	inBubble(t, o, func(r *rig) {
		b := r.hand(5)
		r.at(2*time.Second - 1)
		r.happened(b)
		r.at(2 * time.Second)
		r.happened(b, "wrote", "ack")

		w := told[event.BatchWritten](r)[0]
		id := w.Worker.ID
		if w.Messages != 5 || w.Cause != "full" || w.File != fileOf(id, b) || w.Took != 2*time.Second {
			r.t.Errorf("told %+v", w)
		}
		if got := r.worker(id); got.Batches != 1 || got.Messages != 5 || got.LastFile != fileOf(id, b) || got.State != event.Idle {
			r.t.Errorf("worker %+v", got)
		}
		r.drain()
	})
}

func TestDrainFinishesWhatItHas(t *testing.T) {
	inBubble(t, &output{before: takes(time.Second)}, func(r *rig) {
		r.handMany(10)
		r.close()
		r.at(3*time.Second - 1)
		r.runs()
		r.at(3 * time.Second)
		r.over()
		count[event.BatchWritten](r, 10)
	})
}

// TestWithoutSink also has no room for a batch to wait in: there is no backlog
// to see then, but everything else is the same.
func TestWithoutSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		batches := make(chan *message.Batch)
		o := &output{journal: new(journal)}
		p := workerpool.New(workerpool.Config{Min: 1, Max: 1, Timeout: time.Second, Writer: o}, batches)
		go func() {
			defer close(batches)
			d := message.NewDelivery(message.Envelope{}, false, func(message.Outcome) error { return nil })
			d.Expect(1)
			b := new(message.Batch)
			b.Add(d, message.Message{Line: []byte(`{"message_id":"b"}`)})
			batches <- b
		}()
		p.Run(context.Background())
		if got := p.History(); len(got) != 1 || got[0].Messages != 1 {
			t.Errorf("history %+v", got)
		}
	})
}
