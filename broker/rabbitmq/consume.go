package rabbitmq

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
	"async-data-processor/broker/conn"
	"async-data-processor/event"
	"async-data-processor/message"
)

// consumerTag is the same for all consumers: it only has to be unique in its
// channel, which has one.
const consumerTag = "async-data-processor"

// subscription is a consumer of one shard on a channel of its own. Its
// deliveries are settled there or nowhere.
type subscription struct {
	broker  *Broker
	session *session
	ch      *amqp.Channel
	shard   int

	// closing is set under the session's lock of writing. From then on nothing is
	// written: an acknowledgement that follows the close costs the connection.
	closing atomic.Bool

	mu        sync.Mutex // guards what follows
	tags      tags
	dirty     bool // acknowledgements are gathered, and the session knows
	unsettled int
	ended     bool // no more deliveries will come
}

// subscribe passes deliveries on until the intake is done or the subscription
// is lost. In the first case what was passed on can still be settled.
func (b *Broker) subscribe(intake context.Context, s *session, shard, prefetch int, deliveries chan<- *message.Delivery) error {
	ch, err := s.channel()
	if err != nil {
		return err
	}
	sub := &subscription{broker: b, session: s, ch: ch, shard: shard}
	cancels := ch.NotifyCancel(make(chan string, 1))
	closes := ch.NotifyClose(make(chan *amqp.Error, 1))
	messages, err := sub.open(intake, prefetch)
	if err != nil || messages == nil {
		return err
	}
	b.conns.Subscribed(shard)

	for {
		select {
		case m, ok := <-messages:
			if !ok {
				// What is unsettled goes stale. Else this subscription and a new one
				// together could have more than prefetch.
				sub.close()
				select {
				case tag, ok := <-cancels:
					if ok && tag != "" {
						return conn.ErrCancelled
					}
				default:
				}
				return b.target.explain(cmp.Or(<-closes, amqp.ErrClosed))
			}
			select {
			case deliveries <- sub.delivery(&m):
			case <-intake.Done():
				sub.settled()
				return sub.end(messages, m.DeliveryTag)
			case <-s.Gone(): // it cannot be settled any more
				return s.Cause()
			}
		case <-intake.Done():
			return sub.end(messages)
		}
	}
}

// open starts the consumer; without a queue's answer it waits until the intake
// is done, and then returns nil. It does not cut the connection for want of
// one: a single queue may be silent, as one that lost its leader, and the
// consumers of the others would pay for it with their delivery counts.
func (sub *subscription) open(intake context.Context, prefetch int) (<-chan amqp.Delivery, error) {
	b, s := sub.broker, sub.session
	type result struct {
		messages <-chan amqp.Delivery
		err      error
	}
	opened := make(chan result) // it ends with the session at the latest
	go func() {
		messages, err := sub.start(prefetch)
		select {
		case opened <- result{messages, err}:
		case <-intake.Done():
			sub.close()
		case <-s.Gone():
		}
	}()
	silent := time.After(b.timing.rpc)
	for {
		select {
		case r := <-opened:
			if r.err != nil {
				sub.close()
				return nil, b.target.explain(r.err)
			}
			return r.messages, nil
		case <-silent:
			err := fmt.Errorf("%s: no answer from the queue %s", b.target.name, queueName(sub.shard))
			b.conns.Unsubscribed(sub.shard, event.Unsubscribed, err, 0)
		case <-s.Gone():
			return nil, s.Cause()
		case <-intake.Done():
			return nil, nil
		}
	}
}

// start makes the queues, which may have been deleted since the session made
// them, and the consumer.
func (sub *subscription) start(prefetch int) (<-chan amqp.Delivery, error) {
	if err := declare(sub.ch, deadLetters()); err != nil {
		return nil, err
	}
	if err := declare(sub.ch, shardQueue(sub.shard)); err != nil {
		return nil, err
	}
	if err := sub.ch.Qos(prefetch, 0, false); err != nil {
		return nil, fmt.Errorf("setting the prefetch: %w", err)
	}
	messages, err := sub.ch.Consume(queueName(sub.shard), consumerTag, false, false, false, false, nil)
	if err != nil {
		return nil, fmt.Errorf("consuming %s: %w", queueName(sub.shard), err)
	}
	return messages, nil
}

// end cancels the consumer and returns what was not passed on: the deliveries of
// the tags, and what is still to come. It uses nack, which RabbitMQ from 4.3 does not
// count as a failed delivery.
func (sub *subscription) end(messages <-chan amqp.Delivery, tags ...uint64) error {
	// Without an answer the connection is given up, and messages closed.
	err := sub.session.rpc(func() error { return sub.ch.Cancel(consumerTag, false) })
	if err != nil {
		sub.close()
	}
	for m := range messages {
		tags = append(tags, m.DeliveryTag)
	}
	sub.session.settling.writing.Lock()
	sub.session.together(func() {
		for _, tag := range tags {
			_ = sub.ch.Nack(tag, false, true) // an error: the broker returns it itself
		}
	})
	sub.session.settling.writing.Unlock()
	sub.mu.Lock()
	sub.ended = true
	idle := sub.unsettled == 0
	sub.mu.Unlock()
	if idle {
		sub.close()
	}
	return err
}

// close gives up the channel; the broker returns what is unsettled on it.
func (sub *subscription) close() {
	s := sub.session
	s.settling.writing.Lock()
	s.writeAcks()
	sub.closing.Store(true)
	s.settling.writing.Unlock()
	_ = s.rpc(sub.ch.Close)
}

// delivery makes a delivery of a message. The decoder judges the body; here
// only the envelope is read.
func (sub *subscription) delivery(m *amqp.Delivery) *message.Delivery {
	sub.mu.Lock()
	sub.unsettled++
	sub.tags.receive(m.DeliveryTag)
	sub.mu.Unlock()
	return message.NewDelivery(envelopeOf(m, sub.shard), m.Redelivered, func(o message.Outcome) error { return sub.settle(m, o) })
}

func envelopeOf(m *amqp.Delivery, shard int) message.Envelope {
	e := message.Envelope{ID: m.MessageId, Shard: shard, Count: 1, Body: m.Body, Foreign: m.Type != envelopeType}
	if !e.Foreign {
		e.Count = count(m)
		if text, ok := m.Headers[attributesHeader].(string); ok {
			e.Attributes = broker.DecodeAttributes(text)
		}
	}
	return e
}

// count is the number of messages that an envelope announces, 0 if it does not
// or cannot hold so many. Who reads the envelope may reserve room for it.
func count(m *amqp.Delivery) int {
	n, ok := number(m.Headers[countHeader])
	if !ok || n < 0 || n > int64(len(m.Body)) {
		return 0
	}
	return int(n)
}

// number reads any integer of an AMQP table.
func number(v any) (int64, bool) {
	switch n := v.(type) {
	case int64:
		return n, true
	case int32:
		return int64(n), true
	case int16:
		return int64(n), true
	case int8:
		return int64(n), true
	case uint8:
		return int64(n), true
	case uint16:
		return int64(n), true
	case uint32:
		return int64(n), true
	default:
		return 0, false
	}
}
