package store

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"async-data-processor/jobs/frame"
)

func TestClaim(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		for _, job := range []string{"b", "a", "b", "c", "a"} {
			s.queue(job, 1)
			s.clock.advance(time.Millisecond)
		}
		claim := func(limit int, jobs map[string]int) (got []int64) {
			s.t.Helper()
			runs, err := s.Claim(ctx, Claim{Runner: "r1", Engine: "e1", Jobs: jobs, Max: limit})
			s.must(err)
			for _, r := range runs {
				got = append(got, r.ID)
				if r.State != Leased || r.Attempt != 1 || r.Runner != "r1" || r.Engine != "e1" || r.LeaseUntil.Sub(r.Leased) != frame.Lease {
					t.Errorf("claimed %+v", r)
				}
			}
			return got
		}
		if got := claim(0, map[string]int{"a": 1}); got != nil {
			t.Errorf("without a slot: %v", got)
		}
		if got := claim(5, map[string]int{"x": 1}); got != nil {
			t.Errorf("of another job: %v", got)
		}
		// The longest due first, whatever the job; of "b" only one at a time.
		if got := claim(2, map[string]int{"a": 5, "b": 1}); !slices.Equal(got, []int64{1, 2}) {
			t.Errorf("the first two: %v", got)
		}
		if got := claim(5, map[string]int{"a": 5, "b": 1}); !slices.Equal(got, []int64{5}) {
			t.Errorf("the rest: %v", got)
		}
		if got := claim(5, map[string]int{"b": 2, "c": 1}); !slices.Equal(got, []int64{3, 4}) {
			t.Errorf("with room: %v", got)
		}
	})
}

// TestFence: what an attempt tells that is not current changes nothing.
func TestFence(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		first := s.begun("a", 5)
		s.clock.advance(frame.Lease + time.Millisecond)
		lost, err := s.Expire(ctx, 10)
		s.must(err)
		if len(lost) != 1 || lost[0].State != Queued || lost[0].Outcome != Lost || lost[0].Spent != 1 || lost[0].Due.UnixMilli() != s.clock.ms+1000 {
			t.Fatalf("lost: %+v", lost)
		}
		stale := func() {
			s.t.Helper()
			if _, ok, err := s.Start(ctx, fenceOf(first)); ok || err != nil {
				t.Errorf("start: %v, %v", ok, err)
			}
			if renewed, _, err := s.Renew(ctx, "r1", []Fence{fenceOf(first)}); len(renewed) > 0 || err != nil {
				t.Errorf("renew: %v, %v", renewed, err)
			}
			if _, ok, err := s.Unclaim(ctx, fenceOf(first), ""); ok || err != nil {
				t.Errorf("unclaim: %v, %v", ok, err)
			}
			before, err := s.Run(ctx, first.ID)
			s.must(err)
			if _, ok, err := s.End(ctx, fenceOf(first), End{Outcome: frame.Exited, Why: "woken", Log: 3}); ok || err != nil {
				t.Errorf("end: %v, %v", ok, err)
			}
			after, err := s.Run(ctx, first.ID)
			s.must(err)
			if !reflect.DeepEqual(before, after) {
				t.Errorf("the stale end changed %+v to %+v", before, after)
			}
		}
		stale() // while no other has it
		s.clock.advance(time.Minute)
		second := s.claim("a")
		stale()
		if second.ID != first.ID || second.Attempt != 2 || second.Spent != 1 {
			t.Fatalf("claimed again: %+v", second)
		}
		_, ok, err := s.Start(ctx, fenceOf(second))
		s.must(err)
		stale()
		if !ok || s.stateOf(first.ID) != Running {
			t.Error("the second attempt does not run")
		}
		s.end(fenceOf(second), frame.Exited, 0)
		stale()
		attempts, err := s.Attempts(ctx, first.ID)
		s.must(err)
		if a := attempts[0]; a.Outcome != Lost || !a.Spent || !strings.HasSuffix(a.Why, "; its runner told later: exited 0: woken") {
			t.Errorf("the stale end is not filed: %+v", a)
		}
		if a := attempts[1]; a.Outcome != frame.Exited || *a.Exit != 0 || a.Runner != "r1" || a.Leased.IsZero() || a.Started.IsZero() || a.Ended.IsZero() {
			t.Errorf("the second attempt: %+v", a)
		}
		if _, ok, err := s.End(ctx, Fence{99, 1}, End{Outcome: frame.Exited}); ok || err != nil {
			t.Errorf("the end of a run that is not there: %v, %v", ok, err)
		}
		if _, ok, err := s.End(ctx, Fence{first.ID, 77}, End{Outcome: frame.Exited}); ok || err != nil {
			t.Errorf("the end of an attempt that is not there: %v, %v", ok, err)
		}
	})
}

