package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"async-data-processor/batcher"
	"async-data-processor/event"
	"async-data-processor/message"
	"async-data-processor/output"
	"async-data-processor/server"
	"async-data-processor/workerpool"
)

// consuming is the half behind the broker.
type consuming struct {
	*plant
	dir *output.Dir
	// wrap is nil but in tests, which put it around the shards' writers.
	wrap func(workerpool.Writer) workerpool.Writer

	mu    sync.Mutex // guards what follows
	pools []*workerpool.Pool
	// held has why the output cannot take a worker's batch, by worker.
	held map[string]error
}

func newConsuming(p *plant) (half, error) {
	dir, err := output.Open(p.cfg.OutputDir, output.Window{IDs: p.cfg.DedupeIDs, Age: p.cfg.DedupeWindow})
	if err != nil {
		return nil, fmt.Errorf("--output-dir: %w", err)
	}
	c := &consuming{plant: p, dir: dir, held: make(map[string]error)}
	p.checks = append(p.checks, c.check)
	return c, nil
}

func (c *consuming) start(g *errgroup.Group, intake, work context.Context) {
	c.teller.log.Info().Str("component", "message-consumer").Str("broker", RedactURL(c.cfg.BrokerURL)).
		Int("shards", c.cfg.Shards).Str("output", c.cfg.OutputDir).Msg("message-consumer started")
	intake = c.afterServing(intake)
	for n := range c.cfg.Shards {
		c.writing.Add(1)
		g.Go(func() error {
			defer c.writing.Done()
			return c.shard(intake, work, n)
		})
	}
	g.Go(func() error {
		c.tellHistories(intake)
		return nil
	})
}

func (c *consuming) end() {
	c.dir.Close()
	c.tellHistory(true)
}

// shard owns the shard until intake ends. A folder that was moved or removed
// under its owner is taken anew, and what could not be written to the old one
// comes again.
func (c *consuming) shard(intake, work context.Context, n int) error {
	for last := 0; ; {
		folder, err := c.dir.Shard(intake, n, func() { c.teller.standby(n) })
		if err != nil {
			if intake.Err() != nil {
				return nil // stopped while it stood by
			}
			return err
		}
		c.teller.owned(n, folder.Swept(), folder.Recalled())
		c.owned.Add(1)
		last, err = c.own(intake, work, n, folder, last)
		c.owned.Add(-1)
		if !errors.Is(err, output.ErrLost) || intake.Err() != nil {
			return err
		}
		c.teller.folderLost(n, err)
	}
}

// own runs the stages on a folder, each until the one before it is finished:
//
//	consume ──envelopes──▶ open ──opened──▶ batcher ──batches──▶ workerpool ──▶ output
//
// Its workers are numbered from after on; it returns the last one's number.
func (c *consuming) own(intake, work context.Context, n int, folder *output.Shard, after int) (last int, err error) {
	intake, stop := context.WithCancel(intake)
	defer stop()
	work, giveUp := context.WithCancelCause(work)
	defer giveUp(nil)
	var (
		envelopes = make(chan *message.Delivery)
		opened    = make(chan batcher.Opened)
		// Room for one, so that a worker finds its next batch ready. With more,
		// incomplete batches would wait in line instead of going on filling.
		batches = make(chan *message.Batch, 1)
	)
	pool := workerpool.New(workerpool.Config{
		Shard:   n,
		After:   after,
		Min:     c.cfg.WorkersMin,
		Max:     c.cfg.WorkersMax,
		Timeout: c.cfg.WorkerTimeout,
		Writer:  c.writer(folder),
		Events: func(e event.Event) {
			if held, ok := e.(event.BatchHeld); ok && errors.Is(held.Err, output.ErrLost) {
				stop()
				giveUp(held.Err)
			}
			c.observe(e)
		},
	}, batches)
	c.mu.Lock()
	c.pools = append(c.pools, pool)
	c.mu.Unlock()

	var stages, burials sync.WaitGroup
	stages.Go(func() {
		defer close(envelopes)
		err = c.broker.Consume(intake, n, c.cfg.prefetch(), envelopes)
	})
	stages.Go(func() {
		defer close(opened)
		c.open(n, envelopes, opened, &burials)
	})
	stages.Go(func() {
		batcher.Run(batcher.Config{Size: c.cfg.BatchSize, Linger: c.cfg.BatchLinger}, opened, batches)
	})
	stages.Go(func() { pool.Run(work) })
	stages.Wait()
	burials.Wait()
	if cause := context.Cause(work); errors.Is(cause, output.ErrLost) {
		err = errors.Join(err, cause)
	}
	if err = errors.Join(err, folder.Close()); err != nil {
		err = fmt.Errorf("shard %d: %w", n, err)
	}
	return pool.Last(), err
}

