package store

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"async-data-processor/jobs/frame"
)

func TestCreate(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		n := New{
			Job: "a", Key: "k", By: "anna", Args: json.RawMessage(`{"x":"é\u0000"}`), Attempts: 3, Backoff: 1500 * time.Millisecond,
			File: &frame.Published{Name: "shard-3/3-1_x.ndjson", Shard: 3, Lines: 5, Bytes: 1 << 40},
		}
		run, created, err := s.Create(ctx, n)
		s.must(err)
		now := time.UnixMilli(s.clock.ms).UTC()
		if !created || run.ID != 1 || run.Job != "a" || run.Key != "k" || run.By != "anna" || !bytes.Equal(run.Args, n.Args) || *run.File != *n.File ||
			run.State != Queued || run.Attempt != 0 || run.Attempts != 3 || run.Backoff != n.Backoff || run.Created != now || run.Due != now ||
			!run.Ended.IsZero() || run.Exit != nil {
			t.Errorf("created %v: %+v", created, run)
		}
		s.clock.advance(time.Hour)
		again, created, err := s.Create(ctx, n)
		s.must(err)
		if created || again.ID != 1 || again.Created != now {
			t.Errorf("with the key again: %v, %+v", created, again)
		}
		other := n
		other.Args = json.RawMessage(`{}`)
		_, _, err = s.Create(ctx, other)
		s.isErr(err, ErrConflict)
		other = n
		other.Job = "b"
		if run, created, err := s.Create(ctx, other); err != nil || !created || run.ID != 2 {
			t.Errorf("another job: %v, %+v, %v", created, run, err)
		}
		if first, second := s.queue("a", 1), s.queue("a", 1); first.ID != 3 || second.ID != 4 || first.Key != "" {
			t.Errorf("without a key: %+v, %+v", first, second)
		}
		if run, created, err := s.Create(ctx, New{Job: "a", Key: "~x", Attempts: 1}); err != nil || !created || run.Key != "~x" {
			t.Errorf("a key with a sign: %v, %+v, %v", created, run, err)
		}
		_, err = s.Run(ctx, 99)
		s.isErr(err, ErrNotFound)
	})
}

func TestIDsAreNotUsedAgain(t *testing.T) {
	each(t, func(s suite) {
		s.queue("a", 1)
		last := s.queue("a", 1)
		_, err := s.Cancel(s.t.Context(), last.ID, "", "")
		s.must(err)
		if n, err := s.Retain(s.t.Context(), map[string]int{"a": 0}, 10); n != 1 || err != nil {
			t.Fatalf("removed %d, %v", n, err)
		}
		if next := s.queue("a", 1); next.ID <= last.ID {
			t.Errorf("id %d after %d", next.ID, last.ID)
		}
	})
}

