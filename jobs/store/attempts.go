package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"async-data-processor/jobs/frame"
)

// Codes with which a process says more than that it failed, as in sysexits.h.
const exitTemporary, exitConfig = 75, 78

// current tells whether an attempt is the one that the run has.
func (r Run) current(f Fence) bool {
	return r.Attempt == f.Attempt && (r.State == Leased || r.State == Running)
}

// verdict is what becomes of a run when an attempt ends.
type verdict struct {
	state State
	spent bool
	pause time.Duration // until it is due again
	why   string        // why it is dead or waits, if the end does not say so
}

// judge decides it.
func (r Run) judge(outcome frame.Outcome, exit int) verdict {
	switch {
	case outcome == frame.Exited && exit == 0:
		return verdict{state: Succeeded, spent: true}
	case outcome == frame.TimedOut:
		return verdict{state: TimedOut, spent: true}
	case r.Cancelling || outcome == frame.Cancelled:
		return verdict{state: Cancelled, spent: true}
	case outcome == frame.Exited && exit == exitConfig:
		return verdict{state: Dead, spent: true, why: "it exited with 78: it can never succeed"}
	}
	v := verdict{state: Queued}
	unspent := r.Attempt - r.base - r.Spent // this one included
	switch {
	case outcome == frame.Returned:
	case outcome == Lost && r.State == Leased: // it did not begin
		v.pause = doubled(time.Second, unspent, time.Minute)
	case outcome == frame.Fault || outcome == frame.Exited && exit == exitTemporary:
		v.pause = doubled(max(r.Backoff, time.Second), unspent, maxBackoff)
	default: // it failed, or was lost
		v.spent, v.pause = true, doubled(r.Backoff, r.Spent+1, maxBackoff)
	}
	switch {
	case v.spent && r.Spent+1 >= r.Attempts:
		v.state, v.why = Dead, exhausted(r.Spent+1, outcome)
	case r.Attempt-r.base >= MaxAttempts:
		v.state, v.why = Dead, fmt.Sprintf("it began %d times without an end", MaxAttempts)
	case outcome == frame.Exited:
		v.why = fmt.Sprintf("it exited with %d", exit)
	}
	return v
}

// exhausted says that no attempt is left after so many.
func exhausted(attempts int, outcome frame.Outcome) string {
	switch {
	case attempts > 1:
		return fmt.Sprintf("all %d attempts failed", attempts)
	case outcome == Lost:
		return "its only attempt was lost"
	}
	return "its only attempt failed"
}

// doubled returns the n-th pause, n from 1, each twice as long as the one before it.
func doubled(first time.Duration, n int, most time.Duration) time.Duration {
	for range n - 1 {
		if first >= most {
			break
		}
		first *= 2
	}
	return min(first, most)
}

