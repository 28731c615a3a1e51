package pipeline

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"async-data-processor/broker"
	"async-data-processor/message"
)

const (
	// lookInterval is how often queues beyond the number of shards are looked
	// for: a server with a larger number may start at any time. RabbitMQ logs an
	// error for each look.
	lookInterval = time.Minute
	// lookRetry is the wait after the first look that failed; it doubles.
	lookRetry = time.Second
)

// leftover is a shard beyond the number of shards that has a queue. It is
// consumed like the others, but being ready does not wait for it.
type leftover struct {
	consumed atomic.Bool  // this process is, or was, its consumer
	inHand   atomic.Int64 // envelopes that it has, not settled
	drained  bool         // it was told; only used by reshard
}

// reshard finds shards beyond the number of shards until intake ends, and
// starts the same loop for them in g as for the others.
func (c *consuming) reshard(g *errgroup.Group, intake, work context.Context) {
	first, retry := true, lookRetry
	for {
		pause := lookInterval
		found, err := c.broker.Backlogs(intake, c.cfg.Shards)
		switch {
		case intake.Err() != nil:
			return
		case err != nil:
			c.teller.notLooked(err)
			pause, retry = retry, min(2*retry, lookInterval)
		default:
			c.adopt(g, intake, work, found, first)
			first, retry = false, lookRetry
		}
		select {
		case <-time.After(pause):
		case <-intake.Done():
			return
		}
	}
}

// adopt starts the shards that were not found before, and tells of those that
// are empty now.
func (c *consuming) adopt(g *errgroup.Group, intake, work context.Context, found []broker.Backlog, first bool) {
	waiting := make(map[int]int, len(found))
	for _, b := range found {
		waiting[b.Shard] = b.Envelopes
		if c.leftover(b.Shard) != nil {
			continue
		}
		c.teller.leftover(b.Shard, b.Envelopes, first)
		c.mu.Lock()
		c.leftovers[b.Shard] = &leftover{}
		c.mu.Unlock()
		c.begin(g, intake, work, b.Shard)
	}
	for n, l := range c.leftovers { // written here only
		if !l.drained && l.consumed.Load() && l.inHand.Load() == 0 && waiting[n] == 0 {
			l.drained = true
			c.teller.drained(n)
		}
	}
}

// leftover returns what is known of a shard beyond the number of shards, nil of
// another.
func (c *consuming) leftover(n int) *leftover {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leftovers[n]
}

// configured tells whether being ready waits for the shard.
func (c *consuming) configured(n int) bool { return n < c.cfg.Shards }

// count counts an owned shard, if being ready waits for it.
func (c *consuming) count(n int, by int32) {
	if c.configured(n) {
		c.owned.Add(by)
	}
}

// consume passes the shard's envelopes on; those of a leftover it counts.
func (c *consuming) consume(intake context.Context, n int, envelopes chan<- *message.Delivery) error {
	l := c.leftover(n)
	if l == nil {
		return c.broker.Consume(intake, n, c.cfg.prefetch(), envelopes)
	}
	l.consumed.Store(true)
	counted := make(chan *message.Delivery)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for d := range counted {
			l.inHand.Add(1)
			d.OnSettle(func(o message.Outcome, settle func(message.Outcome) error) error {
				defer l.inHand.Add(-1)
				return settle(o)
			})
			envelopes <- d
		}
	}()
	err := c.broker.Consume(intake, n, c.cfg.prefetch(), counted)
	close(counted)
	<-done
	return err
}
