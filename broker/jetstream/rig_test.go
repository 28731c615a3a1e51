package jetstream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// notices collects what a broker tells.
type notices struct {
	mu  sync.Mutex // guards all
	all []broker.Notice
}

func (n *notices) add(notice broker.Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, notice)
}

// find returns the first notice of a kind whose error holds a text.
func (n *notices) find(kind broker.NoticeKind, text string) (broker.Notice, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, notice := range n.all {
		if notice.Kind == kind && (text == "" || notice.Err != nil && strings.Contains(notice.Err.Error(), text)) {
			return notice, true
		}
	}
	return broker.Notice{}, false
}

func (n *notices) await(t testing.TB, kind broker.NoticeKind, text string) (got broker.Notice) {
	t.Helper()
	eventually(t, func() (ok bool) { got, ok = n.find(kind, text); return ok }, func() string {
		n.mu.Lock()
		defer n.mu.Unlock()
		return fmt.Sprintf("no %q notice with %q in %v", kind, text, n.all)
	})
	return got
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
		err := b.Publish(attempt, e)
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