// TestBadInput: what a hostile client or runner can send is refused, and nothing is written.
func TestBadInput(t *testing.T) {
	long := strings.Repeat("x", MaxName+1)
	each(t, func(s suite) {
		ctx := s.t.Context()
		run := s.begun("a", 1)
		f := fenceOf(run)
		for name, n := range map[string]New{
			"no job": {Attempts: 1}, "long job": {Job: long, Attempts: 1}, "long key": {Job: "a", Key: long, Attempts: 1},
			"NUL in key": {Job: "a", Key: "x\x00", Attempts: 1}, "key not UTF-8": {Job: "a", Key: "\xff", Attempts: 1},
			"long by": {Job: "a", By: long, Attempts: 1}, "args": {Job: "a", Attempts: 1, Args: json.RawMessage(`{`)},
			"args not UTF-8": {Job: "a", Attempts: 1, Args: json.RawMessage("\"\xff\"")},
			"long args":      {Job: "a", Attempts: 1, Args: json.RawMessage(`"` + strings.Repeat("x", MaxArgs) + `"`)},
			"no attempts":    {Job: "a"}, "attempts": {Job: "a", Attempts: MaxAttempts + 1}, "backoff": {Job: "a", Attempts: 1, Backoff: -1},
			"file": {Job: "a", Attempts: 1, File: &frame.Published{Name: "x", Shard: -1}},
		} {
			_, _, err := s.Create(ctx, n)
			if s.isErr(err, ErrInvalid); Away(err) {
				t.Errorf("%s: %v is said to pass", name, err)
			}
		}
		jobs := map[string]int{"a": 1}
		for _, c := range []Claim{
			{Jobs: jobs, Max: 1},
			{Runner: long, Jobs: jobs, Max: 1},
			{Runner: "r", Jobs: jobs, Max: -1},
			{Runner: "r", Jobs: jobs, Max: 1 << 40},
			{Runner: "r", Jobs: map[string]int{"a": 0}, Max: 1},
			{Runner: "r", Jobs: map[string]int{"\xff": 1}, Max: 1},
		} {
			_, err := s.Claim(ctx, c)
			s.isErr(err, ErrInvalid)
		}
		for _, e := range []End{{}, {Outcome: Lost}, {Outcome: "x\x00"}, {Outcome: frame.Exited, Log: -1}, {Outcome: frame.Exited, Exit: 1 << 40}} {
			_, _, err := s.End(ctx, f, e)
			s.isErr(err, ErrInvalid)
		}
		_, _, err := s.Renew(ctx, "r1", make([]Fence, maxFences+1))
		s.isErr(err, ErrInvalid)
		for _, f := range []Filter{{}, {Limit: MaxList + 1}, {Limit: 1, Before: -1}, {Limit: 1, Job: "\xff"}, {Limit: 1, State: "\x00"}} {
			_, err := s.Runs(ctx, f)
			s.isErr(err, ErrInvalid)
		}
		_, err = s.Audits(ctx, "", 0)
		s.isErr(err, ErrInvalid)
		s.isErr(s.Audit(ctx, Audited{}), ErrInvalid)
		// A text that says why is made good: the end of an attempt must not fail by it.
		ended, ok, err := s.End(ctx, f, End{Outcome: frame.Fault, Why: "\xff\x00" + strings.Repeat("é", MaxWhy)})
		if err != nil || !ok || len(ended.Why) > MaxWhy+100 || !strings.HasPrefix(ended.Why, "é") {
			t.Errorf("a wild text: %v, %v, %.30q of %d bytes", ok, err, ended.Why, len(ended.Why))
		}
		if runs, err := s.Runs(ctx, Filter{Limit: 10}); err != nil || len(runs) != 1 {
			t.Errorf("%d runs, %v, want the one that was begun", len(runs), err)
		}
	})
}

func TestRuns(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		for range 3 {
			s.queue("a", 1)
			s.queue("b", 1)
		}
		_, err := s.Cancel(ctx, 3, "", "")
		s.must(err)
		big := json.RawMessage(`"` + strings.Repeat("é", maxListedArgs/2) + `"`)
		_, _, err = s.Create(ctx, New{Job: "c", Args: big, Attempts: 1})
		s.must(err)
		for _, c := range []struct {
			filter Filter
			want   []int64
		}{
			{Filter{Limit: 100}, []int64{7, 6, 5, 4, 3, 2, 1}},
			{Filter{Limit: 2}, []int64{7, 6}},
			{Filter{Limit: 2, Before: 6}, []int64{5, 4}},
			{Filter{Limit: 100, Job: "a"}, []int64{5, 3, 1}},
			{Filter{Limit: 100, State: Queued, Before: 6}, []int64{5, 4, 2, 1}},
			{Filter{Limit: 100, Job: "a", State: Cancelled}, []int64{3}},
			{Filter{Limit: 100, Job: "x' OR 1=1 --"}, nil},
		} {
			runs, err := s.Runs(ctx, c.filter)
			s.must(err)
			var got []int64
			for _, r := range runs {
				got = append(got, r.ID)
				if r.ID == 7 && r.Args != nil {
					t.Error("a list has arguments of any length")
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%+v: %v, want %v", c.filter, got, c.want)
			}
		}
		run, err := s.Run(ctx, 7)
		s.must(err)
		if !bytes.Equal(run.Args, big) {
			t.Errorf("a run has %d bytes of arguments, want %d", len(run.Args), len(big))
		}
		counts, err := s.Counts(ctx)
		s.must(err)
		if counts["a"][Queued] != 2 || counts["a"][Cancelled] != 1 || counts["b"][Queued] != 3 || len(counts) != 3 {
			t.Errorf("counts %v", counts)
		}
	})
}

