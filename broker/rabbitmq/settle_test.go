package rabbitmq

import (
	"errors"
	"sync"
	"testing"

	"async-data-processor/broker"
	"async-data-processor/broker/conn"
	"async-data-processor/message"
)

// receive publishes n envelopes to shard 0 and subscribes to as many deliveries.
func receive(t *testing.T, b *Broker, s *session, n int) (sub *subscription, got []*message.Delivery) {
	t.Helper()
	envelopes := make([]message.Envelope, n)
	for i := range envelopes {
		envelopes[i] = envelope(0)
	}
	b.Publish(t.Context(), envelopes, func(_ int, err error) {
		if err != nil {
			t.Error(err)
		}
	})
	ch, err := s.channel()
	if err != nil {
		t.Fatal(err)
	}
	sub = &subscription{broker: b, session: s, ch: ch}
	messages, err := sub.start(n)
	if err != nil {
		t.Fatal(err)
	}
	for m := range messages {
		if got = append(got, sub.delivery(&m)); len(got) == n {
			break
		}
	}
	if len(got) < n {
		t.Fatalf("%d deliveries, want %d", len(got), n)
	}
	return sub, got
}

// leave ends a session in order.
func leave(s *session) {
	s.Fail(broker.ErrClosed)
	s.Leave()
	s.Loops.Wait()
}

// TestSettleWhileClosing: what is settled while its channel is being closed does
// not cost the connection, and with it the deliveries of all shards.
func TestSettleWhileClosing(t *testing.T) {
	url := sharedNode(t)
	engine(t, url, url)
	b, _ := openBroker(t, url, defaultTiming)
	ready(t, b)
	s, err := b.dial(t.Context(), conn.Consume)
	if err == nil {
		err = s.Prepare()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { leave(s) })
	const rounds, envelopes, settlers = 12, 80, 4
	for round := range rounds {
		sub, held := receive(t, b, s, envelopes)
		var all sync.WaitGroup
		for first := range settlers {
			pace, err := s.channel()
			if err != nil {
				t.Fatalf("round %d cost the connection: %v: %v", round, err, <-s.lost)
			}
			all.Go(func() {
				for i := first; i < envelopes; i += settlers {
					if i == envelopes/4 {
						all.Go(sub.close)
					}
					kind := message.Ack
					if i/settlers%2 == 1 {
						kind = message.Return
					}
					err := held[i].Settle(message.Outcome{Kind: kind})
					if err != nil && !errors.Is(err, broker.ErrStale) {
						t.Errorf("settling: %v", err)
					}
					_ = pace.Qos(1, 0, false) // a round trip, so that some meet the answer to the close
				}
				_ = s.rpc(pace.Close)
			})
		}
		all.Wait()
		// What the broker thinks of it comes before its answer.
		ch, err := s.channel()
		if err != nil {
			t.Fatalf("round %d cost the connection: %v: %v", round, err, <-s.lost)
		}
		_ = s.rpc(ch.Close)
	}
}

// TestLeaveTells: what is gathered when a session ends is told before.
func TestLeaveTells(t *testing.T) {
	url := sharedNode(t)
	e := engine(t, url, url)
	b, _ := openBroker(t, url, defaultTiming)
	ready(t, b)
	s, err := b.dial(t.Context(), conn.Consume) // which tells nothing by itself, not being prepared
	if err != nil {
		t.Fatal(err)
	}
	_, held := receive(t, b, s, 3)
	for _, d := range held[:2] {
		if err := d.Settle(message.Outcome{Kind: message.Ack}); err != nil {
			t.Error(err)
		}
	}
	leave(s)
	soon(t, "one is back in its queue", func() bool { return e.Depth(t, 0) == 1 })
}
