package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"async-data-processor/jobs/frame"
)

// maxListedArgs bounds the Args of a run in a list, in bytes, so that a list is bounded.
const maxListedArgs = 4 << 10

// Create makes a run that is queued. If the job has a run with the same key, that one is
// returned, and created is false; ErrConflict if it has other arguments. A key is known as
// long as its run is.
func (s *Store) Create(ctx context.Context, n New) (run Run, created bool, err error) {
	if err := n.check(); err != nil {
		return Run{}, false, err
	}
	key := storedKey(n.Key)
	err = s.db.update(ctx, "create a run", func(q session) error {
		id, made, err := q.create(n, key)
		if err != nil {
			return err
		}
		if run, err = q.run("r.id = $1", id); err != nil {
			return err
		}
		if !made && !n.same(run) {
			run = Run{}
			return ErrConflict
		}
		created = made || q.again && n.Key == ""
		return nil
	})
	return run, created, err
}

// check holds a new run to the bounds.
func (n New) check() error {
	err := errors.Join(checkName("job", n.Job), checkText("key", n.Key, MaxName), checkText("name", n.By, MaxName))
	if len(n.Args) > 0 {
		err = errors.Join(err, checkText("arguments", string(n.Args), MaxArgs))
		if !json.Valid(n.Args) {
			err = errors.Join(err, fmt.Errorf("%w arguments: they are not JSON", ErrInvalid))
		}
	}
	if n.File != nil {
		err = errors.Join(err, checkFile(*n.File))
	}
	if n.Attempts < 1 || n.Attempts > MaxAttempts {
		err = errors.Join(err, fmt.Errorf("%w number of attempts: %d, it has to be 1 to %d", ErrInvalid, n.Attempts, MaxAttempts))
	}
	if n.Backoff < 0 || n.Backoff > maxBackoff {
		err = errors.Join(err, fmt.Errorf("%w backoff: %v, it has to be 0 to %v", ErrInvalid, n.Backoff, maxBackoff))
	}
	return err
}

// same tells whether a run was made for the same input.
func (n New) same(r Run) bool {
	sameFile := n.File == nil && r.File == nil || n.File != nil && r.File != nil && *n.File == *r.File
	return sameFile && bytes.Equal(n.Args, r.Args)
}

// storedKey returns a key as it is stored. A run without one gets a random one: so a
// creation can be repeated if the outcome of its commit is not known.
func storedKey(key string) string {
	if key == "" {
		return "~" + rand.Text()
	}
	return "=" + key
}

// create inserts a run unless the job has one of that key.
func (q session) create(n New, key string) (id int64, made bool, err error) {
	const known = "SELECT id FROM runs WHERE job = $1 AND key = $2"
	if found, err := q.one(known, []any{n.Job, key}, &id); found || err != nil {
		return id, false, err // an id is not wasted on a conflict
	}
	made, err = q.one(`INSERT INTO runs (job, key, by_whom, state, attempts, backoff, created, due)
		VALUES ($1, $2, $3, 'queued', $4, $5, {now}, {now}) ON CONFLICT (job, key) DO NOTHING RETURNING id`,
		[]any{n.Job, key, n.By, n.Attempts, n.Backoff.Milliseconds()}, &id)
	if err != nil {
		return 0, false, err
	}
	if !made {
		_, err = q.one(known, []any{n.Job, key}, &id)
		return id, false, err
	}
	if n.File == nil && len(n.Args) == 0 {
		return id, true, nil
	}
	args := []any{id, nil, nil, nil, nil, nil}
	if len(n.Args) > 0 {
		args[1] = string(n.Args)
	}
	if f := n.File; f != nil {
		args = append(args[:2], f.Name, f.Shard, f.Lines, f.Bytes)
	}
	_, err = q.exec("INSERT INTO inputs (run, args, name, shard, lines, bytes) VALUES ($1, $2, $3, $4, $5, $6)", args...)
	return id, true, err
}

