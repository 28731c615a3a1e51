package store

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

const (
	// DefaultKeep is how many ended runs are kept of a job that Retain is not told of.
	DefaultKeep = 1000
	// maxAudits is how many commands are kept.
	maxAudits = 100_000
	// A file that has its runs is known for fileAge at least, for a process that tells it late.
	fileAge = 24 * time.Hour
	// One transaction removes so many runs, parts of their logs, files or commands.
	removedRuns, removedParts, removedFiles, removedAudits = 50, 64, 500, 5000
)

// Retain removes ended runs beyond the newest of each job: keep has how many, by job. It
// removes at most max, oldest first, in small transactions, so that others are not kept
// waiting: of a run with a large log the parts go first. It forgets files below the cursors
// that have had their runs for a day, and all commands but the last 100,000.
func (s *Store) Retain(ctx context.Context, keep map[string]int, most int) (removed int, err error) {
	jobs, err := s.db.jobsWithEnded(ctx)
	if err != nil {
		return 0, err
	}
	for _, job := range jobs {
		n, ok := keep[job]
		if !ok {
			n = DefaultKeep
		}
		for removed < most {
			k, more, err := s.db.removeRuns(ctx, job, max(n, 0), min(removedRuns, most-removed))
			removed += k
			if err != nil {
				return removed, err
			}
			if !more {
				break
			}
		}
	}
	if err := s.db.forgetFiles(ctx, most); err != nil {
		return removed, err
	}
	return removed, s.db.update(ctx, "remove old commands", func(q session) error {
		_, err := q.exec("DELETE FROM audits WHERE n <= (SELECT max(n) FROM audits) - $1 AND n < (SELECT min(n) FROM audits) + $2",
			maxAudits, removedAudits)
		return err
	})
}

// jobsWithEnded returns the jobs that have ended runs. It looks once a job, not once a run.
func (d *database) jobsWithEnded(ctx context.Context) (jobs []string, err error) {
	err = d.view(ctx, "list jobs", func(q session) error {
		jobs = nil
		for job := ""; ; {
			found, err := q.one("SELECT job FROM runs WHERE ended > 0 AND job > $1 ORDER BY job LIMIT 1", []any{job}, &job)
			if err != nil || !found {
				return err
			}
			jobs = append(jobs, job)
		}
	})
	return jobs, err
}

// removeRuns removes the oldest ended runs of a job beyond those to keep, at most n, or parts
// of their logs. It returns whether there may be more. A run that another hand has queued again
// may have an end.
func (d *database) removeRuns(ctx context.Context, job string, keep, n int) (removed int, more bool, err error) {
	err = d.update(ctx, "remove old runs", func(q session) error {
		removed, more = 0, false
		var ended, id int64
		found, err := q.one("SELECT ended, id FROM runs WHERE job = $1 AND ended > 0 ORDER BY ended DESC, id DESC LIMIT 1 OFFSET $2",
			[]any{job, keep}, &ended, &id)
		if err != nil || !found {
			return err
		}
		var ids []any
		err = q.each(`SELECT r.id FROM runs r WHERE r.job = $1 AND r.ended > 0 AND (r.ended, r.id) <= ($2, $3)
			AND r.state NOT IN ('queued', 'leased', 'running')
			ORDER BY r.ended, r.id LIMIT $4{skip}`, []any{job, ended, id, n}, func(scan func(...any) error) error {
			var id int64
			err := scan(&id)
			ids = append(ids, id)
			return err
		})
		if err != nil || len(ids) == 0 {
			return err
		}
		more = true
		parts, err := q.exec("DELETE FROM logs WHERE (run, number, at) IN (SELECT run, number, at FROM logs WHERE run IN "+
			among(len(ids))+" LIMIT "+strconv.Itoa(removedParts)+")", ids...)
		if err != nil || parts == removedParts {
			return err
		}
		if _, err := q.exec("DELETE FROM runs WHERE id IN "+among(len(ids)), ids...); err != nil {
			return err
		}
		removed = len(ids)
		return nil
	})
	return removed, more, err
}

// among returns a list of n parameters, as "($1, $2)".
func among(n int) string { return list(1, n) }

// forgetFiles forgets files of each shard, at most n.
func (d *database) forgetFiles(ctx context.Context, n int) error {
	var shards []int
	err := d.view(ctx, "list shards", func(q session) error {
		shards = nil
		return q.each("SELECT shard FROM cursors WHERE position > forgotten ORDER BY shard", nil, func(scan func(...any) error) error {
			var shard int
			err := scan(&shard)
			shards = append(shards, shard)
			return err
		})
	})
	for _, shard := range shards {
		for left := n; err == nil && left > 0; {
			var k int
			k, err = d.forgetSome(ctx, shard, min(left, removedFiles))
			if k == 0 {
				break
			}
			left -= k
		}
		if err != nil {
			return fmt.Errorf("shard %d: %w", shard, err)
		}
	}
	return err
}

// forgetSome forgets the first files of a shard, and notes up to where. A name up to there
// is not recorded again.
func (d *database) forgetSome(ctx context.Context, shard, n int) (forgotten int, err error) {
	const old = ` FROM files r JOIN cursors c ON c.shard = r.shard WHERE r.shard = $1 AND r.position <= c.position
		AND r.spawned = 1 AND r.at < {now} - $2 ORDER BY r.position LIMIT $3`
	args := []any{shard, fileAge.Milliseconds(), n}
	var found bool
	err = d.view(ctx, "look for old files", func(q session) (err error) {
		var name string
		found, err = q.one("SELECT r.name"+old, args, &name)
		return err
	})
	if err != nil || !found {
		return 0, err
	}
	err = d.update(ctx, "forget files", func(q session) error {
		var locked string
		if _, err := q.one("SELECT position FROM cursors r WHERE shard = $1{lock}", []any{shard}, &locked); err != nil {
			return err
		}
		var names []any
		var last string
		err := q.each("SELECT r.name, r.position"+old, args, func(scan func(...any) error) error {
			var name string
			err := scan(&name, &last)
			names = append(names, name)
			return err
		})
		if forgotten = len(names); err != nil || forgotten == 0 {
			return err
		}
		if _, err := q.exec("DELETE FROM files WHERE name IN "+among(len(names)), names...); err != nil {
			return err
		}
		_, err = q.exec("UPDATE cursors SET forgotten = $2 WHERE shard = $1 AND forgotten < $2", shard, last)
		return err
	})
	return forgotten, err
}
