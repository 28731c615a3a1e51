package jobs

import (
	"context"
	"time"

	"async-data-processor/backoff"
	"async-data-processor/event"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
)

// takeBack unclaims what runners do not answer.
func (e *Engine) takeBack(ctx context.Context) error {
	for _, r := range e.hub.all() {
		for _, f := range r.load.overdue(time.Now()) {
			if err := e.unclaim(ctx, f, "runner "+r.name+" did not answer the offer"); err != nil {
				return err
			}
		}
	}
	return nil
}

// unclaim gives a run that was offered back to the queue.
func (e *Engine) unclaim(ctx context.Context, f store.Fence, why string) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	run, done, err := e.cfg.Store.Unclaim(ctx, f, why)
	if err == nil && done {
		e.Changed(run)
	}
	return err
}

// spawn makes runs of the files that were published.
func (e *Engine) spawn(ctx context.Context) error {
	if time.Since(e.spawned) < spawnPause {
		return nil
	}
	var jobs []store.New
	for _, d := range e.cfg.Definitions.All() {
		if d.On == frame.File {
			jobs = append(jobs, store.New{Job: d.Name, By: frame.File, Attempts: d.Attempts, Backoff: time.Duration(d.Backoff)})
		}
	}
	if len(jobs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	created, err := e.cfg.Store.Spawn(ctx, jobs, maxSpawn)
	if err != nil {
		return err
	}
	if e.spawned = time.Now(); created >= maxSpawn {
		e.spawned = time.Time{}
		e.Kick()
	}
	if created > 0 {
		e.tells.more()
	}
	return nil
}

// expire ends the attempts whose lease is over, unless runners may still come back, or could
// not know that the database's clock would jump: see returnLooks.
func (e *Engine) expire(ctx context.Context) error {
	away := e.Ready() != nil
	moved, err := e.readClock(ctx)
	if err != nil {
		return err
	}
	if moved < 0 {
		limited, cancel := context.WithTimeout(ctx, storeTimeout)
		defer cancel()
		if err := e.cfg.Store.ClockWentBack(limited); err != nil {
			e.clock = clock{} // so that the next look does it
			return err
		}
	}
	if err := e.write(ctx); err != nil {
		return nil // it answers, but leases cannot be renewed, nor ended
	}
	if (away || moved > 0) && e.waits == 0 { // a database that comes and goes does not begin anew each time
		e.waits = returnLooks()
	}
	if away || e.waits > 0 {
		if !away {
			e.waits--
		}
		return nil
	}
	for {
		limited, cancel := context.WithTimeout(ctx, storeTimeout)
		runs, err := e.cfg.Store.Expire(limited, maxExpire)
		cancel()
		if err != nil {
			return err
		}
		for _, run := range runs {
			e.cfg.Events.Send(event.RunLost{Run: run.ID, Attempt: run.Attempt, Job: run.Job, Runner: run.Runner, State: string(run.State)})
			f := fenceOf(run)
			if r := e.hub.of(f); r != nil {
				r.load.drop(f)
				r.send(frame.Frame{Type: frame.Stale, Run: f.Run, Attempt: f.Attempt})
			}
		}
		e.Changed(runs...)
		if len(runs) < maxExpire {
			return nil
		}
	}
}

// write notes whether the database takes changes.
func (e *Engine) write(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err := e.cfg.Store.Writable(limited)
	if ctx.Err() == nil {
		e.note(func() { e.unwritten = err })
	}
	return err
}

// clockSlack is how far the database's clock may move against the own one between two looks.
const clockSlack = 2 * time.Second

// clock is what two clocks said at a look: the database's, and the own one, which does not
// jump, just before and after. The zero value is no look.
type clock struct{ theirs, before, after time.Time }

// moved tells how the database's clock has moved beyond the time that went by since an
// earlier look: 1 for ahead, -1 for back, 0 for neither. Before the first look it may have
// gone back.
func (c clock) moved(since clock) int {
	went := c.theirs.Sub(since.theirs)
	switch {
	case since.theirs.IsZero(), went < c.before.Sub(since.after)-clockSlack:
		return -1
	case went > c.after.Sub(since.before)+clockSlack:
		return 1
	}
	return 0
}

// readClock looks at the database's clock, and tells how it has moved since the last look.
func (e *Engine) readClock(ctx context.Context) (moved int, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	now := clock{before: time.Now()}
	if now.theirs, err = e.cfg.Store.Clock(ctx); err != nil {
		return 0, err
	}
	now.after = time.Now()
	moved, e.clock = now.moved(e.clock), now
	return moved, nil
}

// answers asks the database for something small.
func (e *Engine) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	_, err := e.cfg.Store.Clock(ctx)
	return err
}

// retain removes the ended runs that are more than their jobs keep.
func (e *Engine) retain(ctx context.Context) error {
	keep := make(map[string]int)
	for _, d := range e.cfg.Definitions.All() {
		keep[d.Name] = d.Keep
	}
	for {
		removed, err := e.cfg.Store.Retain(ctx, keep, maxRetain) // which bounds each of its steps
		if err != nil || removed < maxRetain || !backoff.Sleep(ctx, retainPause) {
			return err
		}
	}
}

// reloaded tells of new jobs, or of what cannot be taken.
func (e *Engine) reloaded(err error) {
	jobs := e.cfg.Definitions.All()
	if err == nil {
		e.hub.tellAll(frame.Frame{Type: frame.Definitions, Definitions: jobs})
		e.tells.jobsChanged()
		e.Kick()
	}
	e.cfg.Events.Send(event.JobsLoaded{Path: e.cfg.Definitions.Path(), Jobs: len(jobs), Err: err})
}
