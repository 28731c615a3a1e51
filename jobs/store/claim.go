package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"async-data-processor/jobs/frame"
)

// Claim takes queued runs that are due, the longest due first, at most c.Max, and no more
// of a job than may run at a time. They are Leased, with the next attempt and a lease of
// frame.Lease.
func (s *Store) Claim(ctx context.Context, c Claim) (runs []Run, err error) {
	if err := c.check(); err != nil || len(c.Jobs) == 0 || c.Max == 0 {
		return nil, err
	}
	var jobs []string
	// Looking needs no lock. So a claim that finds nothing disturbs no one.
	err = s.db.view(ctx, "look for runs", func(q session) (err error) {
		jobs, err = q.claimable(c)
		return err
	})
	if err != nil || len(jobs) == 0 {
		return nil, err
	}
	mark := rand.Text()
	err = s.db.update(ctx, "claim runs", func(q session) (err error) {
		if q.again {
			if runs, err = q.marked(mark); len(runs) > 0 || err != nil {
				return err // the earlier try has taken them
			}
		}
		if err = q.claim(c, jobs, mark); err == nil {
			runs, err = q.marked(mark)
		}
		return err
	})
	return runs, err
}

func (c Claim) check() error {
	err := errors.Join(checkName("runner", c.Runner), checkText("engine", c.Engine, MaxName))
	if len(c.Jobs) > maxJobs || c.Max < 0 || c.Max > maxClaim {
		err = errors.Join(err, fmt.Errorf("%w claim: %d runs of %d jobs", ErrInvalid, c.Max, len(c.Jobs)))
	}
	for job, concurrency := range c.Jobs {
		err = errors.Join(err, checkName("job", job))
		if concurrency < 1 {
			err = errors.Join(err, fmt.Errorf("%w concurrency of %s: %d", ErrInvalid, job, concurrency))
		}
	}
	return err
}

// claimable returns the jobs with a run that is due and with room for it: those with the
// c.Max longest due ones, in alphabetical order.
func (q session) claimable(c Claim) ([]string, error) {
	names := slices.Sorted(maps.Keys(c.Jobs))
	args := make([]any, len(names))
	for i, name := range names {
		args[i] = name
	}
	type job struct {
		name string
		due  int64
	}
	var jobs []job
	err := q.each(`WITH jobs (name) AS (VALUES `+list(len(names), 1, "text")+`)
		SELECT name, due, active FROM (SELECT name,
			(SELECT min(r.due) FROM runs r WHERE r.state = 'queued' AND r.job = name) AS due,
			(SELECT count(*) FROM runs r WHERE r.state IN ('leased', 'running') AND r.job = name) AS active
			FROM jobs) j WHERE due <= {now}`, args, func(scan func(...any) error) error {
		var j job
		var active int
		err := scan(&j.name, &j.due, &active)
		if err == nil && active < c.Jobs[j.name] {
			jobs = append(jobs, j)
		}
		return err
	})
	slices.SortFunc(jobs, func(x, y job) int { return cmp.Compare(x.due, y.due) })
	var chosen []string
	for i, j := range jobs {
		if i < c.Max || j.due == jobs[c.Max-1].due {
			chosen = append(chosen, j.name)
		}
	}
	slices.Sort(chosen)
	return chosen, err
}

// claim takes runs of the jobs, which are in alphabetical order, so that two claims that
// wait for each other's jobs do so in one direction.
func (q session) claim(c Claim, jobs []string, mark string) error {
	type due struct{ id, at int64 }
	var candidates []due
	for _, job := range jobs {
		// The count below holds only if no other claim of this job is under way.
		if lock := q.dialect.lockJob; lock != "" {
			if _, err := q.exec(lock, job); err != nil {
				return err
			}
		}
		var active int
		if _, err := q.one("SELECT count(*) FROM runs WHERE state IN ('leased', 'running') AND job = $1", []any{job}, &active); err != nil {
			return err
		}
		room := min(c.Max, c.Jobs[job]-active)
		if room <= 0 {
			continue
		}
		err := q.each(`SELECT r.id, r.due FROM runs r WHERE r.state = 'queued' AND r.job = $1 AND r.due <= {now}
			AND r.attempt BETWEEN 0 AND 1000000000 ORDER BY r.due, r.id LIMIT $2{skip}`, []any{job, room}, func(scan func(...any) error) error {
			var d due
			err := scan(&d.id, &d.at)
			candidates = append(candidates, d)
			return err
		})
		if err != nil {
			return err
		}
	}
	slices.SortFunc(candidates, func(x, y due) int { return cmp.Or(cmp.Compare(x.at, y.at), cmp.Compare(x.id, y.id)) })
	for _, d := range candidates[:min(len(candidates), c.Max)] {
		if err := q.take(c, d.id, mark); err != nil {
			return err
		}
	}
	return nil
}

