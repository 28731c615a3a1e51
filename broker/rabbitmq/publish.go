package rabbitmq

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/message"
)

// maxShortString is what AMQP's short strings hold, in bytes. A longer one
// costs the connection.
const maxShortString = 255

// convoy is what one caller publishes together: it leaves in one write.
type convoy struct {
	publications []publication
	written      chan struct{} // closed when each is written, or has its refusal
}

// publication is a message on its way to a queue.
type publication struct {
	index int // in what the caller gave
	queue string
	msg   amqp.Publishing

	// Set before written is closed, one or the other.
	confirm *amqp.DeferredConfirmation
	refusal error

	returned atomic.Pointer[amqp.Return] // set before confirm is done
}

// Publish implements broker.Broker.
func (b *Broker) Publish(ctx context.Context, e message.Envelope) (outcome error) {
	b.PublishTogether(ctx, []message.Envelope{e}, func(_ int, err error) { outcome = err })
	return outcome
}

// PublishTogether implements broker.Broker: the envelopes cost one write, and
// the broker one look at its socket.
func (b *Broker) PublishTogether(ctx context.Context, envelopes []message.Envelope, done func(int, error)) {
	c := newConvoy(len(envelopes))
	for i := range envelopes {
		if err := b.check(&envelopes[i]); err != nil {
			done(i, rejected(err))
			continue
		}
		c.add(i, queueName(envelopes[i].Shard), publishing(&envelopes[i]))
	}
	if len(c.publications) == 0 {
		return
	}
	s, err := b.publishing.current()
	if err != nil {
		c.refuse(rejected(err), done)
		return
	}
	s.carry(ctx, c, done)
}

func (b *Broker) check(e *message.Envelope) error {
	switch {
	case e.Shard < 0 || e.Shard >= b.cfg.Shards:
		return fmt.Errorf("there is no shard %d of %d", e.Shard, b.cfg.Shards)
	case e.ID == "" || len(e.ID) > maxShortString:
		return fmt.Errorf("the envelope's id has %d bytes, want 1 to %d", len(e.ID), maxShortString)
	case len(e.Body) > message.MaxEnvelopeBytes:
		return fmt.Errorf("the envelope has %d bytes, the limit is %d", len(e.Body), message.MaxEnvelopeBytes)
	default:
		return nil
	}
}

func publishing(e *message.Envelope) amqp.Publishing {
	return amqp.Publishing{
		MessageId:    e.ID,
		Type:         envelopeType,
		ContentType:  contentType,
		DeliveryMode: amqp.Persistent,
		Headers:      amqp.Table{countHeader: int64(e.Count)},
		Body:         e.Body,
	}
}

// publish sends a message to a queue and waits for the broker's verdict.
func (s *session) publish(ctx context.Context, queue string, msg amqp.Publishing) (outcome error) {
	c := newConvoy(1)
	c.add(0, queue, msg)
	s.carry(ctx, c, func(_ int, err error) { outcome = err })
	return outcome
}

func newConvoy(n int) *convoy {
	return &convoy{publications: make([]publication, 0, n), written: make(chan struct{})}
}

func (c *convoy) add(index int, queue string, msg amqp.Publishing) {
	c.publications = append(c.publications, publication{index: index, queue: queue, msg: msg})
}

// refuse gives all publications the same outcome.
func (c *convoy) refuse(outcome error, done func(int, error)) {
	for i := range c.publications {
		done(c.publications[i].index, outcome)
	}
}

// carry hands the convoy to the session's lane and tells the outcomes.
func (s *session) carry(ctx context.Context, c *convoy, done func(int, error)) {
	l := s.lane
	l.expect(c)
	defer l.forget(c)
	if err := s.hand(ctx, c); err != nil {
		c.refuse(rejected(err), done)
		return
	}
	select {
	case <-c.written:
	case <-ctx.Done(): // the lane is stuck in the socket, and goes on with the convoy
		c.refuse(unknown(fmt.Errorf("no confirm: %w", context.Cause(ctx))), done)
		return
	}
	// The broker may confirm them in any order, and one of them not at all.
	var others sync.WaitGroup
	last := len(c.publications) - 1
	for i := range c.publications[:last] {
		p := &c.publications[i]
		others.Go(func() { done(p.index, l.outcome(ctx, p)) })
	}
	p := &c.publications[last]
	done(p.index, l.outcome(ctx, p))
	others.Wait()
}

// hand gives the convoy to whoever writes it, or says why it was not.
func (s *session) hand(ctx context.Context, c *convoy) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if reason := s.blocked.Load(); reason != nil {
		return &blockedError{*reason}
	}
	select {
	case s.lane.convoys <- c:
		return nil
	case <-s.gone:
		return s.cause
	case <-ctx.Done():
		return fmt.Errorf("the connection takes nothing: %w", context.Cause(ctx))
	}
}
