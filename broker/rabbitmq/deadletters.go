package rabbitmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/backoff"
	"async-data-processor/broker"
	"async-data-processor/message"
)

// DeadLetters implements broker.Broker. It holds what it has seen, unacknowledged, so
// that no other call could see it meanwhile. Others wait for it therefore.
func (b *Broker) DeadLetters(ctx context.Context, decide func(broker.DeadLetter) broker.Verdict) error {
	select {
	case b.visiting <- struct{}{}: // the lock below is the connection's
		defer func() { <-b.visiting }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return b.conns.With(ctx, b.conns.Consuming, func(ctx context.Context, s *session) error {
		v := &visit{broker: b, session: s}
		err := v.lock(ctx)
		if err != nil {
			return b.target.explain(err)
		}
		err = v.each(ctx, decide)
		// The channel's end is also the word that the removals have arrived.
		end := v.putBack()
		v.unlock()
		if end = cmp.Or(end, s.rpc(v.ch.Close)); err == nil && end != nil {
			err = b.target.explain(end)
		}
		return err
	})
}

// lockPause is how long a visit waits before it asks again whether another one is over.
const lockPause = 50 * time.Millisecond

// lock waits until no other process visits the dead letters, and keeps others out until
// unlock, or until the connection ends. The lock is a queue that only one connection may
// have (rabbitmq.com/docs/queues#exclusive-queues).
func (v *visit) lock(ctx context.Context) error {
	for {
		ch, err := v.session.channel()
		if err != nil {
			return err
		}
		err = v.session.rpc(func() error {
			_, err := ch.QueueDeclare(deadLock, false, false, true, false, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeClassic})
			return err
		})
		if err == nil {
			v.ch = ch
			return nil
		}
		if e, ok := errors.AsType[*amqp.Error](err); !ok || e.Code != amqp.ResourceLocked {
			return err
		}
		if !backoff.Sleep(ctx, lockPause) {
			return context.Cause(ctx)
		}
	}
}

// unlock lets others in. The channel may be closed by now.
func (v *visit) unlock() {
	s := v.session
	unlock := func(ch *amqp.Channel) error {
		return s.rpc(func() error {
			_, err := ch.QueueDelete(deadLock, false, false, false)
			return err
		})
	}
	if unlock(v.ch) == nil {
		return
	}
	if ch, err := s.channel(); err == nil {
		_ = unlock(ch) // it fails with the connection, which has unlocked it then
		_ = s.rpc(ch.Close)
	}
}

// visit is one look at the dead-letter queue, on a channel of its own.
type visit struct {
	broker  *Broker
	session *session
	ch      *amqp.Channel
	kept    []uint64 // delivery tags of what is left there, the oldest first
}