// allArgs and shortArgs are how the arguments of runs are read.
const allArgs = "i.args"

var shortArgs = fmt.Sprintf("CASE WHEN octet_length(i.args) <= %d THEN i.args END AS args", maxListedArgs)

// runs reads runs, and locks them if the condition ends with {lock} or {skip}.
func (q session) runs(args, condition string, values ...any) (runs []Run, err error) {
	var odd []string
	q.odd = &odd
	err = q.each(`SELECT r.id, r.job, r.key, r.by_whom, r.state, r.attempt, r.base, r.spent, r.attempts, r.backoff,
		r.runner, r.engine, r.outcome, r.exit, r.why, r.cancelling, r.created, r.due, r.leased, r.started, r.ended,
		r.lease_until, `+args+`, i.name, coalesce(i.shard, 0) AS shard,
		coalesce(i.lines, 0) AS lines, coalesce(i.bytes, 0) AS bytes
		FROM runs r LEFT JOIN inputs i ON i.run = r.id WHERE `+condition, values, func(scan func(...any) error) error {
		odd = nil
		r, err := scanRun(scan)
		r.Why = remark(odd, r.Why)
		runs = append(runs, r)
		return err
	})
	return runs, err
}

// remark says which columns of a row could not be read, before why it is as it is.
func remark(odd []string, why string) string {
	if len(odd) == 0 {
		return why
	}
	return because("its row in the database has no valid "+strings.Join(odd, ", "), why)
}

// run reads the run of a condition.
func (q session) run(condition string, values ...any) (Run, error) {
	runs, err := q.runs(allArgs, condition, values...)
	if err != nil || len(runs) == 0 {
		return Run{}, cmp.Or(err, ErrNotFound)
	}
	return runs[0], nil
}

// scanRun reads a row of runs.
func scanRun(scan func(...any) error) (r Run, err error) {
	var (
		key                                           string
		backoff                                       int64
		args, name                                    *string
		shard, lines                                  int
		size                                          int64
		created, due, leased, started, ended, leaseTo int64
	)
	err = scan(&r.ID, &r.Job, &key, &r.By, &r.State, &r.Attempt, &r.base, &r.Spent, &r.Attempts, &backoff,
		&r.Runner, &r.Engine, &r.Outcome, &r.Exit, &r.Why, &r.Cancelling, &created, &due, &leased, &started, &ended,
		&leaseTo, &args, &name, &shard, &lines, &size)
	if err != nil {
		return Run{}, err
	}
	if given, ok := strings.CutPrefix(key, "="); ok {
		r.Key = given
	}
	r.Backoff = time.Duration(backoff) * time.Millisecond
	if args != nil {
		r.Args = json.RawMessage(*args)
		if !json.Valid(r.Args) || !utf8.Valid(r.Args) { // another hand has changed it, and no answer or frame could have it
			r.Args, _ = json.Marshal(*args)
		}
	}
	if name != nil {
		r.File = &frame.Published{Name: *name, Shard: shard, Lines: lines, Bytes: size}
	}
	r.Created, r.Due, r.Leased, r.Started, r.Ended, r.LeaseUntil = at(created), at(due), at(leased), at(started), at(ended), at(leaseTo)
	return r, nil
}

// Run returns a run, or ErrNotFound.
func (s *Store) Run(ctx context.Context, id int64) (run Run, err error) {
	err = s.db.view(ctx, "read a run", func(q session) (err error) {
		run, err = q.run("r.id = $1", id)
		return err
	})
	return run, err
}

