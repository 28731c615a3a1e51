package embedded

import (
	"context"
	"path/filepath"
	"testing"

	"async-data-processor/broker"
	"async-data-processor/broker/jetstream"
	"async-data-processor/message"
)

// walk applies a verdict to each dead letter that is chosen, and returns the
// ids of all.
func walk(t *testing.T, e *Broker, verdict broker.Verdict, chosen func(i int) bool) (ids []string) {
	t.Helper()
	err := e.DeadLetters(t.Context(), func(d broker.DeadLetter) broker.Verdict {
		ids = append(ids, d.Envelope.ID)
		if chosen(len(ids) - 1) {
			return verdict
		}
		return broker.Keep
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// TestRemovedDeadLetters: what was removed between others, and at the end, is
// no damage, after a close and after a crash.
func TestRemovedDeadLetters(t *testing.T) {
	const n, size = 40, 300 << 10 // more than a block
	odd := func(i int) bool { return i%2 == 1 }
	all := func(int) bool { return true }
	none := func(int) bool { return false }
	for _, c := range []struct {
		name   string
		chosen func(int) bool
		left   int
	}{
		{"every second", odd, n / 2},
		{"the first ones", func(i int) bool { return i < n-1 }, 1},
		{"the last one", func(i int) bool { return i == n-1 }, n - 1},
		{"all", all, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			e := openBroker(t, configFor(dir))
			take(t, e, publishSome(t, e, n, size), message.DeadLetter)
			if ids := walk(t, e, broker.Remove, c.chosen); len(ids) != n {
				t.Fatalf("%d dead letters, want %d", len(ids), n)
			}
			crashed := filepath.Join(t.TempDir(), "store")
			copyTree(t, dir, crashed)
			closeBroker(t, e)
			for _, dir := range []string{dir, crashed} {
				e := openBroker(t, configFor(dir))
				if ids := walk(t, e, broker.Keep, none); len(ids) != c.left {
					t.Errorf("%d dead letters are left in %s, want %d", len(ids), dir, c.left)
				}
				closeBroker(t, e)
			}
		})
	}
}

// TestReplayIsDurable: a dead letter is not removed before the names of the
// blocks that its replay went to are durable.
func TestReplayIsDurable(t *testing.T) {
	e := openBroker(t, configFor(t.TempDir()))
	take(t, e, publishSome(t, e, 2, 100), message.DeadLetter)
	e.namesSynced.Store(true)
	shards := e.names[jetstream.ShardStream]
	dir := shards.dir
	shards.dir = filepath.Join(dir, "none")
	replay := func(broker.DeadLetter) broker.Verdict { return broker.Replay }
	if err := e.DeadLetters(t.Context(), replay); err == nil {
		t.Error("no error although the folder cannot be synced")
	}
	shards.dir = dir
	if ids := walk(t, e, broker.Replay, func(int) bool { return true }); len(ids) != 2 {
		t.Errorf("%d dead letters, want 2", len(ids))
	}
	if n := e.depth(); n != 2 {
		t.Errorf("%d envelopes, want 2", n)
	}
}

// TestDeadLetterIsDurable: an envelope is not forgotten before the name of the
// block that its dead letter went to is durable.
func TestDeadLetterIsDurable(t *testing.T) {
	e := openBroker(t, configFor(t.TempDir()))
	deliveries := make(chan *message.Delivery)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Consume(ctx, 0, 1, deliveries) }()
	publishSome(t, e, 1, 100)
	dead := e.names[jetstream.DeadStream]
	dir := dead.dir
	dead.dir = filepath.Join(dir, "none")
	d := <-deliveries
	settled := make(chan error, 1)
	go func() { settled <- d.Settle(message.Outcome{Kind: message.DeadLetter, Reason: "poison"}) }()
	stop()
	if err := <-settled; err == nil {
		t.Error("no error although the folder cannot be synced")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := e.depth(); n != 1 {
		t.Errorf("%d envelopes, want 1", n)
	}
}
