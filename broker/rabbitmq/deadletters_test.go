package rabbitmq

import (
	"errors"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/message"
)

// TestLetterOf: the broker's own word comes before headers, which any program
// can set.
func TestLetterOf(t *testing.T) {
	settled := amqp.Table{reasonHeader: "not JSON", queueHeader: queueName(3), shardHeader: int64(3), timeHeader: "2026-01-02T03:04:05.678+01:00"}
	death := amqp.Table{"reason": "delivery_limit", "queue": queueName(4), "time": time.Unix(1700000000, 0), "count": int64(1)}
	moved := amqp.Table{reasonHeader: "mine", queueHeader: "mine", "x-death": []any{death, amqp.Table{"queue": "older"}}}
	for _, c := range []struct {
		name    string
		headers amqp.Table
		want    broker.DeadLetter
	}{
		{"settled", settled, broker.DeadLetter{
			Envelope: message.Envelope{Shard: 3}, Reason: "not JSON", Origin: queueName(3),
			Time: time.Date(2026, 1, 2, 2, 4, 5, 678e6, time.UTC),
		}},
		{"moved by the broker", moved, broker.DeadLetter{
			Envelope: message.Envelope{Shard: 4}, Reason: "it came back too often, the limit is 100 times", Origin: queueName(4),
			Time: time.Unix(1700000000, 0).UTC(),
		}},
		{"without headers", nil, broker.DeadLetter{Envelope: message.Envelope{Shard: -1}}},
		{"from elsewhere", amqp.Table{queueHeader: "orders"}, broker.DeadLetter{Envelope: message.Envelope{Shard: -1}, Origin: "orders"}},
		{"of no shard", amqp.Table{queueHeader: queuePrefix + "03"}, broker.DeadLetter{Envelope: message.Envelope{Shard: -1}, Origin: queuePrefix + "03"}},
		{"of a year that JSON cannot tell", amqp.Table{timeHeader: "9999-12-31T23:59:59-23:59"}, broker.DeadLetter{Envelope: message.Envelope{Shard: -1}}},
		{"of a year before", amqp.Table{timeHeader: "0000-01-01T00:00:00+23:59"}, broker.DeadLetter{Envelope: message.Envelope{Shard: -1}}},
		{"of other types", amqp.Table{queueHeader: 3, timeHeader: 3, "x-death": []any{"x"}}, broker.DeadLetter{Envelope: message.Envelope{Shard: -1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := letterOf(&amqp.Delivery{MessageId: "id", Headers: c.headers})
			if got.Envelope.ID != "id" || got.Envelope.Shard != c.want.Envelope.Shard || got.Reason != c.want.Reason ||
				got.Origin != c.want.Origin || !got.Time.Equal(c.want.Time) || got.Time.Location() != time.UTC {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// publishDead publishes straight to the dead letters.
func publishDead(t *testing.T, url string, msg amqp.Publishing) {
	t.Helper()
	publishTo(t, url, deadQueue, msg)
}

func replayAll(t *testing.T, b *Broker) error {
	t.Helper()
	return b.DeadLetters(t.Context(), func(broker.DeadLetter) broker.Verdict { return broker.Replay })
}

// TestReplayWithoutOrigin: what could go nowhere stays.
func TestReplayWithoutOrigin(t *testing.T) {
	url := sharedNode(t)
	engine(t, url, url)
	b, _ := openBroker(t, url, quick())
	ready(t, b)
	publishDead(t, url, amqp.Publishing{MessageId: "lost", DeliveryMode: amqp.Persistent, Body: []byte("{}")})
	if err := replayAll(t, b); !errors.Is(err, broker.ErrNoOrigin) {
		t.Errorf("%v, want ErrNoOrigin", err)
	}
	soon(t, "it stays", func() bool { return len(deadLettersOf(t, url)) == 1 })
}

// TestReplayBeyondShards: the queue that an earlier, larger number of shards
// has left may be gone by now.
func TestReplayBeyondShards(t *testing.T) {
	url := sharedNode(t)
	engine(t, url, url)
	const shard = brokertest.Shards + 5
	deleteQueue(t, url, queueName(shard))
	t.Cleanup(func() { deleteQueue(t, url, queueName(shard)) })
	b, _ := openBroker(t, url, quick())
	ready(t, b)
	publishDead(t, url, amqp.Publishing{
		MessageId: "old", Type: envelopeType, Body: []byte("{}\n"),
		Headers: amqp.Table{queueHeader: queueName(shard), countHeader: int64(1), "CC": []any{deadQueue}},
	})
	if err := replayAll(t, b); err != nil {
		t.Fatal(err)
	}
	d := next(t, consume(t, b, shard))
	if d.ID != "old" || d.Count != 1 || d.Foreign || string(d.Body) != "{}\n" {
		t.Errorf("got %+v", d.Envelope)
	}
	if err := d.Settle(message.Outcome{Kind: message.Ack}); err != nil {
		t.Error(err)
	}
	if left := deadLettersOf(t, url); len(left) > 0 { // CC of another program would put it there again
		t.Errorf("dead letters are left: %+v", left)
	}
}
