package rabbitmq

import (
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker/brokertest"
	"async-data-processor/message"
)

// TestDeadMessage: the dead letter of a message is an envelope of one, which
// says where it came from.
func TestDeadMessage(t *testing.T) {
	url := sharedNode(t)
	engine(t, url, url)
	b, _ := openBroker(t, url, defaultTiming)
	ready(t, b)
	line := []byte(`{"message_id":"S.1",`)
	body := "good\n" + string(line) + "\nbad\n"
	if err := brokertest.Publish(t.Context(), b, message.Envelope{ID: "E", Shard: 1, Count: 3, Body: []byte(body)}); err != nil {
		t.Fatal(err)
	}
	o := message.Outcome{Kind: message.DeadLetter, Reason: "of a batch", Dead: []message.Dead{
		{Line: line, Reason: "it is cut"}, {Line: []byte("bad"), Reason: "it has no id"},
	}}
	if err := next(t, consume(t, b, 1)).Settle(o); err != nil {
		t.Fatal(err)
	}
	admin(t, url, func(ch *amqp.Channel) error {
		for i, id := range []string{"S.1", "E"} {
			m, ok, err := ch.Get(deadQueue, false)
			if err != nil || !ok {
				t.Fatalf("no dead letter %d: %v", i, err)
			}
			if m.MessageId != id || m.Type != envelopeType || m.ContentType != contentType || m.DeliveryMode != amqp.Persistent {
				t.Errorf("dead letter %+v, want a persistent envelope %s", m, id)
			}
			if want := string(o.Dead[i].Line) + "\n"; string(m.Body) != want {
				t.Errorf("body %q, want %q", m.Body, want)
			}
			since, _ := m.Headers["time"].(string)
			if at, err := time.Parse(time.RFC3339Nano, since); err != nil || time.Since(at) > time.Minute {
				t.Errorf("dead since %v, %v", at, err)
			}
			for name, want := range map[string]any{
				"count": int64(1), "envelope": "E", "reason": o.Dead[i].Reason,
				"shard": int64(1), "queue": "async-data-processor.shard.1",
			} {
				if got := m.Headers[name]; got != want {
					t.Errorf("header %s is %v, want %v", name, got, want)
				}
			}
		}
		return nil
	})
}