// settle changes a run by what is told of an attempt. It is false for a run that is not
// there any more.
func (d *database) settle(ctx context.Context, noun string, fence Fence, f func(session, Run) (bool, error)) (run Run, ok bool, err error) {
	run, err = d.change(ctx, noun, fence.Run, func(q session, r Run) (err error) {
		ok, err = f(q, r)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return Run{}, false, nil
	}
	return run, ok && err == nil, err
}

// end is how an attempt is filed.
type end struct {
	outcome frame.Outcome
	exit    *int
	why     string
	log     *int64 // the length of its log; nil if it is not known
}

// finish ends the attempt that a run has, and brings the run where the verdict says.
func (q session) finish(r Run, e end, v verdict) error {
	spent := r.Spent + zeroOne(v.spent)
	why := e.why
	switch {
	case v.why != "":
		why = clean(because(v.why, e.why))
	case v.state == Cancelled && r.Cancelling:
		why = r.Why // it names who asked for the end
	}
	if _, err := q.exec(`UPDATE attempts SET outcome = $3, exit = $4, why = $5, spent = $6, log_end = $7, ended = {now}
		WHERE run = $1 AND number = $2`, r.ID, r.Attempt, string(e.outcome), e.exit, e.why, zeroOne(v.spent), e.log); err != nil {
		return err
	}
	if v.state.Ended() {
		_, err := q.exec(`UPDATE runs SET state = $2, spent = $3, outcome = $4, exit = $5, why = $6, cancelling = 0,
			ended = {now}, lease_until = 0 WHERE id = $1`, r.ID, string(v.state), spent, string(e.outcome), e.exit, why)
		return err
	}
	_, err := q.exec(`UPDATE runs SET state = 'queued', spent = $2, outcome = $3, exit = $4, why = $5,
		due = {now} + $6, lease_until = 0 WHERE id = $1`, r.ID, spent, string(e.outcome), e.exit, why, v.pause.Milliseconds())
	return err
}

// Unclaim gives a run back that did not begin, as its runner refused it or did not answer.
// It is due again after a second, twice as long with each further time, at most a minute. It
// is false if the attempt is stale.
func (s *Store) Unclaim(ctx context.Context, f Fence, why string) (Run, bool, error) {
	why = clean(why)
	return s.db.settle(ctx, "give a run back", f, func(q session, r Run) (bool, error) {
		if !r.current(f) {
			return q.again && r.Attempt == f.Attempt, nil
		}
		r.State = Leased
		return true, q.finish(r, end{frame.Returned, nil, why, new(int64)}, r.judge(Lost, 0))
	})
}

// End ends an attempt. What becomes of the run follows from the outcome, see State. It is
// false if the attempt is stale: then that it was told is kept in the attempt, and nothing
// else changes. The same end, told again, is true as long as no other attempt began.
func (s *Store) End(ctx context.Context, f Fence, e End) (Run, bool, error) {
	if !e.Outcome.Known() {
		return Run{}, false, fmt.Errorf("%w outcome %.20q", ErrInvalid, e.Outcome)
	}
	if e.Log < 0 || e.Exit < -1<<31 || e.Exit >= 1<<31 {
		return Run{}, false, fmt.Errorf("%w end: the log has %d bytes, the exit code is %d", ErrInvalid, e.Log, e.Exit)
	}
	filed := end{e.Outcome, nil, clean(e.Why), &e.Log}
	if e.Outcome == frame.Exited || e.Exit != 0 {
		filed.exit = &e.Exit
	}
	return s.db.settle(ctx, "end a run", f, func(q session, r Run) (bool, error) {
		if r.current(f) {
			return true, q.finish(r, filed, r.judge(e.Outcome, e.Exit))
		}
		return q.late(r, f, filed)
	})
}

// late files the end of an attempt that has ended already. It is true for the same end.
func (q session) late(r Run, f Fence, e end) (bool, error) {
	var before end
	found, err := q.one("SELECT outcome, exit, why FROM attempts WHERE run = $1 AND number = $2", []any{f.Run, f.Attempt},
		&before.outcome, &before.exit, &before.why)
	if err != nil || !found {
		return false, err
	}
	sameExit := before.exit == nil && e.exit == nil || before.exit != nil && e.exit != nil && *before.exit == *e.exit
	if r.Attempt == f.Attempt && before.outcome == e.outcome && sameExit && before.why == e.why {
		return true, nil
	}
	told := string(e.outcome)
	if e.exit != nil {
		told += fmt.Sprint(" ", *e.exit)
	}
	_, err = q.exec(`UPDATE attempts SET late = $3, log_end = coalesce(log_end, $4) WHERE run = $1 AND number = $2 AND late = ''`,
		f.Run, f.Attempt, clean(because(told, e.why)), e.log)
	return false, err
}

// Attempts returns the attempts of a run, the first one first.
func (s *Store) Attempts(ctx context.Context, id int64) (attempts []Attempt, err error) {
	err = s.db.view(ctx, "read attempts", func(q session) (err error) {
		attempts, err = q.attempts(id)
		if err != nil || len(attempts) > 0 {
			return err
		}
		var one int
		if found, err := q.one("SELECT 1 FROM runs WHERE id = $1", []any{id}, &one); found || err != nil {
			return err
		}
		return ErrNotFound
	})
	return attempts, err
}

// attempts reads the attempts of a run.
func (q session) attempts(id int64) (attempts []Attempt, err error) {
	var odd []string
	q.odd = &odd
	err = q.each(`SELECT number, runner, engine, outcome, exit, why, late, spent, leased, started, ended, length, cut, `+logWhole+` AS whole
		FROM attempts WHERE run = $1 ORDER BY number`, []any{id}, func(scan func(...any) error) error {
		var a Attempt
		var late string
		var leased, started, ended int64
		odd = nil
		err := scan(&a.Number, &a.Runner, &a.Engine, &a.Outcome, &a.Exit, &a.Why, &late, &a.Spent, &leased, &started, &ended, &a.Log, &a.Cut, &a.LogWhole)
		a.Leased, a.Started, a.Ended = at(leased), at(started), at(ended)
		if late != "" {
			a.Why = because(a.Why+"; its runner told later", late)
		}
		a.Why = remark(odd, a.Why)
		attempts = append(attempts, a)
		return err
	})
	return attempts, err
}
