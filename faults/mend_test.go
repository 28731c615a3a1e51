package faults

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"async-data-processor/broker"
	"async-data-processor/deadletter"
	"async-data-processor/event"
	"async-data-processor/faults/rig"
	"async-data-processor/live"
	"async-data-processor/message"
)

// TestMended edits and replays dead letters over every engine. They are in the queue with
// their ids and gone from the dead letters, and the receipt of their submission is whole
// when they are written.
func TestMended(t *testing.T) {
	t.Parallel()
	for _, e := range []engine{rabbitmq, embedded, jetstream} {
		t.Run(e.testName(), func(t *testing.T) {
			t.Parallel()
			b := openBroker(t, e.open(t).Server)
			letters := showLetters(t, b)
			id := message.WithCount(message.NewID(), 3)
			kill(t, b, envelope(id, 3), message.Outcome{Kind: message.DeadLetter, Dead: []message.Dead{{Line: line(id, 1), Reason: "the second"}}})
			other := message.WithCount(message.NewID(), 3)
			var others []message.Dead
			for i := range 3 {
				others = append(others, message.Dead{Line: line(other, i), Reason: "other"})
			}
			kill(t, b, envelope(other, 3), message.Outcome{Kind: message.DeadLetter, Dead: others})
			written := map[string]uint64{id: 0b101}
			follow(t, b, written)(id, live.DeadLetters, 2, 1)

			key := keyOf(t, b, id+".1")
			body := strings.Replace(string(line(id, 1)), `Z"}`, `Z","value":"mended"}`, 1)
			for range 2 { // it dies again, and the same edit is another one then
				got, err := letters.Replay(deadletter.Change{Key: key, Body: &body})
				if err != nil || got.ID != id+".1" || got.Shard != 0 {
					t.Fatalf("%+v, %v", got, err)
				}
				d := take(t, b, 1, message.Outcome{Kind: message.DeadLetter, Reason: "still bad"})[0]
				if string(d.Body) != body+"\n" || d.Count != 1 || d.Foreign {
					t.Fatalf("in the queue: %+v", d)
				}
				rig.Eventually(t, "dead letter", func() error {
					if key = keyOf(t, b, id+".1"); key == "" {
						return errors.New("it is not there")
					}
					return nil
				})
			}
			if _, err := letters.Replay(deadletter.Change{Key: key}); err != nil {
				t.Fatal(err)
			}
			if d := take(t, b, 1, message.Outcome{})[0]; string(d.Body) != body+"\n" {
				t.Errorf("in the queue: %q", d.Body)
			}
			written[id] = 0b111
			follow(t, b, written)(id, live.Written, 3, 0)

			// A task takes the others.
			v, err := letters.Start(t.Context(), "test", deadletter.Order{Do: deadletter.ActionReplay, Rate: 1000, AsOf: time.Now().Add(time.Second)})
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range take(t, b, len(others), message.Outcome{}) {
				if !strings.HasPrefix(d.ID, other) {
					t.Errorf("in the queue: %+v", d)
				}
			}
			rig.Eventually(t, "end of the task", func() error {
				got, err := letters.Task(t.Context(), v.ID)
				if err != nil || got.State != deadletter.Done || got.Done != len(others) {
					return fmt.Errorf("%+v, %v", got, err)
				}
				return nil
			})
		})
	}
}

// showLetters starts what shows dead letters.
func showLetters(t *testing.T, b broker.Broker) *deadletter.Letters {
	t.Helper()
	l := deadletter.New(deadletter.Config{
		Broker: b, Rules: message.Strict, Shards: 1, Node: func() string { return "node" }, Nodes: func() int { return 1 },
		Tell: func(event.Event) {},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	rig.Eventually(t, "what shows dead letters", func() error {
		if _, err := l.Replay(deadletter.Change{Key: "none"}); !errors.Is(err, deadletter.ErrNotFound) {
			return err
		}
		return nil
	})
	return l
}

// keyOf is the key of the dead letter that has a message; empty if there is none.
func keyOf(t *testing.T, b broker.Broker, id string) (key string) {
	t.Helper()
	err := b.DeadLetters(t.Context(), func(d broker.DeadLetter) broker.Verdict {
		if deadletter.HasID(&d, id) {
			key = deadletter.Key(&d)
		}
		return broker.Keep
	})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// take settles the next n envelopes with the outcome, and returns them.
func take(t *testing.T, b broker.Broker, n int, o message.Outcome) (all []message.Envelope) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), rig.Patience)
	deliveries, ended := make(chan *message.Delivery), make(chan error, 1)
	go func() { ended <- b.Consume(ctx, 0, n, deliveries) }()
	for range n {
		select {
		case d := <-deliveries:
			all = append(all, d.Envelope)
			if err := d.Settle(o); err != nil {
				t.Error(err)
			}
		case <-ctx.Done():
			t.Fatalf("%d envelopes are in the queue, want %d", len(all), n)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	return all
}
