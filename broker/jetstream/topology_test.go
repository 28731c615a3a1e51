package jetstream

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/event"
)

// TestOtherConfiguration meets a stream, then a consumer, that would break a
// promise: one clear line, no consumption, and all is well when it is repaired.
func TestOtherConfiguration(t *testing.T) {
	t.Parallel()
	n := newNode(t, "")
	admin(t, n.url(), func(ctx context.Context, js jetstream.JetStream) error {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: ShardStream, Subjects: []string{"async-data-processor.>"}})
		return err
	})
	told := &events{}
	b := openTimed(t, Config{URL: n.url(), Events: told.add}, impatient())
	got := told.awaitState(t, event.Unreachable, "the stream ASYNC_DATA_PROCESSOR exists with another configuration: retention is Limits, want WorkQueue")
	if strings.Contains(got.Err.Error(), "\n") {
		t.Errorf("more than a line: %q", got.Err)
	}
	if b.Ready() == nil {
		t.Error("ready with another stream")
	}
	admin(t, n.url(), func(ctx context.Context, js jetstream.JetStream) error { return js.DeleteStream(ctx, ShardStream) })
	awaitReady(t, b)

	admin(t, n.url(), func(ctx context.Context, js jetstream.JetStream) error {
		_, err := js.CreateConsumer(ctx, ShardStream, jetstream.ConsumerConfig{Durable: consumerOf(0), FilterSubject: subjectOf(0), MaxDeliver: 5})
		return err
	})
	publish(t, b, envelope(0))
	in := consume(t, b, 0, 1)
	told.awaitState(t, event.Unsubscribed, "the consumer shard-0 of the stream ASYNC_DATA_PROCESSOR exists with another configuration")
	if err := b.Ready(); err == nil || !strings.Contains(err.Error(), "shard 0 is not consumed") {
		t.Errorf("%v, want that shard 0 is not consumed", err)
	}
	admin(t, n.url(), func(ctx context.Context, js jetstream.JetStream) error {
		return js.DeleteConsumer(ctx, ShardStream, consumerOf(0))
	})
	settled(t, in.next(), 0)
	awaitReady(t, b)
}

// TestOverlap: the subjects belong to another stream.
func TestOverlap(t *testing.T) {
	t.Parallel()
	n := newNode(t, "")
	admin(t, n.url(), func(ctx context.Context, js jetstream.JetStream) error {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"async-data-processor.>"}})
		return err
	})
	told := &events{}
	openBroker(t, Config{URL: n.url(), Events: told.add})
	if got := told.awaitState(t, event.Unreachable, "overlap"); got.Retry < defaultTiming.Refused/2 {
		t.Errorf("it is tried again after %v, want not so soon", got.Retry)
	}
}

func TestUnfitServers(t *testing.T) {
	t.Parallel()
	for want, config := range map[string]string{
		"max_payload is 1024":                    "max_payload: 1024",
		"it is not enabled or has no leader":     "jetstream: disabled",
		"replicas > 1 not supported in non-clus": "",
	} {
		told := &events{}
		openBroker(t, Config{URL: newNode(t, config).url(), Replicas: 3, Events: told.add})
		told.awaitState(t, event.Unreachable, want)
	}
}

func TestConflict(t *testing.T) {
	b := &Broker{cfg: Config{Replicas: 1}, timing: defaultTiming}
	for want, change := range map[string]func(*jetstream.StreamConfig){
		"":                     func(c *jetstream.StreamConfig) { c.Replicas, c.MaxBytes, c.MaxMsgs = 3, 1<<30, 1<<20 },
		"retention":            func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy },
		"storage":              func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage },
		"discard":              func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld },
		"persist_mode":         func(c *jetstream.StreamConfig) { c.PersistMode = jetstream.AsyncPersistMode },
		"max_age":              func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour },
		"max_msgs_per_subject": func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 1 },
		"max_msg_size":         func(c *jetstream.StreamConfig) { c.MaxMsgSize = 512 << 10 },
		"no_ack":               func(c *jetstream.StreamConfig) { c.NoAck = true },
		"sealed":               func(c *jetstream.StreamConfig) { c.Sealed = true },
		"mirror":               func(c *jetstream.StreamConfig) { c.Mirror = &jetstream.StreamSource{} },
		"subject_transform":    func(c *jetstream.StreamConfig) { c.SubjectTransform = &jetstream.SubjectTransformConfig{} },
		"subjects": func(c *jetstream.StreamConfig) {
			c.Subjects = []string{"other", subjectOf(0), subjectPrefix + "2.>"}
		},
	} {
		got := b.shards()
		change(&got)
		if text := conflict(got, b.shards(), []string{subjectOf(0), subjectOf(1)}); !strings.HasPrefix(text, want) || (want == "") != (text == "") {
			t.Errorf("got %q, want one about %q", text, want)
		}
	}
	for want, change := range map[string]func(*jetstream.ConsumerConfig){
		"": func(c *jetstream.ConsumerConfig) {
			c.AckWait, c.MaxAckPending, c.PinnedTTL = time.Hour, 1000, time.Minute
		},
		"deliver_subject": func(c *jetstream.ConsumerConfig) { c.DeliverSubject = "x" },
		"filter_subject":  func(c *jetstream.ConsumerConfig) { c.FilterSubject = subjectOf(1) },
		"ack_policy":      func(c *jetstream.ConsumerConfig) { c.AckPolicy = jetstream.AckAllPolicy },
		"deliver_policy":  func(c *jetstream.ConsumerConfig) { c.DeliverPolicy = jetstream.DeliverNewPolicy },
		"ack_wait":        func(c *jetstream.ConsumerConfig) { c.AckWait = time.Second },
		"max_deliver":     func(c *jetstream.ConsumerConfig) { c.MaxDeliver = 1 },
		"headers_only":    func(c *jetstream.ConsumerConfig) { c.HeadersOnly = true },
		"priority_policy": func(c *jetstream.ConsumerConfig) { c.PriorityPolicy, c.PriorityGroups = 0, nil },
	} {
		got := b.consumer(0)
		change(&got)
		if text := consumerConflict(got, b.consumer(0)); !strings.HasPrefix(text, want) || (want == "") != (text == "") {
			t.Errorf("got %q, want one about %q", text, want)
		}
	}
}

func TestCovered(t *testing.T) {
	for pattern, want := range map[string]bool{
		"a.b.c": true, "a.*.c": true, "a.>": true, ">": true, "*.*.*": true,
		"a.b": false, "a.b.c.d": false, "a.b.c.>": false, "a.*": false, "b.>": false, "": false,
	} {
		if got := covered("a.b.c", []string{"x", pattern}); got != want {
			t.Errorf("%q covers a.b.c: %v, want %v", pattern, got, want)
		}
	}
}
