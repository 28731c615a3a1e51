package jetstream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/event"
	"async-data-processor/message"
)

// events collects what a broker tells.
type events struct {
	mu  sync.Mutex // guards all
	all []event.Event
}

func (e *events) add(x event.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, x)
}

func (e *events) snapshot() []event.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.all)
}

// await waits for an event that is accepted and whose error holds a text.
func (e *events) await(t testing.TB, accepts func(event.Event) (error, bool), text string) (got event.Event) {
	t.Helper()
	eventually(t, func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, x := range e.all {
			if err, ok := accepts(x); ok && (text == "" || err != nil && strings.Contains(err.Error(), text)) {
				got = x
				return true
			}
		}
		return false
	}, func() string {
		e.mu.Lock()
		defer e.mu.Unlock()
		return fmt.Sprintf("no such event with %q in %v", text, e.all)
	})
	return got
}

// awaitState waits for a state of a connection.
func (e *events) awaitState(t testing.TB, state event.ConnectionState, text string) event.Connection {
	t.Helper()
	got, _ := e.await(t, func(x event.Event) (error, bool) {
		c, ok := x.(event.Connection)
		return c.Err, ok && c.State == state
	}, text).(event.Connection)
	return got
}

func deadLettered(x event.Event) (error, bool) {
	d, ok := x.(event.DeadLettered)
	return d.Err, ok
}

func failedDeadLetter(x event.Event) (error, bool) {
	d, ok := x.(event.DeadLetterFailed)
	return d.Err, ok
}

// openBroker opens a client that the test closes.
func openBroker(t testing.TB, cfg Config) *Broker {
	t.Helper()
	return openTimed(t, cfg, defaultTiming)
}

func openTimed(t testing.TB, cfg Config, tm timing) *Broker {
	t.Helper()
	if cfg.Shards == 0 {
		cfg.Shards = 2
	}
	b, err := newBroker(cfg, tm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func awaitReady(t testing.TB, b *Broker) {
	t.Helper()
	var err error
	eventually(t, func() bool { err = b.Ready(); return err == nil }, func() string { return fmt.Sprint("not ready: ", err) })
}

func envelope(shard int) message.Envelope {
	id := rand.Text()
	body := fmt.Sprintf(`{"message_id":"%s.0","timestamp":"2019-10-12T08:10:54.52Z"}`+"\n", id)
	return message.Envelope{ID: id, Shard: shard, Count: 1, Body: []byte(body)}
}

// insist publishes until it succeeds, or ctx is done.
func insist(ctx context.Context, b *Broker, e message.Envelope) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		err := brokertest.Publish(attempt, b, e)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if !errors.Is(err, broker.ErrRejected) && !errors.Is(err, broker.ErrUnknown) {
			return fmt.Errorf("%w is neither ErrRejected nor ErrUnknown", err)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func publish(t testing.TB, b *Broker, e message.Envelope) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := insist(ctx, b, e); err != nil {
		t.Fatal(err)
	}
}

// intake is a running Consume.
type intake struct {
	t          testing.TB
	deliveries chan *message.Delivery
	cancel     context.CancelFunc
	done       chan error
}

func consume(t testing.TB, b *Broker, shard, prefetch int) *intake {
	ctx, cancel := context.WithCancel(context.Background())
	in := &intake{t, make(chan *message.Delivery), cancel, make(chan error, 1)}
	go func() { in.done <- b.Consume(ctx, shard, prefetch, in.deliveries) }()
	t.Cleanup(cancel)
	return in
}

func (in *intake) next() *message.Delivery {
	in.t.Helper()
	select {
	case d := <-in.deliveries:
		return d
	case <-time.After(patience):
		in.t.Fatal("no delivery")
		return nil
	}
}

// none checks that no delivery comes for a while.
func (in *intake) none(d time.Duration) {
	in.t.Helper()
	select {
	case d := <-in.deliveries:
		in.t.Fatalf("unexpected delivery of %q (redelivered: %v)", d.ID, d.Redelivered)
	case <-time.After(d):
	}
}

func settled(t testing.TB, d *message.Delivery, kind message.OutcomeKind) {
	t.Helper()
	if err := d.Settle(message.Outcome{Kind: kind, Reason: "because"}); err != nil {
		t.Fatalf("settling %q: %v", d.ID, err)
	}
}
