package brokertest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"async-data-processor/broker"
	"async-data-processor/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestMemory runs the suite on Memory.
func TestMemory(t *testing.T) {
	Run(t, Harness{Fresh: func(*testing.T, bool) *Engine {
		m := NewMemory(Shards)
		return LocalEngine(m.engine, m.store)
	}})
}

// TestFailPublish: each failure says what it does and does what it says, and
// the retry lands.
func TestFailPublish(t *testing.T) {
	for _, c := range []struct {
		name    string
		failure Failure
		want    error
		depth   int
	}{
		{"refused", Refused, broker.ErrRejected, 0},
		{"unsaved", Unsaved, broker.ErrUnknown, 0},
		{"saved", Saved, broker.ErrUnknown, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := NewMemory(1)
			defer m.Close()
			m.FailPublish(c.failure)
			e := envelope(0, 1)
			if err := Publish(t.Context(), m, e); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if got := m.Depth(0); got != c.depth {
				t.Errorf("%d envelopes, want %d", got, c.depth)
			}
			if err := Publish(t.Context(), m, e); err != nil {
				t.Errorf("the retry: %v", err)
			}
			if got := m.Waiting(0); got != c.depth+1 {
				t.Errorf("%d envelopes after the retry, want %d", got, c.depth+1)
			}
		})
	}
}

// TestMemoryInBubble: waits on Memory are durable blocks of synctest.
func TestMemoryInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(1)
		m.Stall()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		if err := Publish(ctx, m, envelope(0, 1)); !errors.Is(err, broker.ErrUnknown) {
			t.Errorf("%v, want ErrUnknown", err)
		}
		if took := time.Since(began); took != time.Hour {
			t.Errorf("it took %v, want an hour", took)
		}
		m.Resume()
		deliveries := make(chan *message.Delivery)
		go func() {
			_ = Publish(t.Context(), m, envelope(0, 3))
		}()
		done := make(chan error, 1)
		consume, stop := context.WithCancel(t.Context())
		go func() { done <- m.Consume(consume, 0, 1, deliveries) }()
		d := <-deliveries
		synctest.Wait()
		stop()
		if err := <-done; err != nil {
			t.Errorf("Consume: %v", err)
		}
		if err := d.Settle(message.Outcome{Kind: message.Return}); err != nil {
			t.Errorf("settling after the intake ended: %v", err)
		}
		if got := m.Waiting(0); got != 2 {
			t.Errorf("%d envelopes wait, want the returned one, and the one whose outcome was unknown", got)
		}
	})
}
