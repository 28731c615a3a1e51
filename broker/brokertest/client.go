package brokertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/message"
)

// Client is a client of a Memory. It implements broker.Broker.
type Client struct {
	memory *Memory
	shards int
	events event.Sink

	// Guarded by the memory's lock.
	connection int // counts the connections, so that a wait sees that its own is gone
	closed     bool
}

// consumer is one attachment of a Consume to its queue; after a lost
// connection there is another one.
type consumer struct {
	client    *Client
	prefetch  int
	unsettled int
}

var _ broker.Broker = (*Client)(nil)

// Publish implements broker.Broker.
func (c *Client) Publish(ctx context.Context, envelopes []message.Envelope, done func(int, error)) {
	broker.PublishEach(ctx, c.publish, envelopes, done)
}

func (c *Client) publish(ctx context.Context, e message.Envelope) error {
	if ctx.Err() != nil {
		return broker.Rejected(context.Cause(ctx))
	}
	if err := broker.Check(&e, c.shards); err != nil {
		return err
	}
	m := c.memory
	var wait bool
	var err error
	var connection int
	m.change(func() {
		wait, err = c.accept(e)
		connection = c.connection
	})
	for wait {
		m.mu.Lock()
		lost, changed := c.closed || c.connection != connection, m.changed
		m.mu.Unlock()
		if lost {
			return fmt.Errorf("%w: the connection was lost", broker.ErrUnknown)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return broker.Unknown(context.Cause(ctx))
		}
	}
	return err
}

// accept decides what becomes of a publish; wait says that no answer will come.
func (c *Client) accept(e message.Envelope) (wait bool, err error) {
	m := c.memory
	if err := c.usable(); err != nil {
		return false, broker.Rejected(err)
	}
	if m.stalled || m.loss == Requests {
		return true, nil
	}
	if q := m.queue(e.Shard); q.missing {
		q.missing = false
		return false, fmt.Errorf("%w: the queue is missing", broker.ErrRejected)
	}
	if len(m.failures) > 0 {
		failure := m.failures[0]
		m.failures = m.failures[1:]
		switch failure {
		case Refused:
			return false, fmt.Errorf("%w: refused by the test", broker.ErrRejected)
		case Saved:
			m.save(e)
		}
		return false, fmt.Errorf("%w: failed by the test", broker.ErrUnknown)
	}
	e.Foreign = false
	m.save(e)
	return m.loss == Answers, nil
}

// usable returns why nothing can be published.
func (c *Client) usable() error {
	switch {
	case c.closed:
		return broker.ErrClosed
	case c.memory.stopped:
		return errStopped
	case c.memory.blocked != "":
		return errors.New("the broker blocks publishing: " + c.memory.blocked)
	default:
		return nil
	}
}

// Backlogs implements broker.Broker. A queue is there once it was used; those of the
// client's own shards are there from the beginning.
func (c *Client) Backlogs(ctx context.Context, from int) ([]broker.Backlog, error) {
	m := c.memory
	for {
		m.mu.Lock()
		closed, up, changed := c.closed, !m.stopped && !m.stalled && m.loss == Nothing, m.changed
		var found []broker.Backlog
		for n := range c.shards {
			m.queue(n)
		}
		for n, q := range m.queues {
			if n >= from && !q.missing {
				found = append(found, broker.Backlog{Shard: n, Envelopes: len(q.waiting)})
			}
		}
		m.mu.Unlock()
		switch {
		case closed:
			return nil, broker.ErrClosed
		case up:
			slices.SortFunc(found, func(x, y broker.Backlog) int { return cmp.Compare(x.Shard, y.Shard) })
			return found, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Ready implements broker.Broker.
func (c *Client) Ready() error {
	c.memory.mu.Lock()
	defer c.memory.mu.Unlock()
	return c.usable()
}

// Close implements broker.Broker.
func (c *Client) Close() error {
	c.memory.change(func() {
		if c.closed {
			return
		}
		c.closed = true
		c.memory.release(c)
		c.memory.clients = slices.DeleteFunc(c.memory.clients, func(o *Client) bool { return o == c })
	})
	return nil
}

// Consume implements broker.Broker.
func (c *Client) Consume(ctx context.Context, shard, prefetch int, deliveries chan<- *message.Delivery) error {
	if shard < 0 || prefetch < 1 {
		return fmt.Errorf("shard %d, prefetch %d", shard, prefetch)
	}
	m := c.memory
	me := &consumer{client: c, prefetch: prefetch}
	var item *memoryItem
	defer func() {
		m.change(func() {
			q := m.queue(shard)
			q.consumers = slices.DeleteFunc(q.consumers, func(o *consumer) bool { return o == me })
			if item != nil && item.holder == me {
				m.giveBack(q, item, false)
			}
		})
	}()
	for {
		m.mu.Lock()
		closed := c.closed
		if item != nil && item.holder != me {
			item = nil // the connection was lost while the item was offered
		}
		if item == nil && !closed && ctx.Err() == nil {
			me, item = c.pull(me, shard)
		}
		changed := m.changed
		m.mu.Unlock()
		if closed {
			return broker.ErrClosed
		}
		if item == nil {
			select {
			case <-changed:
			case <-ctx.Done():
				return nil
			}
			continue
		}
		select {
		case deliveries <- c.delivery(me, shard, item):
			item = nil
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// pull attaches the consumer to its queue if it is not, and takes an item if
// it is its turn.
func (c *Client) pull(me *consumer, shard int) (*consumer, *memoryItem) {
	m := c.memory
	if m.stopped || m.stalled || m.loss != Nothing {
		return me, nil
	}
	q := m.queue(shard)
	q.missing = false
	if !slices.Contains(q.consumers, me) {
		me = &consumer{client: c, prefetch: me.prefetch}
		q.consumers = append(q.consumers, me)
	}
	if q.consumers[0] != me || me.unsettled >= me.prefetch || len(q.waiting) == 0 {
		return me, nil
	}
	item := q.waiting[0]
	q.waiting = slices.Delete(q.waiting, 0, 1)
	q.held = append(q.held, item)
	item.holder = me
	me.unsettled++
	return me, item
}

func (c *Client) delivery(me *consumer, shard int, item *memoryItem) *message.Delivery {
	m := c.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	return message.NewDelivery(item.envelope, item.returns > 0, func(o message.Outcome) (err error) {
		m.change(func() { err = c.settle(me, m.queue(shard), item, o) })
		return err
	})
}

func (c *Client) settle(me *consumer, q *memoryQueue, item *memoryItem, o message.Outcome) error {
	m := c.memory
	if item.holder != me || c.closed {
		return broker.ErrStale
	}
	if m.loss == Requests {
		return nil // it does not arrive
	}
	switch o.Kind {
	case message.Ack:
		m.drop(q, item)
	case message.DeadLetter:
		m.drop(q, item)
		m.publishDeadLetter(item, o)
		c.events.Send(event.DeadLettered{Shard: item.envelope.Shard, Err: errors.New(o.Reason)})
	default:
		m.giveBack(q, item, true)
	}
	return nil
}
