// Package jobs runs named jobs on remote runners. The state of runs is in a database; an
// Engine gives them to the runners that are connected to its process.
//
//	jobs.yaml ──▶ Definitions ──┐
//	                            ▼
//	POST, files ──▶ Store ◀── Engine ◀──frames──▶ runners
//	                  ▲         │
//	other engines ────┘         └── jobs.changed ──▶ bus
//
// It promises, with several engines over one database, too, that
//
//   - a run is executed by at most one runner at a time: what a runner may begin, and go
//     on with, is decided by its lease in the database;
//   - what an attempt reports that is not the run's last one changes nothing;
//   - no run is lost, and none stays running for ever: a lease that is not renewed ends.
//
// While the database is away everything waits. Runners go on with their processes until
// they have to end them, and keep what they have to report.
package jobs

import (
	"cmp"
	"context"
	"sync"
	"time"

	"async-data-processor/backoff"
	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
)

// Store is what the engine needs of a store.Store. Its methods may be called concurrently.
type Store interface {
	Claim(context.Context, store.Claim) ([]store.Run, error)
	Start(context.Context, store.Fence) (store.Run, bool, error)
	Renew(ctx context.Context, runner string, fences []store.Fence) (renewed, cancelling []store.Fence, err error)
	Unclaim(ctx context.Context, f store.Fence, why string) (store.Run, bool, error)
	End(context.Context, store.Fence, store.End) (store.Run, bool, error)
	Expire(ctx context.Context, limit int) ([]store.Run, error)
	Clock(context.Context) (time.Time, error)
	ClockWentBack(context.Context) error
	Writable(context.Context) error
	Attempts(ctx context.Context, id int64) ([]store.Attempt, error)
	AppendLog(ctx context.Context, f store.Fence, offset int64, data []byte, cut int64) (next int64, err error)
	Retain(ctx context.Context, keep map[string]int, limit int) (removed int, err error)
	Spawn(ctx context.Context, jobs []store.New, limit int) (created int, err error)
}

// Config is what an Engine needs.
type Config struct {
	Store Store
	Bus   broker.Bus
	// Node returns the name of this process among the others.
	Node        func() string
	Definitions *Definitions
	Events      event.Sink
}

const (
	// lookInterval is how often the engine looks for runs that are due, if some runner
	// has a free slot, and for files. What is told on the bus it looks for at once. Idle
	// runners cost one query in that time for each set of labels.
	lookInterval = time.Second
	// lookPause is the least time between two looks.
	lookPause = 10 * time.Millisecond
	// spawnPause is the least time between two looks for files.
	spawnPause = 500 * time.Millisecond
	// reloadInterval is how often the file of jobs is read.
	reloadInterval = time.Second
	// retainInterval is how often runs are removed that are more than a job keeps, and
	// retainPause is left for others between the steps of that.
	retainInterval = time.Minute
	retainPause    = 50 * time.Millisecond
	// storeTimeout bounds one attempt to reach the database.
	storeTimeout = 10 * time.Second
	// Bounds of one call of the store.
	maxClaim, maxExpire, maxRetain, maxSpawn = 4, 100, 500, 500
)

// expireInterval is how often leases that are over are looked for: one query.
func expireInterval() time.Duration { return min(2*time.Second, frame.Lease/10) }

// returnLooks is how many looks leave leases that are over as they are, after the start and
// after the database was away: the time for runners to come back and tell what has ended
// meanwhile. Else a run that has succeeded would be lost. A runner tries every 7.5 s at least.
func returnLooks() int { return int(frame.Beat/expireInterval()) + 1 }

// Engine gives runs to runners. Its methods may be called concurrently.
type Engine struct {
	cfg   Config
	hub   hub
	tells teller
	// woken wakes up the looks; it holds one wake-up.
	woken chan struct{}

	// Only the goroutine of the looks uses what follows.
	spawned time.Time // when files were looked for

	// Only the goroutine that ends leases uses what follows.
	waits int // for so many looks more
	clock clock

	mu        sync.Mutex // guards what follows
	away      error      // why the database does not answer; nil if it does
	unwritten error      // why it takes no changes; nil if it does
}

// New returns an engine, which does nothing before Run.
func New(cfg Config) *Engine {
	e := &Engine{cfg: cfg, woken: make(chan struct{}, 1), waits: returnLooks()}
	e.hub.runners = make(map[string]*runner)
	e.tells.woken = make(chan struct{}, 1)
	return e
}

// Run works until ctx ends. Then it has the runners go to another engine, and waits until
// they have. It is called once.
func (e *Engine) Run(ctx context.Context) {
	defer e.hub.close()
	defer e.cfg.Bus.Listen(changedTopic, e.hear)()
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { e.tells.run(ctx, e.cfg.Node, e.cfg.Bus) })
	parts.Go(func() { e.cfg.Definitions.Follow(ctx, reloadInterval, e.reloaded) })
	parts.Go(func() { e.each(ctx, expireInterval(), e.expire) })
	parts.Go(func() { e.each(ctx, retainInterval, e.retain) })
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	pause := backoff.Backoff{Min: lookPause, Max: 5 * time.Second, Jitter: 0.2}
	for {
		err := e.look(ctx)
		if err == nil && e.Ready() != nil { // without runners it has asked for nothing
			err = e.answers(ctx)
		}
		if e.reached(err) {
			pause.Reset()
		}
		if !backoff.Sleep(ctx, pause.Next()) {
			return
		}
		select {
		case <-tick.C:
		case <-e.woken:
		case <-ctx.Done():
			return
		}
	}
}

