package rabbitmq

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/event"
	"async-data-processor/message"
)

func envelope(shard int) message.Envelope {
	return message.Envelope{ID: rand.Text(), Shard: shard, Count: 1, Body: []byte("x\n")}
}

// publishFor publishes to a shard and waits so long for the outcome.
func publishFor(t *testing.T, b *Broker, shard int, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return brokertest.Publish(ctx, b, envelope(shard))
}

// silence suspends the leader of shard 0's queue on the private node, until
// resume is called or the test has ended.
func silence(t *testing.T, b *Broker) (resume func()) {
	t.Helper()
	for shard := range 2 { // which makes the broker's channel known to the queues
		if err := brokertest.Publish(t.Context(), b, envelope(shard)); err != nil {
			t.Fatal(err)
		}
	}
	leader := "'%2F_" + queueName(0) + "'"
	private.must(t, "ctl", "eval", "sys:suspend("+leader+").")
	var once sync.Once
	resume = func() { once.Do(func() { private.must(t, "ctl", "eval", "sys:resume("+leader+").") }) }
	t.Cleanup(resume)
	return resume
}

// TestSilentQueue: of one call, the envelopes whose queues answer are confirmed
// at once, although one that was written before them is not.
func TestSilentQueue(t *testing.T) {
	url := privateNode(t)
	engine(t, url, url)
	b, heard := openBroker(t, url, defaultTiming)
	ready(t, b)
	resume := silence(t, b)
	const limit = 6 * time.Second
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		began := time.Now()
		told := make(chan int, 4)
		b.Publish(ctx, []message.Envelope{envelope(0), envelope(1), envelope(0), envelope(1)}, func(i int, err error) {
			if silent := i%2 == 0; silent != errors.Is(err, broker.ErrUnknown) || !silent && err != nil {
				t.Errorf("envelope %d: %v", i, err)
			}
			if took := time.Since(began); i%2 == 1 && took > limit/2 {
				t.Errorf("envelope %d is confirmed after %v, when those of the silent queue end", i, took)
			}
			told <- i
		})
		if len(told) != 4 {
			t.Errorf("%d outcomes of 4", len(told))
		}
		cancel()
	}
	resume()
	if err := brokertest.Publish(t.Context(), b, envelope(0)); err != nil {
		t.Error(err)
	}
	if n, ok := heard.find(event.Lost, "publish"); ok {
		t.Errorf("it cost the connection: %v", n.Err)
	}
}

// TestSilentQueueForLong: a queue that stays silent is refused what comes, at
// once, before the broker reads nothing any more; it stops no other queue, and
// is told of for as long.
func TestSilentQueueForLong(t *testing.T) {
	url := privateNode(t)
	engine(t, url, url)
	b, heard := openBroker(t, url, defaultTiming)
	ready(t, b)
	resume := silence(t, b)
	for i := range 2 * maxPending {
		want, limit := broker.ErrUnknown, 250*time.Millisecond
		if i >= maxPending {
			want, limit = broker.ErrRejected, 10*time.Second
		}
		if err := publishFor(t, b, 0, limit); !errors.Is(err, want) {
			t.Fatalf("envelope %d of the silent queue: %v, want %v", i, err, want)
		}
	}
	if err := b.Ready(); err == nil || !strings.Contains(err.Error(), queueName(0)) {
		t.Errorf("Ready: %v, want an error that names the queue", err)
	}
	const credit = 400 // of envelopes that RabbitMQ reads ahead
	for i := range 2 * credit {
		if err := publishFor(t, b, 1, time.Minute); err != nil {
			t.Fatalf("envelope %d of the other queue: %v", i, err)
		}
	}
	resume()
	ready(t, b)
	if err := publishFor(t, b, 0, time.Minute); err != nil {
		t.Errorf("the queue is back: %v", err)
	}
	if n, ok := heard.find(event.Lost, "publish"); ok {
		t.Errorf("it cost the connection: %v", n.Err)
	}
}

// TestStalledQueue: a queue that confirms nothing for long is tried on a new
// connection, which works for the others although it is silent there, too.
func TestStalledQueue(t *testing.T) {
	url := privateNode(t)
	engine(t, url, url)
	tm := quick()
	tm.stalled = time.Second
	b, heard := openBroker(t, url, tm)
	ready(t, b)
	silence(t, b)
	if err := publishFor(t, b, 0, 250*time.Millisecond); !errors.Is(err, broker.ErrUnknown) {
		t.Fatalf("the silent queue: %v, want ErrUnknown", err)
	}
	soon(t, "given up", func() bool { _, ok := heard.find(event.Lost, "publish"); return ok })
	if n, _ := heard.find(event.Lost, "publish"); !strings.Contains(n.Err.Error(), queueName(0)) {
		t.Errorf("told %v, want the name of the queue", n.Err)
	}
	soon(t, "the other queue confirms", func() bool { return publishFor(t, b, 1, time.Second) == nil })
}
