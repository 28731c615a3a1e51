package rabbitmq

import (
	"slices"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
)

// TestBeyondGaps: an empty queue is found, too; one that was deleted hides
// those behind it only if the gap is too wide, and is not made anew.
func TestBeyondGaps(t *testing.T) {
	url := sharedNode(t)
	const from, last = 100, 109 // no other test has them
	for _, shard := range []int{from, from + 1, from + 6, last} {
		admin(t, url, func(ch *amqp.Channel) error { return declare(ch, shardQueue(shard)) })
		t.Cleanup(func() { deleteQueue(t, url, queueName(shard)) })
	}
	foreign(t, url, last, amqp.Publishing{Body: []byte("x")})
	b, _ := openBroker(t, url, quick())
	ready(t, b)
	for range 2 {
		for gap, want := range map[int][]int{0: {100, 101}, 3: {100, 101}, 4: {100, 101, 106, 109}, 8: {100, 101, 106, 109}} {
			found, err := b.Beyond(t.Context(), from, gap)
			if err != nil {
				t.Fatal(err)
			}
			if got := shardsOf(found); !slices.Equal(got, want) {
				t.Errorf("gap %d: found %v, want %v", gap, got, want)
			}
		}
	}
	if err := b.Ready(); err != nil {
		t.Error("not ready after looking:", err)
	}
}

func shardsOf(found []broker.Backlog) (shards []int) {
	for _, b := range found {
		shards = append(shards, b.Shard)
	}
	return shards
}

// TestBeyondDoesNotCount: a shard beyond the number of shards that cannot be
// consumed does not make the process unready.
func TestBeyondDoesNotCount(t *testing.T) {
	url := sharedNode(t)
	const shard = 120
	admin(t, url, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(queueName(shard), true, false, false, false, nil)
		return err
	})
	t.Cleanup(func() { deleteQueue(t, url, queueName(shard)) })
	b, heard := openBroker(t, url, quick())
	ready(t, b)
	consume(t, b, shard)
	within10s(t, "the refusal", func() bool {
		n, ok := heard.find(broker.Lost, "consume")
		return ok && n.Shard == shard
	})
	if err := b.Ready(); err != nil {
		t.Error("not ready:", err)
	}
}
