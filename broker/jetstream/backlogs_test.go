package jetstream

import (
	"context"
	"slices"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/broker"
	"async-data-processor/event"
)

// TestBacklogsPicks: only subjects that a process of ours may have published to
// are shards.
func TestBacklogsPicks(t *testing.T) {
	got := backlogs(map[string]uint64{
		"async-data-processor.shard.1":    7,
		"async-data-processor.shard.12":   2,
		"async-data-processor.shard.3":    4,
		"async-data-processor.shard.2":    1,
		"async-data-processor.shard.04":   1,
		"async-data-processor.shard.+5":   1,
		"async-data-processor.shard.-1":   1,
		"async-data-processor.shard.x":    1,
		"async-data-processor.shard.2000": 1,
		"3":                               1,
	}, 1, 2)
	if want := []broker.Backlog{{Shard: 1, Envelopes: 7}, {Shard: 2, Envelopes: 1}, {Shard: 3, Envelopes: 4}, {Shard: 12, Envelopes: 2}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got, want := backlogs(nil, 1, 3), []broker.Backlog{{Shard: 1}, {Shard: 2}}; !slices.Equal(got, want) {
		t.Errorf("of no subjects %v, want %v", got, want)
	}
}

// TestOtherShardDoesNotCount: a shard beyond the number of shards that cannot be
// consumed does not make the process unready.
func TestOtherShardDoesNotCount(t *testing.T) {
	n := emptied(t)
	heard := &events{}
	b := openBroker(t, Config{URL: n.url(), Events: heard.add})
	awaitReady(t, b)
	admin(t, n.url(), func(ctx context.Context, js jetstream.JetStream) error {
		_, err := js.CreateConsumer(ctx, ShardStream, jetstream.ConsumerConfig{
			Durable: consumerOf(9), FilterSubject: subjectOf(9), AckPolicy: jetstream.AckExplicitPolicy,
		})
		return err
	})
	consume(t, b, 9, 1)
	heard.awaitState(t, event.Unsubscribed, "another configuration")
	if err := b.Ready(); err != nil {
		t.Error("not ready:", err)
	}
}
