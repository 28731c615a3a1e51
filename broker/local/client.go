package local

import (
	"cmp"
	"context"
	"slices"

	"async-data-processor/broker"
	"async-data-processor/broker/bus"
	"async-data-processor/event"
)

// Client is a user of an Engine. It implements broker.Broker.
type Client struct {
	engine *Engine
	shards int
	events event.Sink
	closed bool // guarded by the engine's mu

	receivers *bus.Receivers
}

var _ broker.Broker = (*Client)(nil)

// Client returns a client that publishes to a number of shards. events must not
// call the broker.
func (e *Engine) Client(shards int, events event.Sink) *Client {
	c := &Client{engine: e, shards: shards, events: events, receivers: e.members.join()}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.clients[c] = true
	return c
}

// usable returns why the client can publish nothing now. Engine.mu is held.
func (c *Client) usable() error {
	if c.closed {
		return broker.ErrClosed
	}
	return c.engine.usable()
}

// Ready implements broker.Queues.
func (c *Client) Ready() error {
	c.engine.mu.Lock()
	closed := c.closed
	c.engine.mu.Unlock()
	if closed {
		return broker.ErrClosed
	}
	return c.engine.ready()
}

// Backlogs implements broker.Queues. The queues of the client's own shards are
// there from the beginning, another one once it was used.
func (c *Client) Backlogs(ctx context.Context, from int) ([]broker.Backlog, error) {
	if _, err := c.engine.await(ctx, c); err != nil {
		return nil, err
	}
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	for n := range c.shards {
		c.engine.queue(n)
	}
	var found []broker.Backlog
	for n, q := range c.engine.queues {
		if n >= max(from, 0) {
			found = append(found, broker.Backlog{Shard: n, Envelopes: q.depth - len(q.unsettled)})
		}
	}
	slices.SortFunc(found, func(a, b broker.Backlog) int { return cmp.Compare(a.Shard, b.Shard) })
	return found, nil
}

// Consumes implements broker.Queues.
func (c *Client) Consumes() error { return nil }

// Depths implements broker.Queues.
func (c *Client) Depths(ctx context.Context, shards []int) ([]broker.Backlog, error) {
	if _, err := c.engine.await(ctx, c); err != nil {
		return nil, err
	}
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	found := make([]broker.Backlog, 0, len(shards))
	for _, n := range shards {
		if q := c.engine.queues[n]; q != nil {
			found = append(found, broker.Backlog{Shard: n, Envelopes: q.depth - len(q.unsettled)})
		} else if n < c.shards {
			found = append(found, broker.Backlog{Shard: n})
		}
	}
	return found, nil
}

// Close implements broker.Queues. The engine stays open for others.
func (c *Client) Close() error {
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	c.release()
	delete(c.engine.clients, c)
	c.engine.broadcast()
	return nil
}

// release returns what the client's consumers have. Engine.mu is held.
func (c *Client) release() {
	c.closed = true
	c.engine.members.leave(c.receivers)
	for _, q := range c.engine.queues {
		for _, h := range q.unsettled {
			if h.consumer.client == c {
				q.giveBack(h, true)
			}
		}
	}
}