func TestEndAgain(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		run := s.begun("a", 5)
		e := End{Outcome: frame.Exited, Exit: 3, Why: "x"}
		for range 3 {
			if got, ok, err := s.End(ctx, fenceOf(run), e); err != nil || !ok || got.State != Queued || got.Spent != 1 {
				t.Fatalf("told: %v, %v, %+v", ok, err, got)
			}
		}
		if _, ok, err := s.End(ctx, fenceOf(run), End{Outcome: frame.Exited}); ok || err != nil {
			t.Errorf("another end: %v, %v", ok, err)
		}
		if _, ok, _ := s.End(ctx, fenceOf(run), e); !ok {
			t.Error("the same end is stale after another one")
		}
		s.clock.advance(time.Minute)
		s.claim("a")
		if _, ok, err := s.End(ctx, fenceOf(run), e); ok || err != nil {
			t.Errorf("the same end after the next claim: %v, %v", ok, err)
		}
	})
}

// TestOutcomes: what becomes of a run.
func TestOutcomes(t *testing.T) {
	for _, c := range []struct {
		outcome frame.Outcome
		exit    int
		state   State
		spent   int
		pause   time.Duration
		why     string
	}{
		{frame.Exited, 0, Succeeded, 1, 0, "because"},
		{frame.Exited, 1, Queued, 1, time.Second, "it exited with 1: because"},
		{frame.Exited, 75, Queued, 0, time.Second, "it exited with 75: because"},
		{frame.Exited, 78, Dead, 1, 0, "it exited with 78: it can never succeed: because"},
		{frame.TimedOut, 0, TimedOut, 1, 0, "because"},
		{frame.Cancelled, 0, Cancelled, 1, 0, "because"},
		{frame.Fault, 125, Queued, 0, time.Second, "because"},
		{frame.Fenced, 0, Queued, 1, time.Second, "because"},
		{frame.Returned, 0, Queued, 0, 0, "because"},
	} {
		each(t, func(s suite) {
			run := s.begun("a", 2)
			run = s.end(fenceOf(run), c.outcome, c.exit)
			if run.State != c.state || run.Why != c.why || run.Spent != c.spent || run.Outcome != c.outcome || run.State.Ended() == run.Ended.IsZero() ||
				run.State == Queued && run.Due.UnixMilli() != s.clock.ms+c.pause.Milliseconds() {
				t.Errorf("%s %d: %+v", c.outcome, c.exit, run)
			}
			if counts, err := s.Counts(s.t.Context()); err != nil || counts["a"][c.state] != 1 {
				t.Errorf("%s %d: counts %v, %v", c.outcome, c.exit, counts, err)
			}
		})
	}
}

// TestExhausted: a run that is dead says how many attempts it had.
func TestExhausted(t *testing.T) {
	for _, c := range []struct {
		attempts int
		lost     bool
		why      string
	}{
		{1, false, "its only attempt failed: because"},
		{1, true, "its only attempt was lost: its runner r1 did not renew the lease"},
		{2, false, "all 2 attempts failed: because"},
		{2, true, "all 2 attempts failed: its runner r1 did not renew the lease"},
	} {
		each(t, func(s suite) {
			run := s.begun("a", c.attempts)
			for range c.attempts - 1 {
				s.end(fenceOf(run), frame.Exited, 1)
				s.clock.advance(time.Minute)
				run = s.claim("a")
				_, _, err := s.Start(s.t.Context(), fenceOf(run))
				s.must(err)
			}
			if c.lost {
				s.clock.advance(time.Minute)
				runs, err := s.Expire(s.t.Context(), 10)
				s.must(err)
				run = runs[0]
			} else {
				run = s.end(fenceOf(run), frame.Exited, 1)
			}
			if run.State != Dead || run.Why != c.why {
				t.Errorf("%+v: %s, %q", c, run.State, run.Why)
			}
		})
	}
}

