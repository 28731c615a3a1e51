package shard_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/message"
	"async-data-processor/shard"
)

// harbour is a broker with a queue for each of some shards, that confirms when
// it is told to. It notes the convoys that came.
type harbour struct {
	verdicts []chan error // by shard

	mu      sync.Mutex // guards what follows
	convoys []string   // the shards of each, in order, with their number of messages
}

func (h *harbour) publish(ctx context.Context, envelopes []message.Envelope, done func(int, error)) {
	var text []byte
	for _, e := range envelopes {
		text = fmt.Appendf(text, "%d:%d ", e.Shard, e.Count)
	}
	h.mu.Lock()
	h.convoys = append(h.convoys, string(text))
	h.mu.Unlock()
	oneByOne(func(ctx context.Context, e message.Envelope) error {
		select {
		case err := <-h.verdicts[e.Shard]:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})(ctx, envelopes, done)
}

// fleet is the lanes to a harbour, in a bubble of fake time.
type fleet struct {
	*harbour
	t     *testing.T
	lanes *shard.Lanes
	at    []time.Time // an instant of each shard
}

func newFleet(t *testing.T, shards int) *fleet {
	h := &harbour{verdicts: make([]chan error, shards)}
	f := &fleet{h, t, shard.NewLanes(shards, timeout, h.publish), make([]time.Time, shards)}
	for i := range h.verdicts {
		h.verdicts[i] = make(chan error)
	}
	for found, at := 0, epoch; found < shards; at = at.Add(time.Second) {
		if n := shard.Of(at, shards); f.at[n].IsZero() {
			f.at[n] = at
			found++
		}
	}
	return f
}

// answer is what a submission is told.
type answer struct {
	counts map[int]int
	err    error
	took   time.Duration
}

// submit submits a message for each of the shards, beside the test.
func (f *fleet) submit(shards ...int) <-chan answer { return f.submitUntil(f.t.Context(), shards...) }

func (f *fleet) submitUntil(ctx context.Context, shards ...int) <-chan answer {
	s := message.Submission{ID: "S"}
	for i, n := range shards {
		s.Messages = append(s.Messages, numbered(i, 100, f.at[n]))
	}
	answered := make(chan answer, 1)
	go func() {
		began := time.Now()
		counts, outcomes := f.lanes.Submit(ctx, s)
		answered <- answer{counts, errors.Join(outcomes...), time.Since(began)}
	}()
	synctest.Wait()
	return answered
}

// confirm confirms the envelope under way of each of the shards.
func (f *fleet) confirm(shards ...int) {
	f.t.Helper()
	for _, n := range shards {
		select {
		case f.verdicts[n] <- nil:
		case <-time.After(time.Nanosecond):
			f.t.Fatalf("no envelope of shard %d is under way", n)
		}
	}
	synctest.Wait()
}

// came checks which convoys have come since the last call.
func (f *fleet) came(want ...string) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.convoys, want) {
		f.t.Fatalf("convoys %q, want %q", f.convoys, want)
	}
	f.convoys = nil
}

// published checks that a submission was answered, and well.
func (f *fleet) published(answered <-chan answer) {
	f.t.Helper()
	select {
	case a := <-answered:
		if a.err != nil {
			f.t.Errorf("outcome %v", a.err)
		}
	default:
		f.t.Error("a submission is not answered though its envelopes are confirmed")
	}
}

// TestConvoy: what waits in all lanes takes off together, as soon as the convoy
// before it has landed, and not earlier.
func TestConvoy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3)
		first := f.submit(1)
		f.came("1:1 ")
		later := []<-chan answer{f.submit(0), f.submit(2, 1, 2), f.submit(1)}
		f.came()
		f.confirm(1)
		f.published(first)
		f.came("0:1 1:2 2:2 ")
		last := f.submit(0, 1)
		f.confirm(2, 0)
		f.came() // one is missing
		f.confirm(1)
		for _, answered := range later {
			f.published(answered)
		}
		f.came("0:1 1:1 ")
		f.confirm(0, 1)
		f.published(last)
		f.published(func() <-chan answer { a := f.submit(2); f.confirm(2); return a }()) // idle: at once
		f.came("2:1 ")
	})
}

// TestOutcomesAreIndependent: each submission hears of the envelopes that it is
// in, as soon as they are confirmed, and of no other.
func TestOutcomesAreIndependent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3)
		blocker := f.submit(0)
		zero, one, both := f.submit(0), f.submit(1), f.submit(0, 1, 0, 2)
		f.confirm(0)
		f.published(blocker)
		f.confirm(0)
		f.published(zero)
		if len(one) > 0 || len(both) > 0 {
			t.Error("a submission is answered before its envelope is confirmed")
		}
		failure := errors.New("refused")
		f.verdicts[1] <- failure
		synctest.Wait()
		if a := <-one; !errors.Is(a.err, failure) {
			t.Errorf("outcome %v, want %v", a.err, failure)
		}
		if len(both) > 0 {
			t.Error("a submission is answered before the last of its envelopes")
		}
		f.confirm(2)
		a := <-both
		if joined, ok := a.err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) != 1 || !errors.Is(a.err, failure) {
			t.Errorf("outcomes %v, want one that is not nil", a.err)
		}
		if fmt.Sprint(a.counts) != "map[0:2 1:1 2:1]" {
			t.Errorf("counts %v", a.counts)
		}
	})
}

