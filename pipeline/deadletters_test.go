package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/event"
	"async-data-processor/message"
)

// lettersOf are the dead letters of a broker in memory, on which n envelopes
// have died, "0" and so on.
func lettersOf(t *testing.T, n int) (DeadLetters, *brokertest.Memory) {
	t.Helper()
	memory := brokertest.NewMemory(1)
	ctx, cancel := context.WithCancel(t.Context())
	deliveries, done := make(chan *message.Delivery), make(chan error, 1)
	go func() { done <- memory.Consume(ctx, 0, 1, deliveries) }()
	for i := range n {
		memory.PublishForeign(0, fmt.Sprint(i), []byte("{}"))
		if err := (<-deliveries).Settle(message.Outcome{Kind: message.DeadLetter, Reason: "bad"}); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	open := func(Config, event.Sink) (broker.Broker, error) { return memory.Open(nil), nil }
	return DeadLetters{Config: DefaultConfig(), Timeout: time.Second, open: open}, memory
}

func left(memory *brokertest.Memory) (ids []string) {
	for _, d := range memory.Dead() {
		ids = append(ids, d.ID)
	}
	return ids
}

func TestDeadLetters(t *testing.T) {
	d, memory := lettersOf(t, 4)
	var seen []string
	if err := d.Each(t.Context(), func(l DeadLetter) { seen = append(seen, l.Envelope.ID) }); err != nil {
		t.Fatal(err)
	}
	if want := []string{"0", "1", "2", "3"}; !slices.Equal(seen, want) {
		t.Errorf("seen %q, want %q", seen, want)
	}
	is := func(ids ...string) func(DeadLetter) bool {
		return func(l DeadLetter) bool { return slices.Contains(ids, l.Envelope.ID) }
	}
	if n, err := d.Replay(t.Context(), is("1", "3", "9")); n != 2 || err != nil {
		t.Errorf("%d replayed, %v; want 2", n, err)
	}
	if n, err := d.Remove(t.Context(), is("0")); n != 1 || err != nil {
		t.Errorf("%d removed, %v; want 1", n, err)
	}
	if got := left(memory); !slices.Equal(got, []string{"2"}) {
		t.Errorf("%q are left, want 2", got)
	}
	if got := memory.Stored(0); len(got) != 2 || got[0].ID != "1" || got[1].ID != "3" {
		t.Errorf("queued again: %+v, want 1 and 3", got)
	}
}

// TestDeadLettersCount: what failed is not counted.
func TestDeadLettersCount(t *testing.T) {
	d, memory := lettersOf(t, 4)
	n, err := d.Replay(t.Context(), func(l DeadLetter) bool {
		if l.Envelope.ID == "2" {
			memory.Block("low on memory")
		}
		return true
	})
	if n != 2 || !errors.Is(err, broker.ErrRejected) {
		t.Errorf("%d replayed, %v; want 2 and ErrRejected", n, err)
	}
	if got := left(memory); !slices.Equal(got, []string{"2", "3"}) {
		t.Errorf("%q are left, want 2 and 3", got)
	}
}

// homeless is a broker whose dead letters came from nowhere.
type homeless struct {
	broker.Broker
	t *testing.T
}

func (h homeless) DeadLetters(_ context.Context, decide func(DeadLetter) broker.Verdict) error {
	for i, shard := range []int{-1, 0, -1} {
		want := broker.Keep
		if shard >= 0 {
			want = broker.Replay
		}
		if got := decide(DeadLetter{Envelope: message.Envelope{ID: fmt.Sprint(i), Shard: shard}}); got != want {
			h.t.Errorf("letter %d: verdict %d, want %d", i, got, want)
		}
	}
	return nil
}

func (h homeless) Close() error { return nil }

// TestReplayWithoutOrigin: one that could go nowhere does not hold up the others.
func TestReplayWithoutOrigin(t *testing.T) {
	d := DeadLetters{Config: DefaultConfig(), Timeout: time.Second}
	d.open = func(Config, event.Sink) (broker.Broker, error) { return homeless{t: t}, nil }
	n, err := d.Replay(t.Context(), func(DeadLetter) bool { return true })
	if n != 1 || !errors.Is(err, broker.ErrNoOrigin) || !strings.Contains(err.Error(), `"0"`) || !strings.Contains(err.Error(), `"2"`) {
		t.Errorf("%d replayed, %v; want 1, and 0 and 2 named", n, err)
	}
}

// TestDeadLettersTimeout bounds the wait for the broker, not what comes after.
func TestDeadLettersTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, memory := lettersOf(t, 2)
		memory.Stop()
		began := time.Now()
		if err := d.Each(t.Context(), func(DeadLetter) {}); err == nil || !strings.Contains(err.Error(), "stopped") {
			t.Errorf("%v, want an error that says why", err)
		}
		if waited := time.Since(began); waited != d.Timeout {
			t.Errorf("gave up after %v, want %v", waited, d.Timeout)
		}
		memory.Start()
		if err := d.Each(t.Context(), func(DeadLetter) { time.Sleep(2 * d.Timeout) }); err != nil {
			t.Error(err)
		}
	})
}
