package jetstream

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/event"
	"async-data-processor/message"
)

// TestRemovalLost: the server was killed when it had stored an acknowledgement, and
// not the removal. It would keep the envelope for ever and never deliver it. That is
// so, too, when an envelope that was stored before it is still held.
func TestRemovalLost(t *testing.T) {
	for name, holds := range map[string]bool{"alone": false, "behind one that is held": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			removalLost(t, holds)
		})
	}
}

func removalLost(t *testing.T, holds bool) {
	n := newNode(t, "")
	told := &events{}
	b := openBroker(t, Config{URL: n.url(), Events: told.add})
	awaitReady(t, b)
	in := consume(t, b, 0, 5)
	held := 0
	if holds {
		held = 1
		publish(t, b, envelope(0))
		in.next()
	}
	e := envelope(0)
	publish(t, b, e)
	d := in.next()
	messages := filepath.Join(n.Dir, "jetstream", "$G", "streams", ShardStream, "msgs")
	before := filepath.Join(t.TempDir(), "msgs")
	if err := os.CopyFS(before, os.DirFS(messages)); err != nil {
		t.Fatal(err)
	}
	settled(t, d, message.Ack)
	awaitDepth(t, n.url(), 0, held)
	n.stop() // it stores what the consumer knows
	if err := os.RemoveAll(messages); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(messages, os.DirFS(before)); err != nil {
		t.Fatal(err)
	}
	n.start(t)
	if got := depthOf(t, n.url(), 0); got != held+1 {
		t.Fatalf("%d envelopes after the crash, want also the one whose removal was lost", got)
	}
	if holds {
		d := in.next()
		time.Sleep(4 * defaultTiming.probe)
		settled(t, d, message.Ack)
	}
	began := time.Now()
	again := in.next()
	if again.ID != e.ID || string(again.Body) != string(e.Body) {
		t.Errorf("got %q, want %q", again.ID, e.ID)
	}
	if took := time.Since(began); took > defaultTiming.look/2 {
		t.Errorf("it came after %v", took)
	}
	settled(t, again, message.Ack)
	awaitDepth(t, n.url(), 0, 0)
	told.awaitState(t, event.Cancelled, "acknowledged and was not removed")

	// All that is unacknowledged came again, and nothing else.
	next := envelope(0)
	publish(t, b, next)
	if d := in.next(); d.ID != next.ID {
		t.Errorf("got %q, want %q", d.ID, next.ID)
	}
}

// TestBacklogIsNotStuck: what waits, and what is held, is delivered once.
func TestBacklogIsNotStuck(t *testing.T) {
	t.Parallel()
	n := newNode(t, "")
	tm := defaultTiming
	tm.probe, tm.look = 20*time.Millisecond, 20*time.Millisecond
	told := &events{}
	b := openTimed(t, Config{URL: n.url(), Events: told.add}, tm)
	awaitReady(t, b)
	for range 20 {
		publish(t, b, envelope(0))
	}
	in := consume(t, b, 0, 3)
	seen := map[string]bool{}
	for range 20 {
		d := in.next()
		if seen[d.ID] || d.Redelivered {
			t.Errorf("%q came twice", d.ID)
		}
		seen[d.ID] = true
		time.Sleep(2 * tm.look)
		settled(t, d, message.Ack)
	}
	in.none(3 * tm.look)
	for _, x := range told.snapshot() {
		if c, ok := x.(event.Connection); ok && c.State != event.Connected {
			t.Errorf("told %+v", c)
		}
	}
}

// TestChangedUnderWay: an operator's limits would throw accepted envelopes away.
func TestChangedUnderWay(t *testing.T) {
	t.Parallel()
	n := newNode(t, "")
	tm := impatient()
	tm.probe, tm.look = 20*time.Millisecond, 20*time.Millisecond
	told := &events{}
	b := openTimed(t, Config{URL: n.url(), Events: told.add}, tm)
	awaitReady(t, b)
	in := consume(t, b, 0, 1)
	publish(t, b, envelope(0))
	settled(t, in.next(), message.Ack)
	update := func(cfg jetstream.StreamConfig) {
		admin(t, n.url(), func(ctx context.Context, js jetstream.JetStream) error {
			_, err := js.UpdateStream(ctx, cfg)
			return err
		})
	}
	notReady := func(want string) {
		t.Helper()
		var err error
		eventually(t, func() bool { err = b.Ready(); return err != nil && strings.Contains(err.Error(), want) },
			func() string { return "not ready: " + want + " is missing in: " + errorText(err) })
	}
	for name, change := range map[string]func(*jetstream.StreamConfig){
		"max_age is 1h0m0s":         func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour },
		"discard is DiscardOld":     func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld },
		"max_msgs_per_subject is 5": func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 5 },
	} {
		for _, cfg := range []jetstream.StreamConfig{b.shards(), b.deadLetters()} {
			whole := cfg
			change(&cfg)
			update(cfg)
			notReady("the stream " + cfg.Name + " exists with another configuration: " + name)
			told.awaitState(t, event.Lost, cfg.Name+" exists with another configuration: "+name)
			update(whole)
			awaitReady(t, b)
		}
	}

	cfg := b.consumer(0)
	cfg.MaxDeliver = 3
	admin(t, n.url(), func(ctx context.Context, js jetstream.JetStream) error {
		_, err := js.UpdateConsumer(ctx, ShardStream, cfg)
		return err
	})
	notReady("the consumer shard-0 of the stream ASYNC_DATA_PROCESSOR exists with another configuration: max_deliver is 3, want none")
	admin(t, n.url(), func(ctx context.Context, js jetstream.JetStream) error {
		_, err := js.UpdateConsumer(ctx, ShardStream, b.consumer(0))
		return err
	})
	awaitReady(t, b)
	publish(t, b, envelope(0))
	settled(t, in.next(), message.Ack)
}

// TestStreamLost: a stream that was deleted under way is made again, and told of.
func TestStreamLost(t *testing.T) {
	t.Parallel()
	n := newNode(t, "")
	told := &events{}
	b := openBroker(t, Config{URL: n.url(), Events: told.add})
	awaitReady(t, b)
	in := consume(t, b, 0, 1)
	publish(t, b, envelope(0))
	settled(t, in.next(), message.Ack)
	for _, x := range told.snapshot() {
		if _, ok := x.(event.QueueLost); ok {
			t.Errorf("told %+v of a new stream", x)
		}
	}
	admin(t, n.url(), func(ctx context.Context, js jetstream.JetStream) error { return js.DeleteStream(ctx, ShardStream) })
	publish(t, b, envelope(0))
	settled(t, in.next(), message.Ack)
	told.await(t, func(x event.Event) (error, bool) {
		lost, ok := x.(event.QueueLost)
		return nil, ok && lost.Name == ShardStream
	}, "")
}

func errorText(err error) string {
	if err == nil {
		return "nothing"
	}
	return err.Error()
}
