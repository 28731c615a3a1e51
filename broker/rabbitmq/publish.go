package rabbitmq

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// publishCall is what one caller publishes together: it leaves in one write.
type publishCall struct {
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

// Publish implements broker.Broker: the envelopes cost one write, and the broker
// one look at its socket.
func (b *Broker) Publish(ctx context.Context, envelopes []message.Envelope, done func(int, error)) {
	call := newPublishCall(len(envelopes))
	for i := range envelopes {
		if err := broker.Check(&envelopes[i], b.cfg.Shards); err != nil {
			done(i, err)
			continue
		}
		call.add(i, queueName(envelopes[i].Shard), publishing(&envelopes[i]))
	}
	if len(call.publications) == 0 {
		return
	}
	s, err := b.conns.Publishing.Current()
	if err != nil {
		call.refuse(broker.Rejected(err), done)
		return
	}
	s.publishAll(ctx, call, done)
}

func publishing(e *message.Envelope) amqp.Publishing {
	headers := amqp.Table{countHeader: int64(e.Count)}
	if len(e.Attributes) > 0 {
		headers[attributesHeader] = broker.EncodeAttributes(e.Attributes)
	}
	return amqp.Publishing{
		MessageId:    e.ID,
		Type:         envelopeType,
		ContentType:  contentType,
		DeliveryMode: amqp.Persistent,
		Headers:      headers,
		Body:         e.Body,
	}
}

// publish sends a message to a queue and waits for the broker's verdict.
func (s *session) publish(ctx context.Context, queue string, msg amqp.Publishing) (outcome error) {
	call := newPublishCall(1)
	call.add(0, queue, msg)
	s.publishAll(ctx, call, func(_ int, err error) { outcome = err })
	return outcome
}

func newPublishCall(n int) *publishCall {
	return &publishCall{publications: make([]publication, 0, n), written: make(chan struct{})}
}

func (c *publishCall) add(index int, queue string, msg amqp.Publishing) {
	c.publications = append(c.publications, publication{index: index, queue: queue, msg: msg})
}

// refuse gives all publications the same outcome.
func (c *publishCall) refuse(outcome error, done func(int, error)) {
	for i := range c.publications {
		done(c.publications[i].index, outcome)
	}
}

// publishAll hands the call to the session's channel and tells the outcomes.
func (s *session) publishAll(ctx context.Context, call *publishCall, done func(int, error)) {
	c := s.confirms
	c.expect(call)
	defer c.forget(call)
	if err := s.hand(ctx, call); err != nil {
		call.refuse(broker.Rejected(err), done)
		return
	}
	select {
	case <-call.written:
	case <-ctx.Done(): // its writer is stuck in the socket, and goes on with the call
		call.refuse(broker.Unknown(fmt.Errorf("no confirm: %w", context.Cause(ctx))), done)
		return
	}
	// The broker may confirm them in any order, and one of them not at all.
	var others sync.WaitGroup
	last := len(call.publications) - 1
	for i := range call.publications[:last] {
		p := &call.publications[i]
		others.Go(func() { done(p.index, c.outcome(ctx, p)) })
	}
	p := &call.publications[last]
	done(p.index, c.outcome(ctx, p))
	others.Wait()
}

// hand gives the call to the goroutine that writes it, or says why it was not.
func (s *session) hand(ctx context.Context, call *publishCall) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := s.refusesPublish(); err != nil {
		return err
	}
	select {
	case s.confirms.calls <- call:
		return nil
	case <-s.Gone():
		return s.Cause()
	case <-ctx.Done():
		return fmt.Errorf("the connection takes nothing: %w", context.Cause(ctx))
	}
}
