package store

import (
	"testing"
	"time"

	"async-data-processor/jobs/frame"
)

// TestLeaseClockBack: a run that is lost does not stay running until a clock that was set
// back has caught up, and one that is not lost has a whole lease.
func TestLeaseClockBack(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		lost, kept := s.begun("a", 2), s.begun("b", 2)
		s.clock.advance(-time.Hour)
		expire := func(want ...int64) {
			s.t.Helper()
			runs, err := s.Expire(ctx, 10)
			s.must(err)
			if len(runs) != len(want) || len(want) > 0 && runs[0].ID != want[0] {
				s.t.Fatalf("ended %+v, want %v", runs, want)
			}
		}
		expire()
		s.clock.advance(frame.Lease)
		expire()
		if renewed, _, err := s.Renew(ctx, "r1", []Fence{fenceOf(kept)}); err != nil || len(renewed) != 1 {
			t.Fatalf("renewed %v: %v", renewed, err)
		}
		s.clock.advance(time.Millisecond)
		expire(lost.ID)
		if got := s.stateOf(kept.ID); got != Running {
			t.Errorf("the run that was renewed is %s", got)
		}
	})
}

// TestDueClockBack: what was due is due when the clock was set back, and so is what waited
// for its next attempt. What waits by the clock as it is goes on waiting.
func TestDueClockBack(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		began := s.clock.ms
		now, err := s.Clock(ctx)
		s.must(err)
		if now.UnixMilli() != began {
			t.Fatalf("the clock is %v", now)
		}
		s.queue("due", 1)
		failed := s.begun("failed", 3)
		s.end(fenceOf(failed), frame.Exited, 1)
		s.must(s.ClockWentBack(ctx))
		if run := s.claim("failed"); run.ID != 0 {
			t.Fatalf("claimed before its pause is over: %+v", run)
		}
		s.clock.advance(-time.Hour)
		s.must(s.ClockWentBack(ctx))
		for _, job := range []string{"due", "failed"} {
			if run := s.claim(job); run.ID == 0 {
				t.Errorf("%s waits for the clock", job)
			}
		}
		again := s.begun("waits", 3)
		s.sql("UPDATE runs SET backoff = 60000")
		s.end(fenceOf(again), frame.Exited, 1)
		s.must(s.ClockWentBack(ctx))
		if run := s.claim("waits"); run.ID != 0 {
			t.Errorf("claimed before its pause is over: %+v", run)
		}
		if run, err := s.Run(ctx, again.ID); err != nil || run.Due.UnixMilli() != s.clock.ms+60_000 {
			t.Errorf("due %v: %v", run.Due, err)
		}
	})
}
