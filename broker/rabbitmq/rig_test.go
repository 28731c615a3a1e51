package rabbitmq

import (
	"context"
	"sync"
	"testing"
	"time"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/message"
)

// quick is defaultTiming with the waits of faults shortened.
func quick() timing {
	tm := defaultTiming
	tm.refused = 300 * time.Millisecond
	tm.close = 500 * time.Millisecond
	tm.rpc = time.Second
	tm.heartbeat = 2 * time.Second
	return tm
}

// notices collects what a broker tells.
type notices struct {
	mu  sync.Mutex
	all []broker.Notice
}

func (n *notices) hear(x broker.Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, x)
}

func (n *notices) find(kind broker.NoticeKind, role string) (broker.Notice, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range n.all {
		if x.Kind == kind && x.Role == role {
			return x, true
		}
	}
	return broker.Notice{}, false
}

func openBroker(t *testing.T, url string, tm timing) (*Broker, *notices) {
	t.Helper()
	heard := &notices{}
	b, err := newBroker(Config{URL: url, Shards: brokertest.Shards, Notify: heard.hear}, tm)
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
