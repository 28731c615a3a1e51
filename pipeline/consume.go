package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"async-data-processor/batcher"
	"async-data-processor/durable"
	"async-data-processor/event"
	"async-data-processor/message"
	"async-data-processor/output"
	"async-data-processor/workerpool"
)

// consuming is the half behind the broker.
type consuming struct {
	*plant
	dir *output.Dir
	// takeShard is dir's, or a test's.
	takeShard func(ctx context.Context, n int, onStandby func()) (folder, error)
	// failed ends, by fail, when the process is to end because the output of a
	// shard has failed for too long.
	failed context.Context
	fail   context.CancelCauseFunc

	mu    sync.Mutex // guards what follows
	pools []*workerpool.Pool
	past  []event.Worker // of pools that have ended
	// held is the batches that the output does not take, by worker.
	held map[string]hold
	// untaken has why a shard is not owned, unless another process owns it.
	untaken map[int]error
	// unrolled has why a shard's file that is due is not published.
	unrolled map[int]error
	// leftovers are the shards beyond the number of shards, by their number.
	leftovers map[int]*leftover
	// publishing are those taken for their file alone; closed when that is over.
	publishing map[int]chan struct{}
}

// folder is the view of a shard of the output that this process owns.
type folder interface {
	workerpool.Writer
	RemovedTemps() int
	Rebuilt() output.Rebuilt
	Roll(ctx context.Context) error
	RollErr() error
	Close() error
}

func newConsuming(p *plant) (half, error) {
	dir, err := output.Open(p.cfg.OutputDir, output.Window{IDs: p.cfg.DedupeIDs, Age: p.cfg.DedupeWindow}, p.cfg.roll())
	if err != nil {
		return nil, fmt.Errorf("--output-dir: %w", err)
	}
	c := &consuming{
		plant: p, dir: dir, held: make(map[string]hold), untaken: make(map[int]error),
		unrolled: make(map[int]error), leftovers: make(map[int]*leftover), publishing: make(map[int]chan struct{}),
	}
	c.takeShard = func(ctx context.Context, n int, onStandby func()) (folder, error) {
		return dir.Shard(ctx, n, onStandby)
	}
	c.failed, c.fail = context.WithCancelCause(context.Background())
	p.reserve = durable.NewWatermark(dir.Path(), p.cfg.OutputMinFree)
	p.reserve.Look() // watchSpace tells of it
	p.checks = append(p.checks, c.check)
	return c, nil
}

func (c *consuming) start(g *errgroup.Group, intake, work context.Context) {
	c.teller.log.Info().Str("component", "message-consumer").Str("broker", RedactURL(c.cfg.BrokerURL)).
		Int("shards", c.cfg.Shards).Str("output", c.cfg.OutputDir).Msg("message-consumer started")
	intake = c.afterServing(intake)
	for n := range c.cfg.Shards {
		c.begin(g, intake, work, n)
	}
	c.writing.Add(1)
	g.Go(func() error {
		defer c.writing.Done()
		c.reshard(g, intake, work)
		return nil
	})
	c.writing.Add(1)
	g.Go(func() error {
		defer c.writing.Done()
		c.publishLeft(g, intake)
		return nil
	})
	g.Go(func() error {
		c.tellHistories(intake)
		return nil
	})
	g.Go(func() error {
		c.watchSpace(intake)
		return nil
	})
}

// begin starts a shard. It is called before the drain, or by what the drain
// waits for.
func (c *consuming) begin(g *errgroup.Group, intake, work context.Context, n int) {
	c.writing.Add(1)
	g.Go(func() error {
		defer c.writing.Done()
		return c.shard(intake, work, n)
	})
}

func (c *consuming) end() {
	c.fail(nil)
	c.dir.Close()
	c.tellHistory(true)
}

// shard owns the shard until intake ends. A folder that was moved or removed
// under its owner, or has not taken a batch for long, is taken anew, and what
// could not be written comes again.
func (c *consuming) shard(intake, work context.Context, n int) error {
	o := &outage{
		shard: n, dir: c.dir.Path(), patience: c.cfg.OutputErrorTimeout,
		quiet: c.cfg.WorkerTimeout + 2*takeMax, // more than an attempt and the wait before it
	}
	c.awaitPublished(n)
	for last := 0; ; {
		f, err := c.take(intake, n, o)
		if f == nil {
			return err
		}
		c.teller.owned(n, f.RemovedTemps(), f.Rebuilt())
		c.count(n, 1)
		last, err = c.own(intake, work, n, f, o, last)
		c.count(n, -1)
		switch {
		case intake.Err() != nil:
			return err
		case errors.Is(err, output.ErrLost):
			c.teller.folderLost(n, err)
		case errors.Is(err, errHeldLong):
			c.teller.heldLong(n, err)
		default:
			return err
		}
	}
}

