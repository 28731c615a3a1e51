package conn

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"async-data-processor/backoff"
	"async-data-processor/broker"
	"async-data-processor/event"
)

// ErrCancelled: the broker cancelled the consumer, as it does when its queue is
// deleted.
var ErrCancelled = errors.New("the broker cancelled the consumer")

// Consume subscribes to a shard until ctx is done or the client is closed, each time
// the subscription or its session is lost. subscribe returns nil when intake is done.
// Any shard may be consumed, also one beyond the number of shards.
func (c *Client[S]) Consume(ctx context.Context, shard, prefetch int, subscribe func(intake context.Context, s S) error) error {
	if shard < 0 {
		return fmt.Errorf("there is no shard %d", shard)
	}
	if prefetch < 1 || prefetch > math.MaxUint16 {
		return fmt.Errorf("prefetch: want 1 to %d, got %d", math.MaxUint16, prefetch)
	}
	intake, end, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	defer c.Subscribed(shard)
	c.mu.Lock()
	c.consumes = true
	c.mu.Unlock()
	c.unsubscribed(shard, fmt.Errorf("shard %d is not consumed yet", shard))
	c.Consuming.Start()
	for attempts := c.cfg.Pauses.attempts(); ; {
		s, err := c.Consuming.Await(intake)
		if err == nil {
			began := time.Now()
			err = subscribe(intake, s)
			attempts.lasted(began)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case c.ctx.Err() != nil:
			return broker.ErrClosed
		case s.Over():
			// Its link tells, and waits before the next one.
			select {
			case <-s.life().gone:
			case <-intake.Done():
			}
			continue
		}
		state, pause := event.Unsubscribed, attempts.failed(err)
		if errors.Is(err, ErrCancelled) {
			state = event.Cancelled
			if c.cfg.Pauses.Cancelled > 0 {
				pause = c.cfg.Pauses.Cancelled
			}
		}
		c.Unsubscribed(shard, state, err, pause)
		backoff.Sleep(intake, pause)
	}
}
