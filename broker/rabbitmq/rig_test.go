package rabbitmq

import (
	"context"
	"sync"
	"testing"
	"time"

	"async-data-processor/broker/brokertest"
	"async-data-processor/event"
	"async-data-processor/message"
)

// quick is defaultTiming with the waits of faults shortened.
func quick() timing {
	tm := defaultTiming
	tm.Refused = 300 * time.Millisecond
	tm.Close = 500 * time.Millisecond
	tm.rpc = time.Second
	tm.heartbeat = 2 * time.Second
	return tm
}

// events collects what a broker tells.
type events struct {
	mu  sync.Mutex
	all []event.Event
}

func (e *events) hear(x event.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, x)
}

// find returns the first event of a connection that has the state.
func (e *events) find(state event.ConnectionState, role string) (event.Connection, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.all {
		if c, ok := x.(event.Connection); ok && c.State == state && c.Role == role {
			return c, true
		}
	}
	return event.Connection{}, false
}

// first returns the first event of a type.
func first[E event.Event](e *events) (found E, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.all {
		if found, ok = x.(E); ok {
			return found, true
		}
	}
	return found, false
}

func openBroker(t *testing.T, url string, tm timing) (*Broker, *events) {
	t.Helper()
	heard := &events{}
	b, err := newBroker(Config{URL: url, Shards: brokertest.Shards, Events: heard.hear}, tm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b, heard
}

func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 2 minutes: %s", what)
		}
	}
}

func ready(t *testing.T, b *Broker) {
	t.Helper()
	soon(t, "ready", func() bool { return b.Ready() == nil })
}

func consume(t *testing.T, b *Broker, shard int) <-chan *message.Delivery {
	t.Helper()
	deliveries, _ := consumeUntil(t, b, shard)
	return deliveries
}

// consumeUntil consumes the shard until stop is called, which waits for the end.
func consumeUntil(t *testing.T, b *Broker, shard int) (_ <-chan *message.Delivery, stop func()) {
	t.Helper()
	deliveries := make(chan *message.Delivery)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = b.Consume(ctx, shard, 10, deliveries)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return deliveries, stop
}

func next(t *testing.T, deliveries <-chan *message.Delivery) *message.Delivery {
	t.Helper()
	select {
	case d := <-deliveries:
		return d
	case <-time.After(2 * time.Minute):
		t.Fatal("no delivery within 2 minutes")
		return nil
	}
}