// take leases a run and begins an attempt. Its number is above that of every earlier one, also
// if another hand has set that of the run back.
func (q session) take(c Claim, id int64, mark string) error {
	if _, err := q.exec(`UPDATE runs SET state = 'leased', attempt = 1 + coalesce(
		(SELECT max(a.number) FROM attempts a WHERE a.run = runs.id AND a.number > runs.attempt), attempt), runner = $2, engine = $3, claim = $4,
		outcome = '', exit = NULL, why = '', leased = {now}, started = 0, lease_until = {now} + $5 WHERE id = $1`,
		id, c.Runner, c.Engine, mark, frame.Lease.Milliseconds()); err != nil {
		return err
	}
	_, err := q.exec(`INSERT INTO attempts (run, number, runner, engine, leased)
		SELECT id, attempt, runner, engine, leased FROM runs WHERE id = $1`, id)
	return err
}

// marked returns the runs that a call of Claim took.
func (q session) marked(mark string) ([]Run, error) {
	return q.runs(allArgs, "r.state IN ('leased', 'running') AND r.claim = $1 ORDER BY r.due, r.id", mark)
}

// Start tells that the process of an attempt begins. It is false if the attempt is stale.
func (s *Store) Start(ctx context.Context, f Fence) (Run, bool, error) {
	return s.db.settle(ctx, "start a run", f, func(q session, r Run) (bool, error) {
		if !r.current(f) {
			return false, nil
		}
		if r.State == Running {
			return true, nil // a repeat
		}
		if _, err := q.exec("UPDATE runs SET state = 'running', started = {now} WHERE id = $1", f.Run); err != nil {
			return false, err
		}
		_, err := q.exec("UPDATE attempts SET started = {now} WHERE run = $1 AND number = $2", f.Run, f.Attempt)
		return true, err
	})
}

// Renew makes the leases of a runner's attempts frame.Lease long again. The attempts that
// are not in renewed are stale. Those of cancelling are renewed, and are to be ended.
func (s *Store) Renew(ctx context.Context, runner string, fences []Fence) (renewed, cancelling []Fence, err error) {
	if err := checkName("runner", runner); err != nil || len(fences) == 0 {
		return nil, nil, err
	}
	if len(fences) > maxFences {
		return nil, nil, fmt.Errorf("%w renewal of %d attempts, at most %d are allowed", ErrInvalid, len(fences), maxFences)
	}
	var args []any
	for _, f := range fences {
		args = append(args, f.Run, f.Attempt)
	}
	args = append(args, runner, frame.Lease.Milliseconds())
	text := strings.NewReplacer("RUNNER", fmt.Sprint("$", len(args)-1), "LEASE", fmt.Sprint("$", len(args))).Replace(
		`UPDATE runs SET lease_until = {now} + LEASE WHERE (id, attempt) IN (VALUES ` + list(len(fences), 2, "bigint", "integer") + `)
		AND runner = RUNNER AND state IN ('leased', 'running') RETURNING id, attempt, cancelling`)
	err = s.db.update(ctx, "renew leases", func(q session) error {
		renewed, cancelling = nil, nil
		return q.each(text, args, func(scan func(...any) error) error {
			var f Fence
			var ending bool
			err := scan(&f.Run, &f.Attempt, &ending)
			renewed = append(renewed, f)
			if ending {
				cancelling = append(cancelling, f)
			}
			return err
		})
	})
	return renewed, cancelling, err
}
