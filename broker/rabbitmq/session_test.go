package rabbitmq

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/event"
	"async-data-processor/message"
)

// TestContract: the queues' arguments and the envelopes' properties are what
// other programs rely on. Declaring a queue succeeds only with its arguments.
func TestContract(t *testing.T) {
	url := sharedNode(t)
	engine(t, url, url)
	b, _ := openBroker(t, url, defaultTiming)
	ready(t, b)
	admin(t, url, func(ch *amqp.Channel) error {
		for shard := range brokertest.Shards {
			_, err := ch.QueueDeclare(fmt.Sprint("async-data-processor.shard.", shard), true, false, false, false, amqp.Table{
				"x-queue-type":              "quorum",
				"x-single-active-consumer":  true,
				"x-delivery-limit":          int32(broker.DeliveryLimit),
				"x-dead-letter-exchange":    "",
				"x-dead-letter-routing-key": "async-data-processor.dead",
				"x-dead-letter-strategy":    "at-least-once",
				"x-overflow":                "reject-publish",
			})
			if err != nil {
				return err
			}
		}
		_, err := ch.QueueDeclare("async-data-processor.dead", true, false, false, false, amqp.Table{
			"x-queue-type": "quorum", "x-delivery-limit": int32(math.MaxInt32),
		})
		return err
	})
	if err := brokertest.Publish(t.Context(), b, message.Envelope{ID: "an-id", Shard: 1, Count: 2, Body: []byte("a\nb\n")}); err != nil {
		t.Fatal(err)
	}
	admin(t, url, func(ch *amqp.Channel) error {
		messages, err := ch.Consume("async-data-processor.shard.1", "", true, false, false, false, nil)
		if err != nil {
			return err
		}
		m := <-messages
		count, _ := number(m.Headers["count"])
		if m.MessageId != "an-id" || m.Type != "async-data-processor.envelope.v1" || m.ContentType != "application/x-ndjson" ||
			m.DeliveryMode != amqp.Persistent || count != 2 || len(m.Headers) != 1 || string(m.Body) != "a\nb\n" {
			t.Errorf("published as %+v", m)
		}
		return nil
	})
}

// TestOtherArguments: a queue declared before, otherwise, is named together
// with the argument; once it is gone, all goes well without a restart.
func TestOtherArguments(t *testing.T) {
	url := sharedNode(t)
	engine(t, url, url)
	admin(t, url, func(ch *amqp.Channel) error {
		other := shardQueue(1).args
		other["x-delivery-limit"] = 5
		_, err := ch.QueueDeclare(queueName(1), true, false, false, false, other)
		return err
	})
	b, heard := openBroker(t, url, quick())
	soon(t, "told", func() bool { _, ok := heard.find(event.Unreachable, "publish"); return ok })
	lost, _ := heard.find(event.Unreachable, "publish")
	for _, err := range []error{b.Ready(), lost.Err} {
		for _, want := range []string{queueName(1), "x-delivery-limit", "drain and delete it", b.target.name} {
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want one line with %q", err, want)
			}
		}
	}
	if lost.Retry < quick().Refused/2 {
		t.Errorf("tries again after %v already", lost.Retry)
	}
	if err := brokertest.Publish(t.Context(), b, message.Envelope{ID: "x", Count: 1}); !errors.Is(err, broker.ErrRejected) {
		t.Errorf("Publish: %v, want ErrRejected", err)
	}
	deleteQueue(t, url, queueName(1))
	ready(t, b)
}

// TestNoAccess: who is refused is told so, without the password.
func TestNoAccess(t *testing.T) {
	node := sharedNode(t)
	const secret = "wr0ng"
	for want, url := range map[string]string{
		"password":           strings.Replace(node, "guest:guest@", "guest:"+secret+"@", 1),
		"virtual host":       withPath(node, "/none-of-these"),
		"connection refused": withHost(node, "127.0.0.1:1"),
	} {
		t.Run(want, func(t *testing.T) {
			b, heard := openBroker(t, url, quick())
			soon(t, "told", func() bool { _, ok := heard.find(event.Unreachable, "publish"); return ok })
			err := b.Ready()
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), b.target.name) {
				t.Errorf("%v, want %q and %q", err, want, b.target.name)
			}
			heard.mu.Lock()
			defer heard.mu.Unlock()
			if strings.Contains(fmt.Sprint(err, heard.all), secret) {
				t.Errorf("%v holds the password", err)
			}
		})
	}
}