// each takes one message after the other: a consumer would be sent all of them
// at once. What comes while it runs is none of those that were there.
func (v *visit) each(ctx context.Context, decide func(broker.DeadLetter) broker.Verdict) error {
	for left := -1; left != 0; left-- {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		m, ok, err := v.next()
		if err != nil {
			return v.broker.target.explain(err)
		}
		if !ok {
			return nil
		}
		if left < 0 {
			left = int(m.MessageCount) + 1 // behind it, and itself
		}
		letter := letterOf(&m)
		verdict := decide(letter)
		if verdict == broker.Replay {
			err = v.replay(ctx, &m, letter.Envelope.Shard)
		}
		if verdict == broker.Keep || err != nil {
			v.kept = append(v.kept, m.DeliveryTag)
		} else if err = v.ch.Ack(m.DeliveryTag, false); err != nil {
			err = v.broker.target.explain(err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *visit) next() (m amqp.Delivery, ok bool, err error) {
	err = v.session.rpc(func() error {
		m, ok, err = v.ch.Get(deadQueue, false)
		return err
	})
	return m, ok, err
}

// replay publishes a message to the queue of its shard as it once came there.
func (v *visit) replay(ctx context.Context, m *amqp.Delivery, shard int) error {
	b := v.broker
	if shard < 0 {
		return broker.ErrNoOrigin
	}
	if shard >= b.cfg.Shards { // the others' are declared with the connection
		if err := v.session.rpc(func() error { return declare(v.ch, shardQueue(shard)) }); err != nil {
			return b.target.explain(err)
		}
	}
	return b.conns.Publish(ctx, func(ctx context.Context, s *session) error {
		return s.publish(ctx, queueName(shard), again(m, amqp.Table{})) // without what it got as a dead letter
	})
}

// returnsAtOnce is how many returns may be under way: with some more, 32 by
// default, RabbitMQ gathers them and loses their order.
const returnsAtOnce = 16

// putBack returns what was kept, in its order. If others take letters meanwhile, it waits
// for none any more: that costs the order, and nothing else.
func (v *visit) putBack() error {
	patient := true
	for len(v.kept) > 0 {
		ready, err := v.ready()
		if err != nil {
			return err
		}
		n := min(len(v.kept), returnsAtOnce)
		for _, tag := range v.kept[:n] {
			if err := v.ch.Nack(tag, false, true); err != nil {
				return err
			}
		}
		v.kept = v.kept[n:]
		want, late := ready+n, time.Now().Add(v.broker.timing.rpc)
		for patient && ready < want {
			if ready, err = v.ready(); err != nil {
				return err
			}
			patient = time.Now().Before(late)
		}
	}
	return nil
}

// ready counts the dead letters that are not handed out.
func (v *visit) ready() (n int, err error) {
	err = v.session.rpc(func() error {
		q, err := v.ch.QueueDeclarePassive(deadQueue, true, false, false, false, nil)
		n = q.Messages
		return err
	})
	return n, err
}

// letterOf reads what a message in the dead-letter queue tells. The word of
// the broker counts before the headers, which may be those of another program.
func letterOf(m *amqp.Delivery) broker.DeadLetter {
	l := broker.DeadLetter{Envelope: envelopeOf(m, -1)}
	if l.Envelope.ID == "" {
		l.Envelope.ID = message.KeyedID("", m.Body)
	}
	if death, ok := lastDeath(m.Headers); ok {
		l.Origin, _ = death["queue"].(string)
		l.Time, _ = death["time"].(time.Time)
		l.Reason, _ = death["reason"].(string)
		switch l.Reason {
		case "delivery_limit":
			l.Reason = fmt.Sprintf("it came back too often, the limit is %d times", broker.DeliveryLimit)
		case "expired":
			l.Reason = "it waited for too long; remove the policy with message-ttl from the queue"
		case "maxlen":
			l.Reason = "the queue was full; remove the policy with max-length from it"
		}
	} else {
		l.Origin, _ = m.Headers[queueHeader].(string)
		l.Reason, _ = m.Headers[reasonHeader].(string)
		when, _ := m.Headers[timeHeader].(string)
		l.Time, _ = time.Parse(time.RFC3339Nano, when)
	}
	l.Time = broker.LetterTime(l.Time)
	l.Envelope.Shard = shardOfQueue(l.Origin)
	return l
}

// lastDeath is the newest entry of x-death, with which the broker marks what it
// has moved itself (rabbitmq.com/docs/dlx).
func lastDeath(headers amqp.Table) (amqp.Table, bool) {
	deaths, _ := headers["x-death"].([]any)
	if len(deaths) == 0 {
		return nil, false
	}
	death, ok := deaths[0].(amqp.Table)
	return death, ok
}

// shardOfQueue is the number of the shard whose queue has the name, -1 if none has.
func shardOfQueue(queue string) int {
	shard, err := strconv.Atoi(strings.TrimPrefix(queue, queuePrefix))
	if err != nil || shard < 0 || shard >= maxShards || queueName(shard) != queue {
		return -1
	}
	return shard
}