func TestCancel(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		queued := s.queue("a", 1)
		run, err := s.Cancel(ctx, queued.ID, "anna", "not now")
		s.must(err)
		if run.State != Cancelled || run.Ended.IsZero() || run.Why != "cancelled by anna: not now" {
			t.Errorf("queued: %+v", run)
		}
		if _, err := s.Cancel(ctx, queued.ID, "bert", ""); err != nil {
			t.Errorf("again: %v", err)
		}
		if run := s.claim("a"); run.ID != 0 {
			t.Errorf("a cancelled run was claimed: %+v", run)
		}
		running := s.begun("a", 3)
		run, err = s.Cancel(ctx, running.ID, "anna", "")
		s.must(err)
		if run.State != Running || !run.Cancelling {
			t.Errorf("running: %+v", run)
		}
		renewed, cancelling, err := s.Renew(ctx, "r1", []Fence{fenceOf(running)})
		s.must(err)
		if len(renewed) != 1 || len(cancelling) != 1 {
			t.Errorf("renewed %v, cancelling %v", renewed, cancelling)
		}
		if run := s.end(fenceOf(running), frame.Exited, 1); run.State != Cancelled || run.Cancelling || run.Why != "cancelled by anna" {
			t.Errorf("its end: %+v", run)
		}
		done := s.begun("a", 3)
		_, err = s.Cancel(ctx, done.ID, "anna", "")
		s.must(err)
		if run := s.end(fenceOf(done), frame.Exited, 0); run.State != Succeeded {
			t.Errorf("it succeeded before it was cancelled, and is %v", run.State)
		}
		_, err = s.Cancel(ctx, done.ID, "anna", "")
		s.isErr(err, ErrState)
		lost := s.begun("a", 3)
		_, err = s.Cancel(ctx, lost.ID, "anna", "")
		s.must(err)
		s.clock.advance(time.Minute)
		if runs, err := s.Expire(ctx, 10); err != nil || len(runs) != 1 || runs[0].State != Cancelled {
			t.Errorf("a lost one that is to end: %+v, %v", runs, err)
		}
		_, err = s.Cancel(ctx, 99, "", "")
		s.isErr(err, ErrNotFound)
		run, err = s.Cancel(ctx, s.queue("a", 1).ID, "", "a reason") // of a client without a name
		s.must(err)
		if run.Why != "cancelled: a reason" {
			t.Errorf("by nobody: %q", run.Why)
		}
	})
}

func TestRetry(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		run := s.begun("a", 2)
		_, err := s.Retry(ctx, run.ID, "anna", "")
		s.isErr(err, ErrState)
		s.end(fenceOf(run), frame.Exited, 1)
		s.clock.advance(time.Minute)
		second := s.claim("a")
		if run := s.end(fenceOf(second), frame.Exited, 1); run.State != Dead || run.Spent != 2 {
			t.Fatalf("after two failures: %+v", run)
		}
		run, err = s.Retry(ctx, run.ID, "anna", "mended")
		s.must(err)
		if run.State != Queued || run.Spent != 0 || run.Attempt != 2 || !run.Ended.IsZero() || run.Why != "tried again by anna: mended" {
			t.Errorf("retried: %+v", run)
		}
		third := s.claim("a")
		if run := s.end(fenceOf(third), frame.Exited, 1); third.Attempt != 3 || run.State != Queued || run.Due.Sub(run.Created) != time.Minute+time.Second {
			t.Errorf("the attempts are not fresh: %+v", run)
		}
		s.clock.advance(time.Minute)
		if run := s.end(fenceOf(s.claim("a")), frame.Exited, 0); run.State != Succeeded || run.Attempt != 4 {
			t.Errorf("at last: %+v", run)
		}
		_, err = s.Retry(ctx, run.ID, "anna", "")
		s.isErr(err, ErrState)
		_, err = s.Retry(ctx, 99, "anna", "")
		s.isErr(err, ErrNotFound)
		attempts, err := s.Attempts(ctx, run.ID)
		s.must(err)
		if len(attempts) != 4 || attempts[0].Number != 1 || *attempts[0].Exit != 1 || *attempts[3].Exit != 0 {
			t.Errorf("attempts %+v", attempts)
		}
		_, err = s.Attempts(ctx, 99)
		s.isErr(err, ErrNotFound)
	})
}

func TestAudit(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		for _, a := range []Audited{
			{ID: "1", Who: "anna", From: "::1", What: "cancel", Why: "x\x00y"}, {ID: "2", What: "retry"}, {ID: "1", Outcome: "done"},
		} {
			s.must(s.Audit(ctx, a))
		}
		audits, err := s.Audits(ctx, "", 10)
		s.must(err)
		if len(audits) != 2 || audits[0].ID != "2" || audits[1] != (Audited{"1", "anna", "::1", "cancel", "xy", "done", time.UnixMilli(s.clock.ms).UTC()}) {
			t.Errorf("audits %+v", audits)
		}
		audits, err = s.Audits(ctx, "2", 10)
		s.must(err)
		if len(audits) != 1 || audits[0].ID != "1" {
			t.Errorf("before the last one: %+v", audits)
		}
	})
}
