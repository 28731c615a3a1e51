package publisher_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/message"
	"async-data-processor/publisher"
)

// visits has clients submit messages of a size for a second of fake time to a broker that takes so long
// for each round. Client i pauses for pause(i) before each submission, of a message to
// the shard i modulo three. It returns how many submissions each client had answered,
// how long one took on average, and the number of rounds.
func visits(t *testing.T, clients, size int, takes time.Duration, pause func(client int) time.Duration) (answered []int, mean time.Duration, rounds int) {
	answered = make([]int, clients)
	var began atomic.Int64 // two rounds may overlap: a timer that fires late ends the wait of another round
	synctest.Test(t, func(t *testing.T) {
		const shards = 3
		at := instants(shards)
		p := publisher.New(publisher.Config{Shards: shards, Timeout: timeout, Broker: publisher.Func(
			func(_ context.Context, envelopes []message.Envelope, done func(int, error)) {
				began.Add(1)
				time.Sleep(takes)
				for i := range envelopes {
					done(i, nil)
				}
			})})
		over := time.Now().Add(time.Second)
		var (
			running sync.WaitGroup
			mu      sync.Mutex
			total   time.Duration
			count   int
		)
		for client := range clients {
			running.Go(func() {
				for time.Now().Before(over) {
					time.Sleep(pause(client))
					sent := time.Now()
					s := message.Submission{ID: "S", Messages: []message.Message{numbered(0, size, at[client%shards])}}
					if _, err := p.Submit(t.Context(), s); err != nil {
						t.Error(err)
					}
					answered[client]++
					mu.Lock()
					total += time.Since(sent)
					count++
					mu.Unlock()
				}
			})
		}
		running.Wait()
		mean = total / time.Duration(count)
	})
	return answered, mean, int(began.Load())
}

// TestCompany: clients that send again soon after their answer are together in every
// round, and do not take turns in two halves.
func TestCompany(t *testing.T) {
	const clients = 16
	// Two of them are slower than a round.
	answered, _, rounds := visits(t, clients, 100, time.Millisecond, func(client int) time.Duration {
		if client < 2 {
			return 3 * time.Millisecond
		}
		return time.Duration(100+20*client) * time.Microsecond
	})
	total := 0
	for _, n := range answered {
		total += n
	}
	if total < 13*rounds {
		t.Errorf("%d submissions in %d rounds, want 13 a round of %d clients", total, rounds, clients)
	}
	if total < 9000 {
		t.Errorf("%d submissions were answered, want 9,000", total)
	}
}

// TestNoCompany: clients that do not come back soon cost the others next to nothing,
// and one that is alone is not held up.
func TestNoCompany(t *testing.T) {
	const takes = time.Millisecond
	// As many come as a round takes anyway: without a wait the mean is 1.5 rounds.
	if _, mean, _ := visits(t, 64, 100, takes, func(client int) time.Duration {
		return 20*time.Millisecond + time.Duration(client*client)*time.Microsecond
	}); mean > 7*takes/4 {
		t.Errorf("a submission takes %v, want 1.75 times a round of %v at most", mean, takes)
	}
	answered, _, _ := visits(t, 3, 100, takes, func(client int) time.Duration { return time.Duration(client) * 5 * time.Millisecond })
	if answered[0] < 700 {
		t.Errorf("beside two slow clients a fast one had %d submissions of a millisecond answered in a second", answered[0])
	}
	// Large rounds do not wait: clients that are together then take turns.
	answered, _, rounds := visits(t, 16, 100_000, takes, func(client int) time.Duration { return time.Duration(100+20*client) * time.Microsecond })
	total := 0
	for _, n := range answered {
		total += n
	}
	if total > 12*rounds {
		t.Errorf("%d large submissions in %d rounds, want them to take turns", total, rounds)
	}
	if _, mean, _ := visits(t, 1, 100, takes, func(int) time.Duration { return 100 * time.Microsecond }); mean != takes {
		t.Errorf("alone a submission takes %v, want %v", mean, takes)
	}
}
