package store

import (
	"context"
	"time"

	"async-data-processor/jobs/frame"
)

// clockSlack is how far a time may be in the future that was the database's when it was written.
const clockSlack = time.Second

// Clock returns the time of the database.
func (s *Store) Clock(ctx context.Context) (now time.Time, err error) {
	err = s.db.view(ctx, "read the clock", func(q session) error {
		var ms int64
		_, err := q.one("SELECT {now}", nil, &ms)
		now = at(ms)
		return err
	})
	return now, err
}

// ClockWentBack makes the queued runs due that were due, or began to wait, at a time that
// has not come yet. Else they would wait until the clock has caught up. It does no harm to
// others.
func (s *Store) ClockWentBack(ctx context.Context) error {
	const future = `state = 'queued' AND due > {now} + $1 AND (attempt = base OR {now} + $1 <
		(SELECT a.ended FROM attempts a WHERE a.run = runs.id AND a.number = runs.attempt))`
	slack := clockSlack.Milliseconds()
	var found bool
	err := s.db.view(ctx, "look for runs of the future", func(q session) (err error) {
		var id int64
		found, err = q.one("SELECT id FROM runs WHERE "+future+" LIMIT 1", []any{slack}, &id)
		return err
	})
	if err != nil || !found {
		return err
	}
	return s.db.update(ctx, "make runs due", func(q session) error {
		_, err := q.exec("UPDATE runs SET due = {now} WHERE "+future, slack)
		return err
	})
}

// Expire ends the attempts whose lease is over, at most max, and returns their runs: they
// are queued again, or have ended. An attempt that did not Start is not spent. A lease longer
// than frame.Lease, as the database's clock was set back, is cut to that. Several processes
// may do it side by side.
func (s *Store) Expire(ctx context.Context, most int) (runs []Run, err error) {
	const over = "r.state IN ('leased', 'running') AND r.lease_until < {now} ORDER BY r.id LIMIT $1"
	const beyond = "state IN ('leased', 'running') AND lease_until > {now} + $1"
	var waiting, tooLong bool
	longest := []any{(frame.Lease + clockSlack).Milliseconds()}
	err = s.db.view(ctx, "look for leases", func(q session) (err error) {
		var id int64
		if tooLong, err = q.one("SELECT id FROM runs WHERE "+beyond+" LIMIT 1", longest, &id); err != nil {
			return err
		}
		waiting, err = q.one("SELECT r.id FROM runs r WHERE "+over, []any{1}, &id)
		return err
	})
	if err != nil || !waiting && !tooLong {
		return nil, err
	}
	err = s.db.update(ctx, "end leases", func(q session) error {
		runs = nil
		if tooLong {
			if _, err := q.exec("UPDATE runs SET lease_until = {now} + $2 WHERE "+beyond, longest[0], frame.Lease.Milliseconds()); err != nil {
				return err
			}
		}
		lost, err := q.runs("NULL", over+"{skip}", most)
		if err != nil {
			return err
		}
		for _, r := range lost {
			if err := q.finish(r, end{Lost, nil, "its runner " + r.Runner + " did not renew the lease", nil}, r.judge(Lost, 0)); err != nil {
				return err
			}
			after, err := q.runs(shortArgs, "r.id = $1", r.ID)
			if err != nil {
				return err
			}
			runs = append(runs, after...)
		}
		return nil
	})
	return runs, err
}
