package rabbitmq

import (
	"slices"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/event"
)

// TestBacklogGaps: a look goes over as many missing queues as the one before it has
// found to be missing, and makes none of them anew.
func TestBacklogGaps(t *testing.T) {
	url := sharedNode(t)
	engine(t, url, url)
	const from = brokertest.Shards
	for shard := range 2 * firstGap { // another program may have used the node
		deleteQueue(t, url, queueName(from+shard))
	}
	make := func(shard int) {
		admin(t, url, func(ch *amqp.Channel) error { return declare(ch, shardQueue(shard)) })
		t.Cleanup(func() { deleteQueue(t, url, queueName(shard)) })
	}
	b, _ := openBroker(t, url, quick())
	ready(t, b)
	check := func(want ...int) {
		t.Helper()
		found, err := b.Backlogs(t.Context(), from)
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, b := range found {
			got = append(got, b.Shard)
		}
		if !slices.Equal(got, want) {
			t.Errorf("found %v, want %v", got, want)
		}
	}
	make(from + firstGap + 1) // one too many are missing
	check()
	make(from)
	check(from) // no gap was found by the look before
	fresh, _ := openBroker(t, url, quick())
	b = fresh
	check(from, from+firstGap+1) // so far a first look sees
	check(from, from+firstGap+1)
	make(from + 2)
	check(from, from+2, from+firstGap+1)
	deleteQueue(t, url, queueName(from+firstGap+1))
	check(from, from+2) // the widest gap is one now
	make(from + 5)
	check(from, from+2)
	make(from + 4)
	check(from, from+2, from+4, from+5)
	if err := b.Ready(); err != nil {
		t.Error("not ready after looking:", err)
	}
}

// TestOtherShardDoesNotCount: a shard beyond the number of shards that cannot be
// consumed does not make the process unready.
func TestOtherShardDoesNotCount(t *testing.T) {
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
	soon(t, "the refusal", func() bool {
		n, ok := heard.find(event.Unsubscribed, "consume")
		return ok && n.Shard == shard
	})
	if err := b.Ready(); err != nil {
		t.Error("not ready:", err)
	}
}

func TestWidestGap(t *testing.T) {
	for _, tc := range []struct {
		found []int
		want  int
	}{
		{nil, 0},
		{[]int{3, 4, 5}, 0},
		{[]int{4}, 1},
		{[]int{3, 6, 7}, 2},
		{[]int{5, 6, 8}, 2},
		{[]int{0, 2, 4}, 1}, // those below the number of shards do not count
	} {
		var found []broker.Backlog
		for _, n := range tc.found {
			found = append(found, broker.Backlog{Shard: n})
		}
		if got := widestGap(3, found); got != tc.want {
			t.Errorf("%v: %d, want %d", tc.found, got, tc.want)
		}
	}
}