func (c *consuming) writer(folder *output.Shard) workerpool.Writer {
	if c.wrap != nil {
		return c.wrap(folder)
	}
	return folder
}

// open unpacks envelopes. Lines that can never be written go to the dead
// letters, the envelope's others on; what can never be unpacked is dead as a
// whole.
func (c *consuming) open(n int, envelopes <-chan *message.Delivery, opened chan<- batcher.Opened, burials *sync.WaitGroup) {
	for d := range envelopes {
		d = c.aside(d, burials)
		messages, dead, err := d.Open()
		if err != nil {
			c.teller.undecodable(n, d.ID, err.Error())
			_ = d.Settle(message.Outcome{Kind: message.DeadLetter, Reason: err.Error()}) // told by aside
			continue
		}
		d.Hold(len(messages) + len(dead))
		if len(dead) > 0 {
			for _, line := range dead {
				c.teller.undecodable(n, d.ID, line.Reason)
			}
			_ = d.Resolve(len(dead), message.Outcome{Kind: message.DeadLetter, Reason: dead[0].Reason, Dead: dead})
		}
		if len(messages) > 0 {
			opened <- batcher.Opened{Delivery: d, Messages: messages}
		}
	}
}

// aside is the delivery, but that its dead letters are settled beside whoever
// resolves its last message: they are published first, which takes seconds
// while the broker takes none. The prefetch bounds how many are under way.
func (c *consuming) aside(d *message.Delivery, burials *sync.WaitGroup) *message.Delivery {
	return message.NewDelivery(d.Envelope, d.Redelivered, func(o message.Outcome) error {
		if o.Kind != message.DeadLetter {
			return d.Settle(o)
		}
		burials.Go(func() {
			if err := d.Settle(o); err != nil {
				c.teller.unburied(d.Shard, d.ID, err)
			}
		})
		return nil
	})
}

// check tells whether the output takes what the workers have.
func (c *consuming) check() server.Check {
	c.mu.Lock()
	defer c.mu.Unlock()
	check := server.Check{Name: "output"}
	if workers := slices.Sorted(maps.Keys(c.held)); len(workers) > 0 {
		first := workers[0]
		check.Err = fmt.Errorf("%d workers hold their batch, %s because: %w", len(workers), first, c.held[first])
	}
	return check
}

// observe is the sink of the pools' events.
func (c *consuming) observe(e event.Event) {
	c.mu.Lock()
	switch e := e.(type) {
	case event.BatchHeld:
		c.held[e.Worker.ID] = e.Err
	case event.BatchWritten:
		delete(c.held, e.Worker.ID)
	case event.BatchReturned:
		delete(c.held, e.Worker.ID)
	case event.MessageDied:
		delete(c.held, e.Worker.ID)
	}
	c.mu.Unlock()
	c.teller.event(e)
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
	pools := slices.Clone(c.pools)
	c.mu.Unlock()
	var workers []event.Worker
	for _, p := range pools {
		workers = append(workers, p.History()...)
	}
	c.teller.history(workers, all)
}
