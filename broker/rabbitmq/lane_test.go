package rabbitmq

import (
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// TestSilentQueue: of a convoy, the envelopes whose queues answer are confirmed
// at once, although one that was written before them is not.
func TestSilentQueue(t *testing.T) {
	url := privateNode(t)
	engine(t, url, url)
	b, heard := openBroker(t, url, defaultTiming)
	ready(t, b)
	envelope := func(shard int) message.Envelope {
		return message.Envelope{ID: rand.Text(), Shard: shard, Count: 1, Body: []byte("x\n")}
	}
	for shard := range 2 { // which makes the broker's channel known to the queues
		if err := b.Publish(t.Context(), envelope(shard)); err != nil {
			t.Fatal(err)
		}
	}
	leader := "'%2F_" + queueName(0) + "'"
	private.must(t, "ctl", "eval", "sys:suspend("+leader+").")
	resume := func() { private.must(t, "ctl", "eval", "sys:resume("+leader+").") }
	defer func() {
		if t.Failed() {
			resume()
		}
	}()
	const limit = time.Second
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		began := time.Now()
		told := make(chan int, 4)
		b.PublishTogether(ctx, []message.Envelope{envelope(0), envelope(1), envelope(0), envelope(1)}, func(i int, err error) {
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
	if err := b.Publish(t.Context(), envelope(0)); err != nil {
		t.Error(err)
	}
	if n, ok := heard.find(broker.Lost, "publish"); ok {
		t.Errorf("it cost the connection: %v", n.Err)
	}
}

// TestOverdue: what is kept of confirms that come before an older one is bounded.
func TestOverdue(t *testing.T) {
	publication := func(tag uint64) *publication {
		return &publication{confirm: &amqp.DeferredConfirmation{DeliveryTag: tag}}
	}
	l := &lane{}
	if l.overdue(publication(1 << 40)) {
		t.Error("overdue though nothing is silent")
	}
	l.silent.Store(publication(7))
	if l.overdue(publication(7 + maxUnconfirmed)) {
		t.Error("overdue too early")
	}
	if !l.overdue(publication(8 + maxUnconfirmed)) {
		t.Error("not overdue")
	}
}