// TestBackoff: pauses double, and an end comes, whatever the outcome.
func TestBackoff(t *testing.T) {
	each(t, func(s suite) {
		s.queue("fails", 20)
		var pauses []time.Duration
		for {
			run := s.claim("fails")
			run = s.end(fenceOf(run), frame.Exited, 1)
			if run.State == Dead {
				break
			}
			pause := time.Duration(run.Due.UnixMilli()-s.clock.ms) * time.Millisecond
			pauses = append(pauses, pause)
			s.clock.advance(pause - time.Millisecond)
			if early := s.claim("fails"); early.ID != 0 {
				t.Fatalf("claimed before it was due: %+v", early)
			}
			s.clock.advance(time.Millisecond)
		}
		want := []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600, 3600, 3600, 3600, 3600, 3600}
		for i := range want {
			want[i] *= time.Second
		}
		if !slices.Equal(pauses, want) {
			t.Errorf("pauses %v, want %v", pauses, want)
		}
	})
	each(t, func(s suite) {
		s.queue("returns", 1)
		attempts := 0
		for run := s.claim("returns"); run.ID != 0; run = s.claim("returns") {
			attempts++
			s.end(fenceOf(run), frame.Returned, 0)
		}
		if s.stateOf(1) != Dead || attempts != MaxAttempts {
			t.Errorf("%v after %d attempts", s.stateOf(1), attempts)
		}
		if run, err := s.Retry(s.t.Context(), 1, "", ""); err != nil || run.State != Queued {
			t.Errorf("retried: %+v, %v", run, err)
		}
		if run := s.end(fenceOf(s.claim("returns")), frame.Returned, 0); run.State != Queued {
			t.Errorf("the bound is not fresh after a retry: %+v", run)
		}
	})
}

func TestUnclaim(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		s.queue("a", 2)
		run := s.claim("a")
		run, ok, err := s.Unclaim(ctx, fenceOf(run), "no slot")
		if err != nil || !ok || run.State != Queued || run.Spent != 0 || run.Why != "no slot" || run.Due.UnixMilli() != s.clock.ms+1000 {
			t.Errorf("refused: %v, %v, %+v", ok, err, run)
		}
		s.clock.advance(time.Minute)
		run, ok, err = s.Unclaim(ctx, fenceOf(s.claim("a")), "")
		if err != nil || !ok || run.Due.UnixMilli() != s.clock.ms+2000 {
			t.Errorf("refused again: %v, %v, %+v", ok, err, run)
		}
	})
}

func TestRenew(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		a, b := s.begun("a", 1), s.begun("a", 1)
		leased := s.queue("a", 1)
		s.claim("a")
		s.clock.advance(frame.Lease - time.Millisecond)
		fences := []Fence{fenceOf(a), {leased.ID, 1}, {99, 1}, {b.ID, 7}}
		renewed, cancelling, err := s.Renew(ctx, "r1", fences)
		s.must(err)
		slices.SortFunc(renewed, func(x, y Fence) int { return int(x.Run - y.Run) })
		if !slices.Equal(renewed, []Fence{fenceOf(a), {leased.ID, 1}}) || cancelling != nil {
			t.Errorf("renewed %v, cancelling %v", renewed, cancelling)
		}
		if renewed, _, err := s.Renew(ctx, "r2", []Fence{fenceOf(b)}); len(renewed) > 0 || err != nil {
			t.Errorf("by another runner: %v, %v", renewed, err)
		}
		s.clock.advance(time.Second)
		lost, err := s.Expire(ctx, 10)
		s.must(err)
		if len(lost) != 1 || lost[0].ID != b.ID || lost[0].State != Dead {
			t.Errorf("lost: %+v", lost)
		}
		s.clock.advance(frame.Lease)
		lost, err = s.Expire(ctx, 1)
		s.must(err)
		if len(lost) != 1 || lost[0].ID != a.ID {
			t.Errorf("one more: %+v", lost)
		}
		// One that did not start is not spent.
		lost, err = s.Expire(ctx, 10)
		s.must(err)
		if len(lost) != 1 || lost[0].ID != leased.ID || lost[0].State != Queued || lost[0].Spent != 0 {
			t.Errorf("the rest: %+v", lost)
		}
	})
}