// TestStrangeMessages: whatever others put into a queue comes through, and can
// be moved away.
func TestStrangeMessages(t *testing.T) {
	url := sharedNode(t)
	e := engine(t, url, url)
	b, _ := openBroker(t, url, defaultTiming)
	ready(t, b)
	deliveries := consume(t, b, 0)
	longest := strings.Repeat("x", 255)
	for _, c := range []struct {
		name string
		msg  amqp.Publishing
		want message.Envelope
	}{
		{"lying count", amqp.Publishing{Type: envelopeType, MessageId: "a", Headers: amqp.Table{"count": int64(math.MaxInt64)}, Body: []byte("x\n")}, message.Envelope{ID: "a"}},
		{"no count", amqp.Publishing{Type: envelopeType, MessageId: "b", Body: []byte("x\n")}, message.Envelope{ID: "b"}},
		{"empty", amqp.Publishing{}, message.Envelope{Count: 1, Foreign: true}},
		{"later version", amqp.Publishing{Type: "async-data-processor.envelope.v2", MessageId: "c", Headers: amqp.Table{"count": 9}}, message.Envelope{ID: "c", Count: 1, Foreign: true}},
		// Headers that route, an expiry and a user would do harm if repeated.
		{"full of properties", amqp.Publishing{
			MessageId: longest, Type: longest, ContentType: longest, ContentEncoding: longest, CorrelationId: longest, ReplyTo: longest,
			AppId: longest, Priority: 9, Timestamp: time.Unix(1, 0), Headers: amqp.Table{"CC": []any{queueName(1)}, "big": strings.Repeat("x", 100<<10)},
		}, message.Envelope{ID: longest, Count: 1, Foreign: true}},
		{"20 MiB", amqp.Publishing{MessageId: "d", Body: bytes.Repeat([]byte{1}, 20<<20)}, message.Envelope{ID: "d", Count: 1, Foreign: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			foreign(t, url, 0, c.msg)
			d := next(t, deliveries)
			if d.ID != c.want.ID || d.Count != c.want.Count || d.Foreign != c.want.Foreign || !bytes.Equal(d.Body, c.msg.Body) {
				t.Errorf("id %.20q, count %d, foreign %v, %d bytes", d.ID, d.Count, d.Foreign, len(d.Body))
			}
			before := len(e.DeadLetters(t))
			if err := d.Settle(message.Outcome{Kind: message.DeadLetter, Reason: c.name}); err != nil {
				t.Fatal(err)
			}
			dead := e.DeadLetters(t)
			if len(dead) != before+1 {
				t.Fatalf("%d dead letters, want %d", len(dead), before+1)
			}
			last := dead[before]
			if last.ID != c.msg.MessageId || last.Reason != c.name || !bytes.Equal(last.Body, c.msg.Body) {
				t.Errorf("dead letter %.20q, %q, %d bytes", last.ID, last.Reason, len(last.Body))
			}
		})
	}
	if got := e.Depth(t, 1); got != 1 {
		t.Errorf("%d copies went to the other shard, want the one that its sender sent", got)
	}
}

// TestDeadLetterQueueMissing: a dead letter waits for its queue.
func TestDeadLetterQueueMissing(t *testing.T) {
	url := sharedNode(t)
	e := engine(t, url, url)
	b, heard := openBroker(t, url, defaultTiming)
	ready(t, b)
	foreign(t, url, 0, amqp.Publishing{MessageId: "poison", Body: []byte("x")})
	d := next(t, consume(t, b, 0))
	deleteQueue(t, url, deadQueue)
	if err := d.Settle(message.Outcome{Kind: message.DeadLetter, Reason: "poison"}); err != nil {
		t.Fatal(err)
	}
	if dead := e.DeadLetters(t); len(dead) != 1 || dead[0].ID != "poison" {
		t.Errorf("dead letters %+v", dead)
	}
	if n, ok := first[event.DeadLettered](heard); !ok || n.Shard != 0 || n.Err == nil {
		t.Errorf("told %+v", n)
	}
}

// TestDeadLetterImpossible: what cannot become a dead letter is returned, slowly.
func TestDeadLetterImpossible(t *testing.T) {
	url := sharedNode(t)
	e := engine(t, url, url)
	tm := quick()
	tm.repair = time.Hour
	b, heard := openBroker(t, url, tm)
	ready(t, b)
	foreign(t, url, 0, amqp.Publishing{MessageId: "poison", Body: []byte("x")})
	deliveries, stop := consumeUntil(t, b, 0)
	d := next(t, deliveries)
	deleteQueue(t, url, deadQueue)
	settled := make(chan error, 1)
	go func() { settled <- d.Settle(message.Outcome{Kind: message.DeadLetter, Reason: "poison"}) }()
	soon(t, "told", func() bool {
		_, ok := first[event.DeadLetterFailed](heard)
		return ok
	})
	select {
	case err := <-settled:
		t.Errorf("given up although the consumer goes on: %v", err)
	case d := <-deliveries:
		t.Errorf("%q comes again", d.ID)
	default:
	}
	stop()
	// The last try may be cut off by the time-out.
	if err := <-settled; !errors.Is(err, broker.ErrRejected) && !errors.Is(err, broker.ErrUnknown) {
		t.Errorf("%v, want ErrRejected or ErrUnknown", err)
	}
	if n, ok := first[event.DeadLettered](heard); ok {
		t.Errorf("told %+v", n)
	}
	_ = b.Close()
	soon(t, "back in its queue", func() bool { return e.Depth(t, 0) == 1 })
}

