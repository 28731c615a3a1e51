package rabbitmq

import (
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/event"
	"async-data-processor/message"
)

// TestPolicies: what a policy takes out of a queue of a shard is a dead letter that
// names the policy, and can be replayed.
func TestPolicies(t *testing.T) {
	url := privateNode(t)
	private.must(t, "ctl", "add_vhost", "policies")
	private.must(t, "ctl", "set_permissions", "-p", "policies", "guest", ".*", ".*", ".*")
	private.must(t, "ctl", "set_policy", "-p", "policies", "--apply-to", "queues", "old", "shard.0$", `{"message-ttl":10}`)
	t.Cleanup(func() { private.must(t, "ctl", "delete_vhost", "policies") })
	b, _ := openBroker(t, withPath(url, "/policies"), quick())
	ready(t, b)
	e := envelope(0)
	publishUntil(t, b, e)
	var letters []broker.DeadLetter
	soon(t, "the dead letter", func() bool {
		letters = nil
		err := b.DeadLetters(t.Context(), func(l broker.DeadLetter) broker.Verdict {
			letters = append(letters, l)
			return broker.Keep
		})
		if err != nil {
			t.Fatal(err)
		}
		return len(letters) > 0
	})
	if l := letters[0]; l.Envelope.ID != e.ID || l.Envelope.Shard != 0 || !strings.Contains(l.Reason, "policy with message-ttl") {
		t.Errorf("got %+v", l)
	}
	private.must(t, "ctl", "clear_policy", "-p", "policies", "old")
	if err := replayAll(t, b); err != nil {
		t.Fatal(err)
	}
	d := next(t, consume(t, b, 0))
	if d.ID != e.ID || string(d.Body) != string(e.Body) {
		t.Errorf("got %+v, want %+v", d.Envelope, e)
	}
}

// TestQueueLost: a queue that was deleted under way, by an operator or for a policy
// with expires, is made again, and told of.
func TestQueueLost(t *testing.T) {
	b, heard := openBroker(t, sharedNode(t), quick())
	ready(t, b)
	publishUntil(t, b, envelope(1))
	if lost, ok := first[event.QueueLost](heard); ok {
		t.Errorf("told %+v of a new queue", lost)
	}
	admin(t, sharedNode(t), func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(queueName(1), false, false, false)
		return err
	})
	publishUntil(t, b, envelope(1))
	if lost, _ := first[event.QueueLost](heard); lost.Name != queueName(1) {
		t.Errorf("told %+v, want that the queue %s is lost", lost, queueName(1))
	}
	admin(t, sharedNode(t), func(ch *amqp.Channel) error {
		_, err := ch.QueuePurge(queueName(1), false)
		return err
	})
}

// publishUntil publishes until it succeeds.
func publishUntil(t *testing.T, b *Broker, e message.Envelope) {
	t.Helper()
	soon(t, "published", func() bool { return brokertest.Publish(t.Context(), b, e) == nil })
}