// Runs returns runs, newest first. Arguments of more than 4 KiB are left out.
func (s *Store) Runs(ctx context.Context, f Filter) (runs []Run, err error) {
	err = errors.Join(checkText("job", f.Job, MaxName), checkText("state", string(f.State), MaxName))
	if f.Limit < 1 || f.Limit > MaxList || f.Before < 0 {
		err = errors.Join(err, fmt.Errorf("%w list: the limit has to be 1 to %d", ErrInvalid, MaxList))
	}
	if err != nil {
		return nil, err
	}
	var where []string
	var args []any
	add := func(condition string, arg any) {
		args = append(args, arg)
		where = append(where, condition+" $"+strconv.Itoa(len(args)))
	}
	if f.Job != "" {
		add("r.job =", f.Job)
	}
	if f.State != "" {
		add("r.state =", string(f.State))
	}
	if f.Before > 0 {
		add("r.id <", f.Before)
	}
	where = append(where, "r.id > 0 ORDER BY r.id DESC LIMIT "+strconv.Itoa(f.Limit))
	err = s.db.view(ctx, "list runs", func(q session) (err error) {
		runs, err = q.runs(shortArgs, strings.Join(where, " AND "), args...)
		return err
	})
	return runs, err
}

// Counts returns how many runs of each job are in each state.
func (s *Store) Counts(ctx context.Context) (counts Counts, err error) {
	err = s.db.view(ctx, "count runs", func(q session) error {
		counts = make(Counts)
		return q.each("SELECT job, state, count(*) FROM runs GROUP BY job, state", nil, func(scan func(...any) error) error {
			var job string
			var state State
			var n int
			if err := scan(&job, &state, &n); err != nil {
				return err
			}
			if counts[job] == nil {
				counts[job] = make(map[State]int)
			}
			counts[job][state] = n
			return nil
		})
	})
	return counts, err
}

// Cancel ends a run that is queued, and asks for the end of one that is leased or running:
// then it is Cancelling. A run that is cancelled already stays as it is. Another one that
// has ended is ErrState.
func (s *Store) Cancel(ctx context.Context, id int64, by, why string) (Run, error) {
	return s.db.change(ctx, "cancel a run", id, func(q session, r Run) error {
		text := clean(because(done("cancelled", by), why))
		switch {
		case r.State == Cancelled || r.Cancelling:
			return nil
		case r.State.Ended():
			return fmt.Errorf("%w: it has ended, as %s", ErrState, r.State)
		case r.State == Leased || r.State == Running:
			_, err := q.exec("UPDATE runs SET cancelling = 1, why = $2 WHERE id = $1", id, text)
			return err
		}
		// It is queued, or another hand has given it a state that there is not.
		_, err := q.exec("UPDATE runs SET state = 'cancelled', why = $2, ended = {now} WHERE id = $1", id, text)
		return err
	})
}

// Retry queues a run again that has ended without success, with fresh attempts. Another
// one is ErrState.
func (s *Store) Retry(ctx context.Context, id int64, by, why string) (Run, error) {
	return s.db.change(ctx, "retry a run", id, func(q session, r Run) error {
		if !r.State.Ended() && q.again {
			return nil // the earlier try has done it
		}
		switch {
		case r.State == Succeeded:
			return fmt.Errorf("%w: it has succeeded", ErrState)
		case !r.State.Ended():
			return fmt.Errorf("%w: it is %s and has not ended", ErrState, r.State)
		}
		_, err := q.exec(`UPDATE runs SET state = 'queued', base = attempt, spent = 0, cancelling = 0,
			why = $2, due = {now}, ended = 0 WHERE id = $1`, id, clean(because(done("tried again", by), why)))
		return err
	})
}

// done says what was done and by whom, who may be unknown.
func done(what, by string) string {
	if by == "" {
		return what
	}
	return what + " by " + by
}

// because joins what was done and why.
func because(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + why
}

// change changes a run, and returns what it is then.
func (d *database) change(ctx context.Context, noun string, id int64, f func(session, Run) error) (run Run, err error) {
	err = d.update(ctx, noun, func(q session) error {
		r, err := q.run("r.id = $1{lock}", id)
		if err != nil {
			return err
		}
		if err := f(q, r); err != nil {
			return err
		}
		run, err = q.run("r.id = $1", id)
		return err
	})
	return run, err
}