// own runs the stages on a folder, each until the one before it is finished:
//
//	consume ──envelopes──▶ open ──opened──▶ batcher ──batches──▶ workerpool ──▶ output
//
// Its workers are numbered from after on; it returns the last one's number.
func (c *consuming) own(intake, work context.Context, n int, f folder, o *outage, after int) (last int, err error) {
	intake, stop := context.WithCancel(intake)
	defer stop()
	ours, cancel := context.WithCancelCause(work)
	defer cancel(nil)
	giveUp := func(why error) {
		stop()
		cancel(why)
	}
	// With no output to wait for, what is held would only hold up the drain of
	// the shards that can still write.
	defer context.AfterFunc(c.failed, func() {
		if c.holds(n) {
			giveUp(context.Cause(c.failed))
		}
	})()
	var (
		envelopes = make(chan *message.Delivery)
		opened    = make(chan batcher.Opened)
		// Room for one, so that a worker finds its next batch ready. With more,
		// batches would wait in line instead of going on filling.
		batches = make(chan *message.Batch, 1)
	)
	pool := workerpool.New(workerpool.Config{
		Shard:   n,
		After:   after,
		Min:     c.cfg.WorkersMin,
		Max:     c.cfg.WorkersMax,
		Timeout: c.cfg.WorkerTimeout,
		Writer:  f,
		Events: func(e event.Event) {
			c.observe(e, giveUp)
			switch e := e.(type) {
			case event.BatchHeld:
				if why := c.whyGiveUp(o, e.Err); why != nil {
					giveUp(why)
				}
			case event.BatchWritten:
				if e.Messages > 0 {
					o.over()
				}
			}
		},
	}, batches)
	c.mu.Lock()
	c.pools = append(c.pools, pool)
	c.mu.Unlock()

	var stages, burials sync.WaitGroup
	stages.Go(func() {
		defer close(envelopes)
		err = c.consume(intake, n, envelopes)
	})
	stages.Go(func() {
		defer close(opened)
		c.open(n, envelopes, opened, &burials)
	})
	stages.Go(func() {
		batcher.Run(batcher.Config{Size: c.cfg.BatchSize, Together: c.cfg.together(), Linger: c.cfg.BatchLinger}, opened, batches)
	})
	stages.Go(func() { pool.Run(ours) })
	rolling, stopRolling := context.WithCancel(ours)
	var roller sync.WaitGroup
	roller.Go(func() { c.roll(rolling, n, f, o, giveUp) })
	stages.Wait()
	stopRolling()
	roller.Wait()
	burials.Wait()
	c.retire(pool)
	if why := context.Cause(ours); why != context.Cause(work) {
		err = errors.Join(err, why)
	}
	closed := closeFolder(f)
	if errors.Is(err, ErrOutputFailed) { // which says all there is to say, in one line
		if f.RollErr() != nil {
			err = fmt.Errorf("%w; %s", err, publishedLater)
		}
		return pool.Last(), err
	}
	if err = errors.Join(err, closed); err != nil {
		err = fmt.Errorf("shard %d: %w", n, err)
	}
	return pool.Last(), err
}

// retire keeps of a pool whose folder is given up no more than its history.
func (c *consuming) retire(pool *workerpool.Pool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.past = append(c.past, pool.History()...)
	c.pools = slices.DeleteFunc(c.pools, func(p *workerpool.Pool) bool { return p == pool })
}

// tellHistories logs changed histories until ctx ends.
func (c *consuming) tellHistories(ctx context.Context) {
	tick := time.NewTicker(c.cfg.HistoryInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.tellHistory(false)
		case <-ctx.Done():
			return
		}
	}
}

// tellHistory logs the history of every worker, or of those that changed.
func (c *consuming) tellHistory(all bool) {
	c.mu.Lock()
	workers, pools := slices.Clone(c.past), slices.Clone(c.pools)
	c.mu.Unlock()
	for _, p := range pools {
		workers = append(workers, p.History()...)
	}
	c.teller.history(workers, all)
}
