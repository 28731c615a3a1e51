package rabbitmq

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
)

// Beyond implements broker.Broker. AMQP has no list of queues, so they are
// asked for one by one. Each one that is missing costs a channel and an error
// in the log of RabbitMQ.
func (b *Broker) Beyond(ctx context.Context, shards, gap int) (found []broker.Backlog, err error) {
	if !b.enter() {
		return nil, broker.ErrClosed
	}
	defer b.calls.Done()
	// Not the publishing connection: it is silent while the broker is short of
	// memory.
	b.consume()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.ctx, cancel)()
	s, err := b.consuming.await(ctx)
	if err != nil {
		return nil, err
	}
	var ch *amqp.Channel
	for n, missing := shards, 0; n < maxShards && missing <= gap; n++ {
		if ch == nil {
			if ch, err = s.channel(); err != nil {
				return nil, b.target.explain(err)
			}
		}
		q, err := s.look(ctx, ch, n)
		if e, ok := errors.AsType[*amqp.Error](err); ok && e.Server && e.Code == amqp.NotFound {
			ch = nil // closed by the broker
			missing++
			continue
		}
		if err != nil {
			return nil, b.target.explain(err)
		}
		found = append(found, broker.Backlog{Shard: n, Envelopes: q.Messages})
		missing = 0
	}
	if ch != nil {
		_ = s.rpc(ch.Close)
	}
	return found, nil
}

// look asks for a shard's queue and makes none. After an error the channel is
// closed, or will be. A silent queue does not cost the connection, for the
// reason that subscription.open has.
func (s *session) look(ctx context.Context, ch *amqp.Channel, shard int) (amqp.Queue, error) {
	type result struct {
		queue amqp.Queue
		err   error
	}
	ctx, cancel := context.WithTimeout(ctx, s.broker.timing.rpc)
	defer cancel()
	looked := make(chan result) // it ends with the session at the latest
	go func() {
		q, err := ch.QueueDeclarePassive(queueName(shard), true, false, false, false, nil)
		select {
		case looked <- result{q, err}:
			if err == nil {
				return
			}
		case <-ctx.Done():
		}
		_ = s.rpc(ch.Close)
	}()
	select {
	case r := <-looked:
		return r.queue, r.err
	case <-s.gone:
		return amqp.Queue{}, s.cause
	case <-ctx.Done():
		return amqp.Queue{}, fmt.Errorf("no answer from the queue %s: %w", queueName(shard), context.Cause(ctx))
	}
}
