package workerpool

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"async-data-processor/event"
	"async-data-processor/message"
)

// Pool is the workers of one shard.
type Pool struct {
	cfg     Config
	batches <-chan *message.Batch
	// retire hands a reason to stop to a worker. It has no buffer and is sent
	// to without waiting, so that only an idle worker can get it; that worker
	// answers on retired once it is counted no more.
	retire  chan string
	retired chan struct{}
	// writes has a place for each write under way, those of timed-out workers
	// included, and for those beyond 2 times the largest maximum that there was.
	writes chan struct{}
	// kick wakes the supervisor; it holds one wake-up.
	kick chan struct{}

	// late counts the doublings of the time-out.
	late atomic.Int32
	// crowded tells that there may be more workers than the maximum.
	crowded atomic.Bool

	mu      sync.Mutex // guards what follows
	history history
	alive   []*worker
	workers int  // those that count for the policy
	busy    int  // of workers
	leaving int  // of workers: they take no more batches
	drained bool // batches is closed and empty
	// lowest and highest bound workers; places is how many writes may be under way.
	lowest, highest, places int
	// held is why the output does not take a batch, by the worker that keeps it.
	held map[string]error
	// spareSince is since when there has been a worker without a batch, if there is one.
	spareSince time.Time
}

// New returns a pool that takes its work from batches. Run starts it. The pool
// grows only if batches has a buffer: what is in it is what waits.
func New(cfg Config, batches <-chan *message.Batch) *Pool {
	p := &Pool{
		cfg:     cfg,
		batches: batches,
		retire:  make(chan string),
		retired: make(chan struct{}),
		writes:  make(chan struct{}, 2*MaxWorkers),
		kick:    make(chan struct{}, 1),
		held:    make(map[string]error),
		history: history{shard: cfg.Shard, seq: cfg.After},
		lowest:  cfg.Min, highest: cfg.Max, places: 2 * cfg.Max,
	}
	for range cap(p.writes) - p.places {
		p.writes <- struct{}{}
	}
	return p
}

// Run keeps the workers alive until batches is closed and every batch is
// settled. When ctx is done, batches that cannot be finished at once are
// returned to the broker. It is called once.
func (p *Pool) Run(ctx context.Context) {
	var workers errgroup.Group
	p.supervise(ctx, &workers)
	// Workers report how they ended in the history, never as an error.
	_ = workers.Wait()
}

// History returns a record of every worker that ever lived, oldest first.
func (p *Pool) History() []event.Worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.history.snapshot()
}

// Last returns the number of the newest worker.
func (p *Pool) Last() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.history.seq
}

// Held returns how many workers keep a batch that the output does not take, and
// one of them with the reason.
func (p *Pool) Held() (workers int, worker string, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w, err := range p.held {
		if worker == "" || w < worker {
			worker, why = w, err
		}
	}
	return len(p.held), worker, why
}

// Holder returns the worker whose batch has a message, and since when it has that batch.
// It looks at the messages of all batches that workers have.
func (p *Pool) Holder(id []byte) (worker string, since time.Time, found bool) {
	type held struct {
		worker string
		since  time.Time
		batch  *message.Batch
	}
	p.mu.Lock()
	batches := make([]held, 0, len(p.alive))
	for _, w := range p.alive {
		if w.batch != nil {
			batches = append(batches, held{w.record.ID, w.since, w.batch})
		}
	}
	p.mu.Unlock() // a batch of a worker does not change any more
	for _, h := range batches {
		for _, m := range h.batch.Messages {
			if bytes.Equal(m.RawID(), id) {
				return h.worker, h.since, true
			}
		}
	}
	return "", time.Time{}, false
}

// Workers is how many workers a pool has, by what they do.
type Workers struct{ Idle, Busy, Holding, TimedOut int }

// Workers returns how many workers live. A worker that has timed out has the one state
// of that until it ends.
func (p *Pool) Workers() (w Workers) {
	p.mu.Lock()
	defer p.mu.Unlock()
	live := len(p.history.records) - p.history.stopped
	w.Idle, w.TimedOut = p.workers-p.busy, live-p.workers
	w.Holding = min(len(p.held), p.busy)
	w.Busy = p.busy - w.Holding
	return w
}

// supervise brings the number of workers to the ideal, whenever either may have
// changed, until the pool is drained.
func (p *Pool) supervise(ctx context.Context, workers *errgroup.Group) {
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case <-p.kick:
		case <-look.C:
		}
		load, drained := p.reconcile(ctx, workers)
		switch {
		case drained:
			return
		case load.Busy >= load.Workers && load.Workers < load.highest, load.Workers > load.highest:
			look.Reset(lookInterval)
		case load.Workers > load.lowest && load.Busy < load.Workers:
			look.Reset(max(idleTimeout-load.Spare, lookInterval))
		default:
			look.Stop() // the workers will tell
		}
	}
}

// bounded is a load with the bounds of that moment.
type bounded struct {
	Load
	lowest, highest int
}

func (p *Pool) reconcile(ctx context.Context, workers *errgroup.Group) (l bounded, drained bool) {
	for {
		l, drained = p.load()
		ideal := Ideal(l.Load, l.lowest, l.highest)
		switch {
		case drained || ideal == l.Workers:
			return l, drained
		case ideal < l.Workers:
			p.retireOne()
			return l, drained
		}
		p.start(ctx, workers, l)
	}
}

// timeout is how long the next attempt may take, after so many that were too
// late.
func (p *Pool) timeout(late int32) time.Duration {
	t := p.cfg.Timeout
	for ; late > 0 && t < timeoutMax; late-- {
		t = min(2*t, timeoutMax)
	}
	return t
}

func (p *Pool) load() (l bounded, drained bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l = bounded{Load{Workers: p.workers - p.leaving, Busy: p.busy - p.leaving, Waiting: len(p.batches) > 0}, p.lowest, p.highest}
	if p.busy < p.workers {
		l.Spare = time.Since(p.spareSince)
	}
	return l, p.drained
}

// start adds a worker.
func (p *Pool) start(ctx context.Context, workers *errgroup.Group, l bounded) {
	why := "minimum"
	if l.Workers >= l.lowest {
		why = "batches wait and all workers are busy"
	}
	p.mu.Lock()
	w := &worker{pool: p, record: p.history.add(why, time.Now())}
	p.alive = append(p.alive, w)
	p.count(+1, 0)
	p.crowded.Store(p.workers > p.highest) // a resize may have come since the load was taken
	started := *w.record
	p.mu.Unlock()

	p.cfg.Events.Send(event.WorkerStarted{Worker: started})
	workers.Go(func() error {
		w.run(ctx)
		return nil
	})
}

func (p *Pool) retireOne() {
	select {
	case p.retire <- idle:
		<-p.retired // or the next look might retire another in its place
	default: // none is at rest any more
	}
}

// count changes the numbers of counted and of busy workers. mu is held.
func (p *Pool) count(workers, busy int) {
	spare := p.busy < p.workers
	p.workers += workers
	p.busy += busy
	if !spare && p.busy < p.workers {
		p.spareSince = time.Now()
	}
	select {
	case p.kick <- struct{}{}:
	default:
	}
}