// each calls f at every interval, until ctx ends. An error of f is the database's.
func (e *Engine) each(ctx context.Context, interval time.Duration, f func(context.Context) error) {
	for {
		if err := f(ctx); ctx.Err() == nil {
			e.reached(err)
		}
		if !backoff.Sleep(ctx, interval) {
			return
		}
	}
}

// Kick has the engine look for runs now. It does not wait.
func (e *Engine) Kick() { wake(e.woken) }

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Ready returns why the engine cannot work; nil if it can.
func (e *Engine) Ready() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return cmp.Or(e.away, e.unwritten)
}

// Definitions returns the jobs. They are not to be changed.
func (e *Engine) Definitions() []frame.Definition { return e.cfg.Definitions.All() }

// Definition returns the job of that name, if there is one.
func (e *Engine) Definition(name string) (frame.Definition, bool) {
	return e.cfg.Definitions.Find(name)
}

// Runners returns the runners that are connected to this process, by name; never nil.
func (e *Engine) Runners() []RunnerView { return e.hub.views(e.cfg.Node()) }

// Changed has to be called with runs that were created or changed in the database: it
// tells the others, and has the runners learn of it. It does not wait.
func (e *Engine) Changed(runs ...store.Run) {
	if len(runs) == 0 {
		return
	}
	e.tells.add(runs)
	for _, r := range runs {
		e.act(r.State, r.Cancelling, fenceOf(r))
	}
}

// act does what follows from a change of a run.
func (e *Engine) act(s store.State, cancelling bool, f store.Fence) {
	switch {
	case s == store.Queued || s.Ended(): // it is due, or another one may be
		e.Kick()
	case cancelling:
		if r := e.hub.of(f); r != nil {
			r.send(frame.Frame{Type: frame.Cancel, Run: f.Run, Attempt: f.Attempt})
		}
	}
}

// hear takes what another engine tells. Nothing of it is trusted: the worst that it does
// is to have this one look, or have one of its runs cancelled, which anybody may who may
// use the bus.
func (e *Engine) hear(body []byte, _ int) {
	var c Changed
	if broker.ReadBody(body, &c) != nil || c.Node == e.cfg.Node() {
		return
	}
	for _, r := range c.Runs {
		e.act(r.State, r.Cancelling, store.Fence{Run: r.ID, Attempt: r.Attempt})
	}
	if c.More {
		e.Kick()
	}
}

// reached notes whether the database has answered, and tells of a change.
func (e *Engine) reached(err error) bool {
	e.note(func() { e.away = err })
	return err == nil
}

// note changes what is known of the database, and tells of it if that is the end of it, or
// a new one.
func (e *Engine) note(change func()) {
	e.mu.Lock()
	before := cmp.Or(e.away, e.unwritten)
	change()
	after := cmp.Or(e.away, e.unwritten)
	e.mu.Unlock()
	if (before == nil) != (after == nil) {
		e.cfg.Events.Send(event.StateDatabase{Err: after})
	}
}

// look gives the runs that are due to the runners with free slots. Each gets few at a
// time, the one with the fewest runs first, so that a large one does not get all.
func (e *Engine) look(ctx context.Context) error {
	if err := e.spawn(ctx); err != nil {
		return err
	}
	if err := e.takeBack(ctx); err != nil {
		return err
	}
	jobs := e.cfg.Definitions.All()
	dry := make(map[string]bool) // sets of jobs with nothing that is due
	for got := true; got; {
		got = false
		for _, r := range e.hub.idle() {
			set := r.load.set(time.Now())
			limit := min(r.load.free(), maxClaim)
			if limit <= 0 || dry[set] {
				continue
			}
			wanted := r.load.wants(jobs)
			if len(wanted) == 0 {
				continue
			}
			runs, err := e.claim(ctx, r, store.Claim{Runner: r.name, Engine: e.cfg.Node(), Jobs: wanted, Max: limit})
			if err != nil {
				return err
			}
			if len(runs) < limit && set != "" {
				dry[set] = true
			}
			got = got || len(runs) == limit
		}
	}
	return nil
}

// claim claims runs for a runner, and offers them.
func (e *Engine) claim(ctx context.Context, r *runner, c store.Claim) ([]store.Run, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	runs, err := e.cfg.Store.Claim(ctx, c)
	if err != nil {
		return nil, err
	}
	e.Changed(runs...)
	for _, run := range runs {
		why := "runner " + r.name + " has gone"
		if len(run.Args) > store.MaxArgs { // another hand has changed them, and the runner would break the connection
			why = "its arguments are too long"
		} else if r.offer(run) {
			continue
		}
		if err := e.unclaim(ctx, fenceOf(run), why); err != nil {
			return nil, err
		}
	}
	return runs, nil
}

func fenceOf(r store.Run) store.Fence { return store.Fence{Run: r.ID, Attempt: r.Attempt} }
