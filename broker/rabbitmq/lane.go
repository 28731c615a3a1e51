package rabbitmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// lane is a channel in confirm mode. One goroutine writes to it, so that its
// callers can leave while it is stuck in the socket. Convoys do not wait for
// each other's confirms.
//
// There is one for all queues: a channel is a process of its own in the broker,
// and each that a convoy wakes up costs it more than another queue does.
type lane struct {
	session *session
	ch      *amqp.Channel
	convoys chan *convoy // unbuffered: who takes one writes it

	// The library tells both of a return, one after the other, before it looks at
	// the confirm that follows. So when the second has heard of it, what the first
	// did is done.
	returns, returned chan amqp.Return
	closes            chan *amqp.Error

	unheard unheard

	mu       sync.Mutex // guards what follows
	expected map[*convoy]struct{}
}

// openLane makes the session one for publishing.
func (s *session) openLane() error {
	ch, err := s.channel()
	if err == nil {
		err = s.rpc(func() error { return ch.Confirm(false) })
	}
	if err != nil {
		return fmt.Errorf("opening a channel to publish: %w", err)
	}
	s.lane = &lane{
		session: s, ch: ch,
		convoys:  make(chan *convoy),
		expected: map[*convoy]struct{}{},
		returns:  ch.NotifyReturn(make(chan amqp.Return)),
		returned: ch.NotifyReturn(make(chan amqp.Return)),
		closes:   ch.NotifyClose(make(chan *amqp.Error, 1)),
	}
	s.loops.Go(s.lane.write)
	s.loops.Go(s.lane.listen)
	return nil
}

// expect makes the convoy known to those who hear of returns, until forget.
func (l *lane) expect(c *convoy) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expected[c] = struct{}{}
}

func (l *lane) forget(c *convoy) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.expected, c)
}

// write sends what callers hand over, until the session ends. It gives the
// session up if a queue is mute for long: another one may hear of it.
func (l *lane) write() {
	check := time.NewTicker(l.session.broker.timing.mute / maxChecks)
	defer check.Stop()
	for {
		select {
		case c := <-l.convoys:
			if err := l.send(c); err != nil {
				l.session.fail(l.session.broker.target.explain(err))
			}
		case <-check.C:
			if l.session.blocked.Load() != nil {
				continue // no queue is to blame
			}
			if err := l.unheard.check(); err != nil {
				l.session.fail(l.session.broker.target.explain(err))
			}
		case <-l.session.gone:
			return
		}
	}
}

// send writes a convoy at once. After an error the session must not be used.
func (l *lane) send(c *convoy) (err error) {
	defer close(c.written)
	l.session.sock.hold()
	var last uint64
	for i := range c.publications {
		p := &c.publications[i]
		if err != nil {
			p.refusal = rejected(l.session.broker.target.explain(err))
			continue
		}
		if mute := l.unheard.mute(p.queue); mute != nil {
			p.refusal = rejected(mute)
			continue
		}
		// Its context would only be asked before the write.
		p.confirm, err = l.ch.PublishWithDeferredConfirm("", p.queue, true, false, p.msg)
		if err != nil {
			p.refusal = l.unsent(err)
			continue
		}
		last = p.confirm.DeliveryTag
	}
	if err == nil {
		err = l.unheard.overdue(last)
	}
	return errors.Join(err, l.session.sock.release())
}

// unsent classifies an error of a write. Closed means that a frame of the
// message was not written, and an incomplete message is none.
func (l *lane) unsent(err error) error {
	if errors.Is(err, amqp.ErrClosed) {
		return rejected(l.session.broker.target.explain(err))
	}
	return unknown(l.session.broker.target.explain(err))
}

// outcome waits for the broker's verdict on a publication that was written.
func (l *lane) outcome(ctx context.Context, p *publication) error {
	if p.refusal != nil {
		return p.refusal
	}
	select {
	case <-p.confirm.Done():
		return l.verdict(ctx, p)
	default:
	}
	select {
	case <-p.confirm.Done():
		return l.verdict(ctx, p)
	case <-l.session.gone:
		return l.lost()
	case <-ctx.Done():
		l.unheard.note(p)
		return unknown(fmt.Errorf("no confirm: %w", context.Cause(ctx)))
	}
}

// verdict is what the broker's confirm means. The library says that what is left
// without one was refused, too, but only after it has closed the channel.
func (l *lane) verdict(ctx context.Context, p *publication) error {
	switch r := p.returned.Load(); {
	case r != nil: // acknowledged all the same
		return rejected(fmt.Errorf("the queue %s is missing (%s) and is declared again", p.queue, r.ReplyText))
	case p.confirm.Acked():
		return nil
	case l.ch.IsClosed():
		select {
		case <-l.session.gone: // soon
		case <-ctx.Done():
			return unknown(fmt.Errorf("the connection was lost before the confirm: %w", context.Cause(ctx)))
		}
		return l.lost()
	default:
		return rejected(fmt.Errorf("the queue %s refused it", p.queue))
	}
}

// mute is an error if one of the shards' queues confirms nothing.
func (l *lane) mute() error {
	for shard := range l.session.broker.cfg.Shards {
		if err := l.unheard.mute(queueName(shard)); err != nil {
			return err
		}
	}
	return nil
}

// lost is the outcome of what was unconfirmed when the session ended.
func (l *lane) lost() error {
	return unknown(fmt.Errorf("the connection was lost before the confirm: %w", l.session.cause))
}

// listen hears of what the broker could not route until the channel is closed,
// which also ends the session: a channel closes alone only after an error.
func (l *lane) listen() {
	for {
		select {
		case r, ok := <-l.returns:
			if !ok {
				// Without a word of the broker's, the session was shut by this side.
				l.session.fail(l.session.broker.target.explain(cmp.Or(<-l.closes, amqp.ErrClosed)))
				return
			}
			l.mark(&r)
		case <-l.returned:
		}
	}
}

// mark marks what the broker could not route. A return names no delivery tag,
// but what has the same queue and id is the same envelope, retried: it may
// safely be said to be missing once too often.
func (l *lane) mark(r *amqp.Return) {
	l.mu.Lock()
	for c := range l.expected {
		for i := range c.publications {
			if p := &c.publications[i]; p.queue == r.RoutingKey && p.msg.MessageId == r.MessageId {
				p.returned.Store(r)
			}
		}
	}
	l.mu.Unlock()
	select {
	case l.session.repair <- struct{}{}:
	default: // it is asked for already
	}
}
