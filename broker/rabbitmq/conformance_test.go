package rabbitmq

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/event"
)

// TestConformance runs the suite of all brokers on real nodes.
func TestConformance(t *testing.T) {
	sharedNode(t)
	private.start() // it takes its time, while the first tests need none of it
	brokertest.Run(t, brokertest.Harness{Fresh: func(t *testing.T, disturb bool) *brokertest.Engine {
		if disturb {
			return disturbed(t)
		}
		url := sharedNode(t)
		p := brokertest.NewProxy(t, hostOf(url))
		e := engine(t, url, withHost(url, p.Addr()))
		e.Break = func(testing.TB) { p.Cut() }
		e.Lose = func(_ testing.TB, what brokertest.Loss) { p.Lose(what) }
		return e
	}})
}

// disturbed is the private node as an engine.
func disturbed(t *testing.T) *brokertest.Engine {
	url := privateNode(t)
	e := engine(t, url, url)
	do := func(args ...string) func(testing.TB) {
		return func(t testing.TB) { t.Helper(); private.must(t, args...) }
	}
	e.Stop, e.Start = do("stop"), do("start")
	e.Stall, e.Resume = do("pause"), do("resume")
	e.Block = do("ctl", "set_vm_memory_high_watermark", "0.00001")
	e.Unblock = do("ctl", "set_vm_memory_high_watermark", "0.4")
	return e
}

// engine is a node with empty queues; clients reach it by another URL.
func engine(t *testing.T, node, clients string) *brokertest.Engine {
	deleteQueue(t, node, deadQueue)
	for shard := range brokertest.MaxShards {
		settleQueue(t, node, queueName(shard))
		deleteQueue(t, node, queueName(shard))
	}
	return &brokertest.Engine{
		Open: func(t testing.TB, events event.Sink) broker.Broker {
			b, err := New(Config{URL: clients, Shards: brokertest.Shards, Events: events})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		OpenShards: func(t testing.TB, shards int) broker.Broker {
			b, err := New(Config{URL: clients, Shards: shards})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		Depth: func(t testing.TB, shard int) (depth int) {
			admin(t, node, func(ch *amqp.Channel) error {
				q, err := ch.QueueDeclarePassive(queueName(shard), true, false, false, false, nil)
				depth = q.Messages
				return err
			})
			return depth
		},
		DeadLetters: func(t testing.TB) []brokertest.DeadLetter { return deadLettersOf(t, node) },
		PublishForeign: func(t testing.TB, shard int, id string, body []byte) {
			foreign(t, node, shard, amqp.Publishing{MessageId: id, ContentType: "application/json", Body: body})
		},
		BusForeign: func(t testing.TB, key, reply string, body []byte) {
			admin(t, node, func(ch *amqp.Channel) error {
				return ch.Publish(busExchange, key, false, false, amqp.Publishing{ReplyTo: reply, Body: body})
			})
		},
		BusForeignReplies: []string{queueName(0), replyTo, replyToPrefix, replyToPrefix + "x", replyToPrefix + "g2dkABB4"},
		DeleteQueue:       func(t testing.TB, shard int) { deleteQueue(t, node, queueName(shard)) },
	}
}

func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		panic(err)
	}
	return u.Host
}

// admin does something on a channel of its own.
func admin(t testing.TB, url string, do func(*amqp.Channel) error) {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err == nil {
		err = do(ch)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func deleteQueue(t testing.TB, url, name string) {
	t.Helper()
	admin(t, url, func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(name, false, false, false)
		return err
	})
}

// settleQueue makes sure that a queue may be deleted, if there is one.
//
// RabbitMQ 3.10 starts a process for each queue that dead-letters at least once,
// when the queue gets its leader, as after a restart. If the queue is deleted just
// then, that process dies, and if two of them do, so does their supervisor
// (rabbit_fifo_dlx_sup, which is not started again): from then on, until the node is
// restarted, every such queue loses its leader at the first publish, and the
// publisher its connection, by 541 INTERNAL_ERROR. What the queue confirms comes
// after what its process began with.
func settleQueue(t testing.TB, url, name string) {
	t.Helper()
	admin(t, url, func(ch *amqp.Channel) error {
		if err := ch.Confirm(false); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		for range 2 {
			c, err := ch.PublishWithDeferredConfirm("", name, false, false, amqp.Publishing{})
			if err != nil {
				return err
			}
			if _, err := c.WaitContext(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

// foreign publishes as another program would.
func foreign(t testing.TB, url string, shard int, msg amqp.Publishing) {
	t.Helper()
	publishTo(t, url, queueName(shard), msg)
}

func publishTo(t testing.TB, url, queue string, msg amqp.Publishing) {
	t.Helper()
	admin(t, url, func(ch *amqp.Channel) error {
		if err := ch.Confirm(false); err != nil {
			return err
		}
		c, err := ch.PublishWithDeferredConfirm("", queue, true, false, msg)
		if err == nil && !c.Wait() {
			t.Fatal("the message was not taken")
		}
		return err
	})
}

// deadLettersOf reads the dead-letter queue; closing the channel puts all back.
func deadLettersOf(t testing.TB, url string) (dead []brokertest.DeadLetter) {
	t.Helper()
	admin(t, url, func(ch *amqp.Channel) error {
		for {
			m, ok, err := ch.Get(deadQueue, false)
			if err != nil || !ok {
				return err
			}
			dead = append(dead, deadLetterOf(t, &m))
		}
	})
	return dead
}

func deadLetterOf(t testing.TB, m *amqp.Delivery) brokertest.DeadLetter {
	t.Helper()
	d := brokertest.DeadLetter{ID: m.MessageId, Body: m.Body, Shard: -1}
	if deaths, ok := m.Headers["x-death"].([]any); ok && len(deaths) > 0 {
		death, _ := deaths[0].(amqp.Table)
		d.Reason, _ = death["reason"].(string)
		d.Time, _ = death["time"].(time.Time)
		d.Shard = shardOf(death["queue"])
		return d
	}
	d.Reason, _ = m.Headers[reasonHeader].(string)
	when, _ := m.Headers[timeHeader].(string)
	d.Time, _ = time.Parse(time.RFC3339Nano, when)
	if shard, ok := number(m.Headers[shardHeader]); ok && queueName(int(shard)) == m.Headers[queueHeader] {
		d.Shard = int(shard)
	}
	if m.DeliveryMode != amqp.Persistent {
		t.Errorf("dead letter %q is not persistent", m.MessageId)
	}
	return d
}

func shardOf(queue any) int {
	name, _ := queue.(string)
	for shard := range brokertest.Shards {
		if strings.HasSuffix(name, queueName(shard)) {
			return shard
		}
	}
	return -1
}
