package rabbitmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/message"
)

const (
	// maxLanes is the most channels of the publishing connection. Each has a
	// process of its own in the broker; beyond a few the socket is the limit.
	maxLanes = 8
	// maxShortString is what AMQP's short strings hold, in bytes. A longer one
	// costs the connection.
	maxShortString = 255
)

// Publish implements broker.Broker. The envelope's body must not be changed
// afterwards: when ctx ends early, it may still be on its way to the socket.
func (b *Broker) Publish(ctx context.Context, e message.Envelope) error {
	switch {
	case e.Shard < 0 || e.Shard >= b.cfg.Shards:
		return rejected(fmt.Errorf("there is no shard %d of %d", e.Shard, b.cfg.Shards))
	case e.ID == "" || len(e.ID) > maxShortString:
		return rejected(fmt.Errorf("the envelope's id has %d bytes, want 1 to %d", len(e.ID), maxShortString))
	case len(e.Body) > message.MaxEnvelopeBytes:
		return rejected(fmt.Errorf("the envelope has %d bytes, the limit is %d", len(e.Body), message.MaxEnvelopeBytes))
	}
	s, err := b.publishing.current()
	if err != nil {
		return rejected(err)
	}
	return s.publish(ctx, e.Shard, queueName(e.Shard), amqp.Publishing{
		MessageId:    e.ID,
		Type:         envelopeType,
		ContentType:  contentType,
		DeliveryMode: amqp.Persistent,
		Headers:      amqp.Table{countHeader: int64(e.Count)},
		Body:         e.Body,
	})
}

// publish sends a message to a queue and waits for the broker's verdict.
func (s *session) publish(ctx context.Context, shard int, queue string, msg amqp.Publishing) error {
	if err := ctx.Err(); err != nil {
		return rejected(context.Cause(ctx))
	}
	if reason := s.blocked.Load(); reason != nil {
		return rejected(&blockedError{*reason})
	}
	p := &publication{queue: queue, msg: msg, verdict: make(chan error, 1)}
	select {
	case s.lanes[shard%len(s.lanes)].publications <- p:
	case <-s.gone:
		return rejected(s.cause)
	case <-ctx.Done():
		return rejected(fmt.Errorf("the connection takes nothing: %w", context.Cause(ctx)))
	}
	select {
	case err := <-p.verdict:
		return err
	case <-ctx.Done():
		return unknown(fmt.Errorf("no confirm: %w", context.Cause(ctx)))
	}
}

// lane is a channel in confirm mode. One goroutine writes to it, so that its
// callers can leave while it is stuck in the socket; another hears what the
// broker says. Publications do not wait for each other's confirm.
type lane struct {
	session      *session
	ch           *amqp.Channel
	publications chan *publication // unbuffered: who takes one writes it

	returns  chan amqp.Return       // both unbuffered, so that the listener
	confirms chan amqp.Confirmation // hears a return before its confirm
	closes   chan *amqp.Error

	mu      sync.Mutex              // guards what follows
	pending map[uint64]*publication // by delivery tag; nil when the channel is closed
}

type publication struct {
	queue    string
	msg      amqp.Publishing
	verdict  chan error   // of one; taken by whoever waits for it
	returned *amqp.Return // only used by the lane's listener
}

// openLanes makes the session one for publishing.
func (s *session) openLanes() error {
	for range min(s.broker.cfg.Shards, maxLanes) {
		ch, err := s.channel()
		if err == nil {
			err = s.rpc(func() error { return ch.Confirm(false) })
		}
		if err != nil {
			return fmt.Errorf("opening a channel to publish: %w", err)
		}
		l := &lane{
			session: s, ch: ch,
			publications: make(chan *publication),
			pending:      map[uint64]*publication{},
			returns:      ch.NotifyReturn(make(chan amqp.Return)),
			confirms:     ch.NotifyPublish(make(chan amqp.Confirmation)),
			closes:       ch.NotifyClose(make(chan *amqp.Error, 1)),
		}
		s.lanes = append(s.lanes, l)
		s.loops.Go(l.write)
		s.loops.Go(l.listen)
	}
	return nil
}

// write sends what callers hand over, until the session ends.
func (l *lane) write() {
	for tag := uint64(1); ; tag++ {
		select {
		case p := <-l.publications:
			if !l.register(tag, p) {
				p.verdict <- rejected(errors.New("the channel is closed"))
				continue
			}
			// Its context would only be asked before the write.
			err := l.ch.Publish("", p.queue, true, false, p.msg)
			if err == nil {
				continue
			}
			if l.take(tag) != nil {
				p.verdict <- l.unsent(err)
			}
			// The library's count of tags and ours may differ from here on.
			l.session.fail(l.session.broker.target.explain(err))
		case <-l.session.gone:
			return
		}
	}
}

// unsent classifies an error of a write. Closed means that a frame of the
// message was not written, and an incomplete message is none.
func (l *lane) unsent(err error) error {
	if errors.Is(err, amqp.ErrClosed) {
		return rejected(l.session.broker.target.explain(err))
	}
	return unknown(l.session.broker.target.explain(err))
}

func (l *lane) register(tag uint64, p *publication) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending == nil {
		return false
	}
	l.pending[tag] = p
	return true
}

// take removes a publication; whoever gets it gives the verdict.
func (l *lane) take(tag uint64) *publication {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pending[tag]
	delete(l.pending, tag)
	return p
}

// listen passes on the broker's verdicts until the channel is closed, which
// also ends the session: a channel closes alone only after an error.
func (l *lane) listen() {
	for returns := l.returns; ; {
		select {
		case r, ok := <-returns:
			if !ok {
				returns = nil
				continue
			}
			l.returned(&r)
		case c, ok := <-l.confirms:
			if !ok {
				l.close()
				return
			}
			if p := l.take(c.DeliveryTag); p != nil {
				p.verdict <- p.outcome(c.Ack)
			}
		}
	}
}

// returned marks what the broker could not route. A return names no delivery
// tag, but what has the same queue and id is the same envelope, retried: it
// may safely be said to be missing once too often.
func (l *lane) returned(r *amqp.Return) {
	l.mu.Lock()
	for _, p := range l.pending {
		if p.queue == r.RoutingKey && p.msg.MessageId == r.MessageId {
			p.returned = r
		}
	}
	l.mu.Unlock()
	select {
	case l.session.repair <- struct{}{}:
	default: // it is asked for already
	}
}

func (p *publication) outcome(ack bool) error {
	switch {
	case p.returned != nil: // acknowledged all the same
		return rejected(fmt.Errorf("the queue %s is missing (%s) and is declared again", p.queue, p.returned.ReplyText))
	case !ack:
		return rejected(fmt.Errorf("the queue %s refused it", p.queue))
	default:
		return nil
	}
}

// close ends what waits for confirms that will not come.
func (l *lane) close() {
	l.mu.Lock()
	pending := l.pending
	l.pending = nil
	l.mu.Unlock()
	// Without a word of the broker's, the session was shut by this side.
	l.session.fail(l.session.broker.target.explain(cmp.Or(<-l.closes, amqp.ErrClosed)))
	for _, p := range pending {
		p.verdict <- unknown(fmt.Errorf("the connection was lost before the confirm: %w", l.session.cause))
	}
}
