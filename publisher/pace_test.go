package publisher_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/message"
	"async-data-processor/publisher"
)

// pacedFor is how long, in fake time, clients of paced go on.
const pacedFor = 3 * time.Second

// paced has clients submit to a shard each, again and again. The confirm of an
// envelope takes what confirm says. It returns the submissions and envelopes of
// each shard.
func paced(t *testing.T, confirm func(shard int) time.Duration) (submissions, envelopes [5]int64) {
	synctest.Test(t, func(t *testing.T) {
		at := instants(len(submissions))
		p := publisher.New(publisher.Config{Shards: len(submissions), Timeout: timeout, Broker: oneByOne(
			func(_ context.Context, e message.Envelope) error {
				atomic.AddInt64(&envelopes[e.Shard], 1)
				time.Sleep(confirm(e.Shard))
				return nil
			})})
		over := time.Now().Add(pacedFor)
		const clients = 50
		done := make(chan error)
		for client := range clients {
			n := client % len(submissions)
			go func() {
				var errs []error
				for time.Now().Before(over) {
					s := message.Submission{ID: "S", Messages: []message.Message{numbered(0, 100, at[n])}}
					_, err := p.Submit(t.Context(), s)
					errs = append(errs, err)
					atomic.AddInt64(&submissions[n], 1)
				}
				done <- errors.Join(errs...)
			}()
		}
		for range clients {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	return submissions, envelopes
}

// TestSlowShard: a queue that confirms slowly sets its own pace, and no other's.
func TestSlowShard(t *testing.T) {
	const usual = 2 * time.Millisecond
	alone, _ := paced(t, func(int) time.Duration { return usual })
	for _, slow := range []time.Duration{20 * time.Millisecond, 45 * time.Millisecond, 60 * time.Millisecond, time.Second} {
		submissions, _ := paced(t, func(shard int) time.Duration {
			if shard == 0 {
				return slow
			}
			return usual
		})
		for n := 1; n < len(submissions); n++ {
			if submissions[n] < alone[n]/2 {
				t.Errorf("beside a queue that takes %v, shard %d gets %d submissions done instead of %d", slow, n, submissions[n], alone[n])
			}
		}
	}
}

// TestSlowBroker: where all confirms take long, the next envelope follows each at
// once.
func TestSlowBroker(t *testing.T) {
	for _, takes := range []time.Duration{25, 49, 51, 75, 110, 200} {
		takes *= time.Millisecond
		_, envelopes := paced(t, func(int) time.Duration { return takes })
		for n, got := range envelopes {
			if want := int64(pacedFor/takes) * 2 / 3; got < want {
				t.Errorf("with confirms of %v, shard %d has published %d envelopes, want at least %d", takes, n, got, want)
			}
		}
	}
}

// TestNextWaiter: a submission that is confirmed at its deadline leaves no signal
// behind, which the next one would take for its own.
func TestNextWaiter(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 200 {
		confirmed, confirm, first := make(chan struct{}), make(chan struct{}), true
		broker := func(_ context.Context, envelopes []message.Envelope, done func(int, error)) {
			if first {
				first = false
				defer close(confirmed)
			} else {
				<-confirm
			}
			for i := range envelopes {
				done(i, nil)
			}
		}
		p := publisher.New(publisher.Config{Broker: publisher.Func(broker), Shards: 1, Timeout: timeout})
		if _, err := p.Submit(lateContext{gone, confirmed}, decoded(t, 3)); err != nil {
			t.Fatal(err)
		}
		answered := make(chan bool)
		go func() {
			_, _ = p.Submit(t.Context(), decoded(t, 3))
			answered <- true
		}()
		select {
		case <-answered:
			t.Fatal("answered before its envelope was confirmed")
		case <-time.After(2 * time.Millisecond):
		}
		close(confirm)
		<-answered
	}
}
