package rabbitmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
	"async-data-processor/event"
)

// confirmChannel is a channel in confirm mode. One goroutine writes to it, so that
// its callers can leave while it is stuck in the socket. Calls do not wait for each
// other's confirms.
//
// There is one for all queues: a channel is a process of its own in the broker,
// and each that a call wakes up costs it more than another queue does.
type confirmChannel struct {
	session *session
	ch      *amqp.Channel
	calls   chan *publishCall // unbuffered: who takes one writes it

	// The library tells both of a return, one after the other, before it looks at
	// the confirm that follows. So when the second has heard of it, what the first
	// did is done.
	returns, returned chan amqp.Return
	closes            chan *amqp.Error

	pending pendingConfirms

	mu       sync.Mutex // guards what follows
	expected map[*publishCall]struct{}
	missing  map[string]struct{} // queues, of returns
}

// openConfirms makes the session one for publishing.
func (s *session) openConfirms() error {
	ch, err := s.channel()
	if err == nil {
		err = s.rpc(func() error { return ch.Confirm(false) })
	}
	if err != nil {
		return fmt.Errorf("opening a channel to publish: %w", err)
	}
	s.confirms = &confirmChannel{
		session: s, ch: ch,
		calls:    make(chan *publishCall),
		expected: map[*publishCall]struct{}{},
		missing:  map[string]struct{}{},
		returns:  ch.NotifyReturn(make(chan amqp.Return)),
		returned: ch.NotifyReturn(make(chan amqp.Return)),
		closes:   ch.NotifyClose(make(chan *amqp.Error, 1)),
	}
	s.Loops.Go(s.confirms.write)
	s.Loops.Go(s.confirms.listen)
	return nil
}

// expect makes a call known to those who hear of returns, until forget.
func (c *confirmChannel) expect(call *publishCall) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expected[call] = struct{}{}
}

func (c *confirmChannel) forget(call *publishCall) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.expected, call)
}

// write sends what callers hand over, until the session ends. It gives the session
// up if a confirm is pending for long: another session may work.
func (c *confirmChannel) write() {
	check := time.NewTicker(c.session.broker.timing.stalled / maxChecks)
	defer check.Stop()
	for {
		select {
		case call := <-c.calls:
			if err := c.send(call); err != nil {
				c.session.giveUp(err)
			}
		case <-check.C:
			if c.session.blocked.Load() != nil {
				continue // no queue is to blame
			}
			if err := c.pending.check(); err != nil {
				c.session.giveUp(err)
			}
		case <-c.session.Gone():
			return
		}
	}
}

// send writes a call at once. After an error the session must not be used.
func (c *confirmChannel) send(call *publishCall) (err error) {
	defer close(call.written)
	c.session.sock.cork()
	var last uint64
	for i := range call.publications {
		p := &call.publications[i]
		if err != nil {
			p.refusal = broker.Rejected(c.session.broker.target.explain(err))
			continue
		}
		if stalled := c.pending.stalled(p.queue); stalled != nil {
			p.refusal = broker.Rejected(stalled)
			continue
		}
		// Its context would only be asked before the write.
		p.confirm, err = c.ch.PublishWithDeferredConfirm("", p.queue, true, false, p.msg)
		if err != nil {
			p.refusal = c.unsent(err)
			continue
		}
		last = p.confirm.DeliveryTag
	}
	if err == nil {
		err = c.pending.overdue(last)
	}
	return errors.Join(err, c.session.sock.uncork())
}

// unsent classifies an error of a write. Closed means that a frame of the
// message was not written, and an incomplete message is none.
func (c *confirmChannel) unsent(err error) error {
	if errors.Is(err, amqp.ErrClosed) {
		return broker.Rejected(c.session.broker.target.explain(err))
	}
	return broker.Unknown(c.session.broker.target.explain(err))
}

// outcome waits for the broker's verdict on a publication that was written.
func (c *confirmChannel) outcome(ctx context.Context, p *publication) error {
	if p.refusal != nil {
		return p.refusal
	}
	select {
	case <-p.confirm.Done():
		return c.verdict(ctx, p)
	default:
	}
	select {
	case <-p.confirm.Done():
		return c.verdict(ctx, p)
	case <-c.session.Gone():
		return c.session.Lost()
	case <-ctx.Done():
		c.pending.add(p)
		return broker.Unknown(fmt.Errorf("no confirm: %w", context.Cause(ctx)))
	}
}

// verdict is what the broker's confirm means. The library says that what is left
// without one was refused, too, but only after it has closed the channel.
func (c *confirmChannel) verdict(ctx context.Context, p *publication) error {
	switch r := p.returned.Load(); {
	case r != nil: // acknowledged all the same
		return broker.Rejected(fmt.Errorf("the queue %s is missing (%s) and is declared again", p.queue, r.ReplyText))
	case p.confirm.Acked():
		return nil
	case c.ch.IsClosed():
		select {
		case <-c.session.Gone(): // soon
		case <-ctx.Done():
			return broker.Unknown(fmt.Errorf("the connection was lost before the confirm: %w", context.Cause(ctx)))
		}
		return c.session.Lost()
	default:
		return broker.Rejected(fmt.Errorf("the queue %s refused it", p.queue))
	}
}

// stalled is an error if one of the shards' queues confirms nothing.
func (c *confirmChannel) stalled() error {
	for shard := range c.session.broker.cfg.Shards {
		if err := c.pending.stalled(queueName(shard)); err != nil {
			return err
		}
	}
	return nil
}

// listen hears of what the broker could not route until the channel is closed,
// which also ends the session: a channel closes alone only after an error.
func (c *confirmChannel) listen() {
	for {
		select {
		case r, ok := <-c.returns:
			if !ok {
				// Without a word of the broker's, the session was shut by this side.
				c.session.giveUp(cmp.Or(<-c.closes, amqp.ErrClosed))
				return
			}
			c.mark(&r)
		case <-c.returned:
		}
	}
}

// mark marks what the broker could not route. A return names no delivery tag,
// but what has the same queue and id is the same envelope, retried: it may
// safely be said to be missing once too often.
func (c *confirmChannel) mark(r *amqp.Return) {
	c.mu.Lock()
	for call := range c.expected {
		for i := range call.publications {
			if p := &call.publications[i]; p.queue == r.RoutingKey && p.msg.MessageId == r.MessageId {
				p.returned.Store(r)
			}
		}
	}
	c.missing[r.RoutingKey] = struct{}{}
	c.mu.Unlock()
	c.session.AskRepair()
}

// lost tells of the queues that were missing since it was called last.
func (c *confirmChannel) lost() {
	c.mu.Lock()
	missing := c.missing
	c.missing = make(map[string]struct{})
	c.mu.Unlock()
	for name := range missing {
		c.session.broker.conns.Send(event.QueueLost{Name: name})
	}
}
