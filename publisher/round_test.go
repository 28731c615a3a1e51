package publisher_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/message"
	"async-data-processor/publisher"
)

// TestRound: what waits for all shards is published together, as soon as the
// round before is confirmed, and not earlier.
func TestRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, 3)
		first := h.submit(1)
		h.wantRounds("1:1 ")
		later := []<-chan answer{h.submit(0), h.submit(2, 1, 2), h.submit(1)}
		h.wantRounds()
		h.confirm(1)
		h.wantPublished(first)
		h.wantRounds("0:1 1:2 2:2 ")
		last := h.submit(0, 1)
		h.confirm(2, 0)
		h.wantRounds() // one is missing
		h.confirm(1)
		for _, answered := range later {
			h.wantPublished(answered)
		}
		h.wantRounds("0:1 1:1 ")
		h.confirm(0, 1)
		h.wantPublished(last)
		h.wantPublished(func() <-chan answer { a := h.submit(2); h.confirm(2); return a }()) // idle: at once
		h.wantRounds("2:1 ")
	})
}

// TestOutcomesAreIndependent: a submission is told the outcomes of the envelopes
// that have its messages, as soon as they are known, and no others.
func TestOutcomesAreIndependent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, 3)
		blocker := h.submit(0)
		zero, one, both := h.submit(0), h.submit(1), h.submit(0, 1, 0, 2)
		h.confirm(0)
		h.wantPublished(blocker)
		h.confirm(0)
		h.wantPublished(zero)
		if len(one) > 0 || len(both) > 0 {
			t.Error("a submission is answered before its envelope is confirmed")
		}
		failure := errors.New("refused")
		h.settle(1, failure)
		h.wantError(one, failure)
		if len(both) > 0 {
			t.Error("a submission is answered before the last of its envelopes")
		}
		h.confirm(2)
		a := <-both
		if joined, ok := a.err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) != 1 || !errors.Is(a.err, failure) {
			t.Errorf("outcomes %v, want one that is not nil", a.err)
		}
		if fmt.Sprint(a.shards) != "[{0 2} {1 1} {2 1}]" {
			t.Errorf("shards %v", a.shards)
		}
	})
}

// TestStraggler: a silent queue costs the others next to nothing, its own
// submissions the time-out each, and nothing when it confirms again.
func TestStraggler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, 3)
		const silent = 1
		began := time.Now()
		var outcomes []<-chan answer // of the silent one's
		others, slowest := 0, time.Duration(0)
		for time.Since(began) < 3*timeout {
			if others%50 == 0 {
				outcomes = append(outcomes, h.submit(silent))
			}
			answered := h.submit(0, 2)
			for _, n := range []int{0, 2} {
				h.outcomes[n] <- nil // as soon as it is published
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
		// It confirms again.
		synctest.Wait()
		close(h.outcomes[silent])
		for _, answered := range outcomes {
			if a := <-answered; a.took > 2*timeout+20*time.Millisecond {
				t.Errorf("a submission to the silent queue took %v: %v", a.took, a.err)
			}
		}
		h.wantRounds(h.rounds...)
		answered := h.submit(0, silent, 2)
		h.confirm(0, 2)
		h.wantPublished(answered)
		h.wantRounds("0:1 1:1 2:1 ")
	})
}

// TestStragglerJoins: a straggler is in the round after its confirm.
func TestStragglerJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, 3)
		h.submit(0, 1)
		h.confirm(0)
		h.submit(0, 1)
		h.wantRounds("0:1 1:1 ")
		time.Sleep(time.Second)
		synctest.Wait()
		h.wantRounds("0:1 ") // without the straggler
		h.submit(1)
		h.confirm(0)
		h.wantRounds()
		h.confirm(1)
		h.wantRounds("1:2 ") // what waited for it
		h.submit(2)
		h.wantRounds()
		h.confirm(1)
		h.wantRounds("2:1 ") // and together from here on
		h.confirm(2)
	})
}

// TestStragglersGoOn: of a round in which all are stragglers, each shard goes on
// by itself.
func TestStragglersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, 3)
		h.submit(0, 1, 2)
		time.Sleep(time.Second)
		waiting := h.submit(1)
		h.wantRounds("0:1 1:1 2:1 ")
		h.confirm(1)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		h.wantRounds("1:1 ")
		h.confirm(1)
		h.wantPublished(waiting)
		h.confirm(0, 2)
	})
}

// TestSilentFirst: a queue that is silent from the start, in a round of its own,
// does not hold up the others.
func TestSilentFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, 2)
		silent, other := h.submit(0), h.submit(1)
		h.wantRounds("0:1 ")
		time.Sleep(20 * time.Millisecond)
		h.confirm(1)
		h.wantPublished(other)
		h.wantRounds("1:1 ")
		other = h.submit(1) // at once
		h.confirm(1)
		h.wantPublished(other)
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

// TestConfirmedAtTheDeadline: what is published when ctx ends counts as published.
func TestConfirmedAtTheDeadline(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 200 {
		confirmed := make(chan struct{})
		p := publisher.New(publisher.Config{Shards: 3, Timeout: timeout, Broker: publisher.Func(
			func(_ context.Context, envelopes []message.Envelope, done func(int, error)) {
				for i := range envelopes {
					done(i, nil)
				}
				close(confirmed)
			})})
		s := decoded(t, 20)
		shards, err := p.Submit(lateContext{ctx, confirmed}, s)
		total := 0
		for _, n := range shards {
			total += n.Messages
		}
		if err != nil || total != len(s.Messages) {
			t.Fatalf("shards %v, error %v of what is published", shards, err)
		}
		if shards, err := p.Submit(t.Context(), message.Submission{}); len(shards) != 0 || err != nil {
			t.Fatalf("shards %v, error %v of nothing", shards, err)
		}
	}
}

// TestAbandonedIsNotPublished: of what waits for the next round, an envelope whose
// last submission has given up is not published.
func TestAbandonedIsNotPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, 3)
		first := h.submit(0)
		tired := errors.New("tired")
		ctx, cancel := context.WithCancelCause(t.Context())
		abandoned := h.submitUntil(ctx, 0, 1, 2)
		other := h.submit(2)
		cancel(tired)
		if a := <-abandoned; !errors.Is(a.err, tired) || fmt.Sprint(a.shards) != "[{0 1} {1 1} {2 1}]" {
			t.Errorf("outcome %v, shards %v", a.err, a.shards)
		}
		h.confirm(0)
		h.wantPublished(first)
		h.wantRounds("0:1 ", "2:2 ")
		h.confirm(2)
		h.wantPublished(other)
	})
}
