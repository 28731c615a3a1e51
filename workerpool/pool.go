package workerpool

import (
	"context"
	"fmt"
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
	// included; only they can fill it.
	writes chan struct{}
	stuck  error // why a worker waits for a place
	// kick wakes the supervisor; it holds one wake-up.
	kick chan struct{}

	// late counts the doublings of the time-out.
	late atomic.Int32

	mu      sync.Mutex // guards what follows
	history history
	workers int  // those that count for the policy
	busy    int  // of workers
	drained bool // batches is closed and empty
	// held is why the output does not take a batch, by the worker that keeps it.
	held map[string]error
	// spareSince is since when there has been a worker without a batch, if there is one.
	spareSince time.Time
}

// New returns a pool that takes its work from batches. Run starts it. The pool
// grows only if batches has a buffer: what is in it is what waits.
func New(cfg Config, batches <-chan *message.Batch) *Pool {
	return &Pool{
		cfg:     cfg,
		batches: batches,
		retire:  make(chan string),
		retired: make(chan struct{}),
		writes:  make(chan struct{}, 2*cfg.Max),
		stuck:   fmt.Errorf("all %d write slots are stuck: the disk does not respond", 2*cfg.Max),
		kick:    make(chan struct{}, 1),
		held:    make(map[string]error),
		history: history{shard: cfg.Shard, seq: cfg.After},
	}
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
		case load.Busy >= load.Workers && load.Workers < p.cfg.Max:
			look.Reset(lookInterval)
		case load.Workers > p.cfg.Min && load.Busy < load.Workers:
			look.Reset(max(idleTimeout-load.Spare, lookInterval))
		default:
			look.Stop() // the workers will tell
		}
	}
}

func (p *Pool) reconcile(ctx context.Context, workers *errgroup.Group) (l Load, drained bool) {
	for {
		l, drained = p.load()
		ideal := Ideal(l, p.cfg.Min, p.cfg.Max)
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

func (p *Pool) load() (l Load, drained bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l = Load{Workers: p.workers, Busy: p.busy, Waiting: len(p.batches) > 0}
	if p.busy < p.workers {
		l.Spare = time.Since(p.spareSince)
	}
	return l, p.drained
}

// start adds a worker.
func (p *Pool) start(ctx context.Context, workers *errgroup.Group, l Load) {
	why := "minimum"
	if l.Workers >= p.cfg.Min {
		why = "batches wait and all workers are busy"
	}
	p.mu.Lock()
	w := &worker{pool: p, record: p.history.add(why, time.Now())}
	p.count(+1, 0)
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
