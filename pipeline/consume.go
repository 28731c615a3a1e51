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
	p.teller.log.Info().Str("component", "message-consumer").Str("broker", RedactURL(p.cfg.BrokerURL)).
		Int("shards", p.cfg.Shards).Str("output", p.cfg.OutputDir).Msg("message-consumer started")
	return c, nil
}

func (c *consuming) start(g *errgroup.Group, intake, work context.Context) {
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

// shard runs one shard's stages, each until the one before it is finished:
//
//	consume ──envelopes──▶ open ──opened──▶ batcher ──batches──▶ workerpool ──▶ output
func (c *consuming) shard(intake, work context.Context, n int) error {
	folder, err := c.dir.Shard(intake, n, func() { c.teller.standby(n) })
	if err != nil {
		if intake.Err() != nil {
			return nil // stopped while it stood by
		}
		return err
	}
	c.teller.owned(n, folder.Swept(), folder.Recalled())

	var (
		envelopes = make(chan *message.Delivery)
		opened    = make(chan batcher.Opened)
		// Room for one, so that a worker finds its next batch ready. With more,
		// incomplete batches would wait in line instead of going on filling.
		batches = make(chan *message.Batch, 1)
	)
	pool := workerpool.New(workerpool.Config{
		Shard:   n,
		Min:     c.cfg.WorkersMin,
		Max:     c.cfg.WorkersMax,
		Timeout: c.cfg.WorkerTimeout,
		Writer:  folder,
		Events:  c.observe,
	}, batches)
	c.mu.Lock()
	c.pools = append(c.pools, pool)
	c.mu.Unlock()

	var stages sync.WaitGroup
	stages.Go(func() {
		defer close(envelopes)
		err = c.broker.Consume(intake, n, c.prefetch(), envelopes)
	})
	stages.Go(func() {
		defer close(opened)
		c.open(n, envelopes, opened)
	})
	stages.Go(func() {
		batcher.Run(batcher.Config{Size: c.cfg.BatchSize, Linger: c.cfg.BatchLinger}, opened, batches)
	})
	stages.Go(func() { pool.Run(work) })
	stages.Wait()
	if err = errors.Join(err, folder.Close()); err != nil {
		return fmt.Errorf("shard %d: %w", n, err)
	}
	return nil
}

// prefetch is how many envelopes a shard has in hand at most: enough to fill,
// with one message each, the batches being written, the one that waits and the
// one that fills. Less could starve a batch.
func (c *consuming) prefetch() int { return c.cfg.BatchSize * (c.cfg.WorkersMax + 2) }

// open unpacks envelopes; what can never be unpacked goes to the dead letters.
func (c *consuming) open(n int, envelopes <-chan *message.Delivery, opened chan<- batcher.Opened) {
	for d := range envelopes {
		messages, err := d.Open()
		if err == nil {
			d.Hold(len(messages))
			opened <- batcher.Opened{Delivery: d, Messages: messages}
			continue
		}
		settleErr := d.Settle(message.Outcome{Kind: message.DeadLetter, Reason: err.Error()})
		c.teller.deadLettered(n, d.ID, err, settleErr)
	}
}

// check tells whether the output takes what the workers have.
func (c *consuming) check() server.Check {
	c.mu.Lock()
	defer c.mu.Unlock()
	check := server.Check{Name: "output"}
	for worker, err := range c.held {
		check.Err = fmt.Errorf("worker %s holds its batch: %w", worker, err)
		break
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