// TestLeftBehind: a silent queue costs the others next to nothing, its own
// submissions the publish time-out each, and nothing when it is back.
func TestLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3)
		const silent = 1
		began := time.Now()
		var outcomes []<-chan answer // of the silent one's
		others, slowest := 0, time.Duration(0)
		for time.Since(began) < 3*timeout {
			if others%50 == 0 {
				outcomes = append(outcomes, f.submit(silent))
			}
			answered := f.submit(0, 2)
			for _, n := range []int{0, 2} {
				f.verdicts[n] <- nil // as soon as it is published
			}
			a := <-answered
			if a.err != nil {
				t.Fatal(a.err)
			}
			slowest = max(slowest, a.took)
			others++
			time.Sleep(10 * time.Millisecond)
		}
		if slowest > 20*time.Millisecond {
			t.Errorf("the silent queue costs another submission %v", slowest)
		}
		if took := time.Since(began) - time.Duration(others)*10*time.Millisecond; took > 10*20*time.Millisecond {
			t.Errorf("the silent queue costs %d other submissions %v", others, took)
		}
		// It is back.
		synctest.Wait()
		close(f.verdicts[silent])
		for _, answered := range outcomes {
			if a := <-answered; a.took > 2*timeout+20*time.Millisecond {
				t.Errorf("a submission to the silent queue took %v: %v", a.took, a.err)
			}
		}
		f.came(f.convoys...)
		answered := f.submit(0, silent, 2)
		f.confirm(0, 2)
		f.published(answered)
		f.came("0:1 1:1 2:1 ")
	})
}

// TestFollows: a lane that was left behind takes off when its envelope is
// confirmed, whatever the others do.
func TestFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3)
		f.submit(0, 1)
		f.confirm(0)
		f.submit(0, 1)
		f.came("0:1 1:1 ")
		time.Sleep(time.Second)
		synctest.Wait()
		f.came("0:1 ") // without the one that is not confirmed
		f.submit(1)
		f.confirm(0)
		f.came()
		f.confirm(1)
		f.came("1:2 ") // what waited for it
		f.submit(2)
		f.came()
		f.confirm(1)
		f.came("2:1 ") // and together from here on
		f.confirm(2)
	})
}

// TestFollowsAlone: of a convoy that nobody waits for any more, each lane goes on
// by itself.
func TestFollowsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3)
		f.submit(0, 1, 2)
		time.Sleep(time.Second)
		waiting := f.submit(1)
		f.came("0:1 1:1 2:1 ")
		f.confirm(1)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		f.came("1:1 ")
		f.confirm(1)
		f.published(waiting)
		f.confirm(0, 2)
	})
}

// TestSilentAlone: a queue that is silent from the start, in a convoy alone, does
// not hold up the others.
func TestSilentAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 2)
		silent, other := f.submit(0), f.submit(1)
		f.came("0:1 ")
		time.Sleep(20 * time.Millisecond)
		f.confirm(1)
		f.published(other)
		f.came("1:1 ")
		other = f.submit(1) // at once
		f.confirm(1)
		f.published(other)
		if a := <-silent; a.err == nil || a.took != timeout {
			t.Errorf("outcome %v after %v, want a time-out", a.err, a.took)
		}
	})
}

// lateContext is done, but tells only when it may.
type lateContext struct {
	context.Context
	may <-chan struct{}
}

func (c lateContext) Done() <-chan struct{} {
	<-c.may
	return c.Context.Done()
}

// TestLandsAtTheDeadline: what is published when the waiting ends has its counts.
func TestLandsAtTheDeadline(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 200 {
		landed := make(chan struct{})
		lanes := shard.NewLanes(3, timeout, func(_ context.Context, envelopes []message.Envelope, done func(int, error)) {
			for i := range envelopes {
				done(i, nil)
			}
			close(landed)
		})
		s := decoded(t, 20)
		counts, outcomes := lanes.Submit(lateContext{ctx, landed}, s)
		total := 0
		for _, n := range counts {
			total += n
		}
		if outcomes != nil || total != len(s.Messages) {
			t.Fatalf("counts %v, outcomes %v of what is published", counts, outcomes)
		}
		if counts, outcomes := lanes.Submit(t.Context(), message.Submission{}); len(counts) != 0 || outcomes != nil {
			t.Fatalf("counts %v, outcomes %v of nothing", counts, outcomes)
		}
	}
}

// TestAbandonedStays: of a convoy that waits, what nobody waits for any more
// stays here.
func TestAbandonedStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3)
		first := f.submit(0)
		tired := errors.New("tired")
		ctx, cancel := context.WithCancelCause(t.Context())
		abandoned := f.submitUntil(ctx, 0, 1, 2)
		other := f.submit(2)
		cancel(tired)
		if a := <-abandoned; !errors.Is(a.err, tired) || fmt.Sprint(a.counts) != "map[0:1 1:1 2:1]" {
			t.Errorf("outcome %v, counts %v", a.err, a.counts)
		}
		f.confirm(0)
		f.published(first)
		f.came("0:1 ", "2:2 ")
		f.confirm(2)
		f.published(other)
	})
}
