package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"async-data-processor/event"
	"async-data-processor/output"
	"async-data-processor/server"
)

// hold is a batch that a worker holds.
type hold struct {
	shard int
	why   error
	limit *time.Timer // ends the holding
}

// whyGiveUp returns why a shard whose output does not take a batch is to be
// given up at once, nil if it is to go on trying.
func (c *consuming) whyGiveUp(o *outage, held error) error {
	if errors.Is(held, output.ErrLost) {
		return held
	}
	if err := o.met(held); err != nil {
		c.fail(err)
	}
	return context.Cause(c.failed)
}

// check tells whether the output takes what the workers have, and has room for
// more.
func (c *consuming) check() server.Check {
	check := server.Check{Name: "output", Err: c.reserve.Low()}
	c.mu.Lock()
	defer c.mu.Unlock()
	if shards := slices.Sorted(maps.Keys(c.untaken)); len(shards) > 0 {
		first := shards[0]
		check.Err = fmt.Errorf("%d shards are not taken, shard %d because: %w", len(shards), first, c.untaken[first])
	} else if workers := slices.Sorted(maps.Keys(c.held)); len(workers) > 0 {
		first := workers[0]
		check.Err = fmt.Errorf("%d workers hold their batch, %s because: %w", len(workers), first, c.held[first].why)
	} else if shards := slices.Sorted(maps.Keys(c.unrolled)); len(shards) > 0 {
		first := shards[0]
		check.Err = fmt.Errorf("%d shards are unrolled, shard %d because: %w", len(shards), first, c.unrolled[first])
	}
	return check
}

// observe is the sink of the pools' events. A batch that is held for too long
// is given up.
func (c *consuming) observe(e event.Event, giveUp func(why error)) {
	c.mu.Lock()
	switch e := e.(type) {
	case event.BatchHeld:
		limit := c.held[e.Worker.ID].limit
		if limit == nil {
			limit = time.AfterFunc(holdLimit, func() { giveUp(errHeldLong) })
		}
		c.held[e.Worker.ID] = hold{e.Worker.Shard, e.Err, limit}
	case event.BatchWritten:
		c.release(e.Worker)
	case event.BatchReturned:
		c.release(e.Worker)
		if errors.Is(e.Err, errHeldLong) || errors.Is(e.Err, output.ErrLost) {
			c.untaken[e.Worker.Shard] = e.Err // about to be taken anew
		}
	case event.MessageDied:
		c.release(e.Worker)
	}
	c.mu.Unlock()
	c.teller.event(e)
}

// release forgets that the worker holds a batch. The caller holds mu.
func (c *consuming) release(w event.Worker) {
	if h, ok := c.held[w.ID]; ok {
		h.limit.Stop()
		delete(c.held, w.ID)
	}
}

// holds tells whether a worker of the shard holds a batch.
func (c *consuming) holds(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.held {
		if h.shard == n {
			return true
		}
	}
	return false
}