// TestShardBeyond: a queue left by a larger number of shards can be drained.
func TestShardBeyond(t *testing.T) {
	url := sharedNode(t)
	engine(t, url, url)
	t.Cleanup(func() { deleteQueue(t, url, queueName(brokertest.Shards)) })
	b, _ := openBroker(t, url, defaultTiming)
	ready(t, b)
	deliveries := consume(t, b, brokertest.Shards)
	soon(t, "connected", func() bool {
		_, err := b.conns.Consuming.Current()
		return err == nil
	})
	other, err := newBroker(Config{URL: url, Shards: brokertest.Shards + 1}, defaultTiming)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ready(t, other)
	if err := brokertest.Publish(t.Context(), other, message.Envelope{ID: "old", Shard: brokertest.Shards, Count: 1, Body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if d := next(t, deliveries); d.ID != "old" || d.Shard != brokertest.Shards {
		t.Errorf("%+v", d.Envelope)
	}
}

// TestSubscriptionRefused: a connection is not enough to be ready.
func TestSubscriptionRefused(t *testing.T) {
	url := sharedNode(t)
	engine(t, url, url)
	const shard = brokertest.Shards - 1
	b, heard := openBroker(t, url, quick())
	consume(t, b, 0)
	soon(t, "connected", func() bool {
		_, ok := heard.find(event.Connected, "consume")
		return ok && b.Ready() == nil
	})
	deleteQueue(t, url, queueName(shard))
	admin(t, url, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(queueName(shard), true, false, false, false, amqp.Table{"x-queue-type": "classic"})
		return err
	})
	deliveries := consume(t, b, shard)
	soon(t, "not ready", func() bool {
		err := b.Ready()
		return err != nil && strings.Contains(err.Error(), queueName(shard)) && strings.Contains(err.Error(), "inequivalent arg")
	})
	if n, ok := heard.find(event.Unsubscribed, "consume"); !ok || n.Shard != shard || n.Retry < quick().Refused/2 {
		t.Errorf("told %+v, want it of shard %d with a slow retry", n, shard)
	}
	deleteQueue(t, url, queueName(shard))
	t.Cleanup(func() { deleteQueue(t, url, queueName(shard)) })
	ready(t, b)
	foreign(t, url, shard, amqp.Publishing{MessageId: "x"})
	next(t, deliveries)
}

// TestSilentBroker: without an answer, heartbeats tell that the connection is
// dead, and Close does not wait for long.
func TestSilentBroker(t *testing.T) {
	url := sharedNode(t)
	engine(t, url, url)
	p := brokertest.NewProxy(t, hostOf(url))
	b, heard := openBroker(t, withHost(url, p.Addr()), quick())
	ready(t, b)
	deliveries := consume(t, b, 0)
	if err := brokertest.Publish(t.Context(), b, message.Envelope{ID: "x", Count: 1, Body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	next(t, deliveries)
	p.Lose(brokertest.Answers)
	soon(t, "told of both connections", func() bool {
		_, publish := heard.find(event.Lost, "publish")
		_, consume := heard.find(event.Lost, "consume")
		return publish && consume
	})
	p.Cut()
	ready(t, b)
	d := next(t, deliveries)
	p.Lose(brokertest.Answers)
	if err := d.Settle(message.Outcome{}); err != nil {
		t.Errorf("settling into a silent connection: %v", err)
	}
	began := time.Now()
	if err := b.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("Close took %v", took)
	}
}

// TestClosedByOperator: the broker's own word is passed on.
func TestClosedByOperator(t *testing.T) {
	url := privateNode(t)
	engine(t, url, url)
	b, heard := openBroker(t, url, defaultTiming)
	ready(t, b)
	private.must(t, "ctl", "close_all_connections", "go home")
	soon(t, "told", func() bool { _, ok := heard.find(event.Lost, "publish"); return ok })
	if n, _ := heard.find(event.Lost, "publish"); !strings.Contains(n.Err.Error(), "go home") {
		t.Errorf("told %q, want the broker's reason", n.Err)
	}
	ready(t, b)
}
