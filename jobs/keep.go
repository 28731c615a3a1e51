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
	run, done, err := e.cfg.Store.Unclaim(ctx, f, why, false)
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

// expire ends the attempts whose lease is over.
func (e *Engine) expire(ctx context.Context) error {
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

// retain removes the ended runs that are more than their jobs keep.
func (e *Engine) retain(ctx context.Context) error {
	keep := make(map[string]int)
	for _, d := range e.cfg.Definitions.All() {
		keep[d.Name] = d.Keep
	}
	for {
		limited, cancel := context.WithTimeout(ctx, storeTimeout)
		removed, err := e.cfg.Store.Retain(limited, keep, maxRetain)
		cancel()
		if err != nil || removed < maxRetain || !backoff.Sleep(ctx, retainPause) {
			return err
		}
	}
}

// follow has the jobs follow their file, and tells of what is new, once of what cannot be
// taken, and when that is over.
func (e *Engine) follow(ctx context.Context) {
	var told string
	for backoff.Sleep(ctx, reloadInterval) {
		changed, err := e.cfg.Definitions.Reload()
		switch {
		case changed:
			told = ""
			jobs := e.cfg.Definitions.All()
			e.hub.tellAll(frame.Frame{Type: frame.Definitions, Definitions: jobs})
			e.tells.jobsChanged()
			e.Kick()
			e.cfg.Events.Send(event.JobsLoaded{Path: e.cfg.Definitions.Path(), Jobs: len(jobs)})
		case err != nil && err.Error() != told:
			told = err.Error()
			e.cfg.Events.Send(event.JobsLoaded{Path: e.cfg.Definitions.Path(), Jobs: len(e.cfg.Definitions.All()), Err: err})
		case told != "" && e.cfg.Definitions.Broken() == nil: // it is again what it was
			told = ""
			e.cfg.Events.Send(event.JobsLoaded{Path: e.cfg.Definitions.Path(), Jobs: len(e.cfg.Definitions.All())})
		}
	}
}
