package local

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/message"
)

// consumer is a running Consume.
type consumer struct {
	client   *Client
	queue    *queue
	prefetch int
	woken    chan struct{} // has room for one; see queue.wake
	left     chan struct{} // closed when Consume has ended

	unsettled int // guarded by Engine.mu
}

// Consume implements broker.Queues.
func (c *Client) Consume(ctx context.Context, shard, prefetch int, deliveries chan<- *message.Delivery) error {
	if shard < 0 || prefetch < 1 {
		return fmt.Errorf("shard %d, prefetch %d", shard, prefetch)
	}
	e := c.engine
	e.mu.Lock()
	me := &consumer{client: c, queue: e.queue(shard), prefetch: prefetch, woken: make(chan struct{}, 1), left: make(chan struct{})}
	me.queue.consumers = append(me.queue.consumers, me)
	e.mu.Unlock()
	defer me.leave()
	for {
		life, err := e.await(ctx, c)
		if err != nil {
			return ended(ctx, err)
		}
		h, err := me.next(ctx, life)
		switch {
		case err != nil:
			return err
		case h == nil: // the store was lost, or ctx is done
			continue
		}
		select {
		case deliveries <- me.delivery(h):
		case <-life.over:
		case <-ctx.Done():
			me.takeBack(h)
			return nil
		}
	}
}

// ended returns nil in place of the error that says that ctx is done.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return nil
	}
	return err
}

// next waits for an item for the consumer. It returns nil when the life of the
// store is over, or the client is closed, or ctx is done.
func (c *consumer) next(ctx context.Context, life *life) (*handOut, error) {
	e, q := c.client.engine, c.queue
	for {
		e.mu.Lock()
		if e.life != life || e.closed || c.client.closed {
			e.mu.Unlock()
			return nil, nil
		}
		var h *handOut
		behind, after, note := false, q.read, false
		if q.consumers[0] == c && c.unsettled < c.prefetch {
			h = q.pop(c)
			behind = h == nil && q.read < q.last
			if h != nil && h.item.Seq > q.handedOut {
				q.handedOut, note = h.item.Seq, true
			}
		}
		e.mu.Unlock()
		switch {
		case h != nil:
			if note {
				e.cfg.Store.HandOut(q.number, h.item.Seq)
			}
			return h, nil
		case behind:
			if err := e.fetch(q, life, after, c.prefetch); err != nil {
				return nil, err
			}
			continue
		}
		select {
		case <-c.woken:
		case <-ctx.Done():
			return nil, nil
		}
	}
}

// fetch makes the next items of the queue ready. Only its active consumer calls it.
// An error is for good.
func (e *Engine) fetch(q *queue, life *life, after uint64, limit int) error {
	items, err := e.cfg.Store.Read(q.number, after, limit)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.life != life {
		return nil
	}
	if err == nil && len(items) == 0 {
		err = fmt.Errorf("%w: shard %d lacks what was stored after number %d", ErrDamaged, q.number, after)
	}
	if errors.Is(err, ErrDamaged) {
		e.breakDown(err)
		return err
	}
	if err != nil {
		e.fail(err)
		e.kick()
		return nil
	}
	for _, it := range items {
		it.Returns = q.returns[it.Seq]
		q.push(it)
		q.read = it.Seq
	}
	return nil
}

// takeBack makes ready again what was not sent.
func (c *consumer) takeBack(h *handOut) {
	c.client.engine.mu.Lock()
	defer c.client.engine.mu.Unlock()
	c.queue.giveBack(h, false)
}

var errNotMoved = errors.New("the store has not taken the dead letter yet")

// wait waits for a move. When the consumer has left, that is bounded.
func (c *consumer) wait(m *move) error {
	select {
	case err := <-m.done:
		return err
	case <-c.left:
	}
	late := time.NewTimer(broker.PublishTimeout)
	defer late.Stop()
	select {
	case err := <-m.done:
		return err
	case <-late.C:
		return errNotMoved
	}
}

// leave makes room for the next consumer. What this one has stays its own.
func (c *consumer) leave() {
	close(c.left)
	c.client.engine.mu.Lock()
	defer c.client.engine.mu.Unlock()
	q := c.queue
	q.consumers = slices.DeleteFunc(q.consumers, func(o *consumer) bool { return o == c })
	q.wake()
}

// delivery is the item as a delivery.
func (c *consumer) delivery(h *handOut) *message.Delivery {
	return message.NewDelivery(h.item.Envelope, h.item.Returns > 0, func(o message.Outcome) error { return c.settle(h, o) })
}

// settle does what a delivery's user decided.
func (c *consumer) settle(h *handOut, o message.Outcome) error {
	e, q := c.client.engine, c.queue
	e.mu.Lock()
	if q.unsettled[h.item.Seq] != h || c.client.closed {
		e.mu.Unlock()
		return broker.ErrStale
	}
	switch o.Kind {
	case message.Ack:
		q.drop(h)
		q.depth--
		e.change.Delete = append(e.change.Delete, q.place(&h.item))
		e.later()
	case message.Return:
		q.giveBack(h, true)
	case message.DeadLetter:
		q.drop(h)
		q.depth--
		m := e.move(q.bury(&h.item, o))
		e.mu.Unlock()
		if err := c.wait(m); err != nil {
			return fmt.Errorf("%w: %w", broker.ErrStale, err) // so the envelope comes again
		}
		for _, put := range m.to { // one for each line, as the other brokers tell
			c.client.events.Send(event.DeadLettered{Shard: q.number, Envelope: h.item.Envelope.ID, Err: errors.New(put.Item.Reason)})
		}
		return nil
	}
	e.mu.Unlock()
	return nil
}
