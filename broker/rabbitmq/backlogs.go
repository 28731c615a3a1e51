package rabbitmq

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
)

// firstGap is how many queues in a row an operator may have deleted without hiding
// those behind them from the first look.
const firstGap = 8

// Backlogs implements broker.Broker. AMQP has no list of queues, so they are
// asked for one by one. Each one that is missing costs a channel and an error
// in the log of RabbitMQ. So a look goes over the widest gap that the last one has
// found: it finds all of them again, and a new one that follows or fills a gap.
func (b *Broker) Backlogs(ctx context.Context, from int) (found []broker.Backlog, err error) {
	// Not the publishing connection: it is silent while the broker is short of
	// memory.
	err = b.conns.With(ctx, b.conns.Consuming, func(ctx context.Context, s *session) error {
		found, err = s.backlogs(ctx, max(from, 0))
		return err
	})
	return found, err
}

func (s *session) backlogs(ctx context.Context, from int) (found []broker.Backlog, err error) {
	b := s.broker
	b.mu.Lock()
	gap := b.gap
	b.mu.Unlock()
	var ch *amqp.Channel
	for n, missing := from, 0; n < maxShards && missing <= gap; n++ {
		if ch == nil {
			if ch, err = s.channel(); err != nil {
				return nil, b.target.explain(err)
			}
		}
		q, err := s.look(ctx, ch, n)
		switch e, ok := errors.AsType[*amqp.Error](err); {
		case ok && e.Server && e.Code == amqp.NotFound:
			ch = nil // closed by the broker
			if n >= b.cfg.Shards {
				missing++
			}
		case err != nil:
			return nil, b.target.explain(err)
		default:
			found = append(found, broker.Backlog{Shard: n, Envelopes: q.Messages})
			missing = 0
		}
	}
	if ch != nil {
		_ = s.rpc(ch.Close)
	}
	if from <= b.cfg.Shards {
		b.mu.Lock()
		b.gap = widestGap(b.cfg.Shards, found)
		b.mu.Unlock()
	}
	return found, nil
}

// Depths implements broker.Queues.
func (b *Broker) Depths(ctx context.Context, shards []int) (found []broker.Backlog, err error) {
	err = b.conns.With(ctx, b.conns.Consuming, func(ctx context.Context, s *session) error {
		found, err = depths(ctx, s, shards)
		return err
	})
	return found, err
}

func depths(ctx context.Context, s *session, shards []int) (found []broker.Backlog, err error) {
	var ch *amqp.Channel
	for _, n := range shards {
		if ch == nil {
			if ch, err = s.channel(); err != nil {
				return nil, s.broker.target.explain(err)
			}
		}
		q, err := s.look(ctx, ch, n)
		switch e, ok := errors.AsType[*amqp.Error](err); {
		case ok && e.Server && e.Code == amqp.NotFound:
			ch = nil // closed by the broker
		case err != nil:
			return nil, s.broker.target.explain(err)
		default:
			found = append(found, broker.Backlog{Shard: n, Envelopes: q.Messages})
		}
	}
	if ch != nil {
		_ = s.rpc(ch.Close)
	}
	return found, nil
}

// widestGap returns how many numbers in a row from shards on have no queue, at most,
// before the last one that has.
func widestGap(shards int, found []broker.Backlog) (gap int) {
	next := shards
	for _, b := range found {
		gap = max(gap, b.Shard-next)
		next = max(next, b.Shard+1)
	}
	return gap
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
	case <-s.Gone():
		return amqp.Queue{}, s.Cause()
	case <-ctx.Done():
		return amqp.Queue{}, fmt.Errorf("no answer from the queue %s: %w", queueName(shard), context.Cause(ctx))
	}
}
