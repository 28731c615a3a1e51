package publisher_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/message"
	"async-data-processor/publisher"
	"async-data-processor/shard"
)

const timeout = 5 * time.Second

// harness is a publisher in a bubble of fake time, and a broker that confirms
// when the test tells it to.
type harness struct {
	t         *testing.T
	publisher *publisher.Publisher
	at        []time.Time  // an instant of each shard
	outcomes  []chan error // by shard, of the envelope under way

	mu     sync.Mutex // guards rounds
	rounds []string   // the shards of each, in order, with their number of messages
}

func newHarness(t *testing.T, shards int) *harness {
	h := &harness{t: t, at: instants(shards), outcomes: make([]chan error, shards)}
	for i := range h.outcomes {
		h.outcomes[i] = make(chan error)
	}
	h.publisher = publisher.New(publisher.Config{Broker: publisher.Func(h.publish), Shards: shards, Timeout: timeout})
	return h
}

// instants returns an instant of each shard.
func instants(shards int) []time.Time {
	instants := make([]time.Time, shards)
	for found, at := 0, epoch; found < shards; at = at.Add(time.Second) {
		if n := shard.Of(at, shards); instants[n].IsZero() {
			instants[n] = at
			found++
		}
	}
	return instants
}

func (h *harness) publish(ctx context.Context, envelopes []message.Envelope, done func(int, error)) {
	var text []byte
	for _, e := range envelopes {
		text = fmt.Appendf(text, "%d:%d ", e.Shard, e.Count)
	}
	h.mu.Lock()
	h.rounds = append(h.rounds, string(text))
	h.mu.Unlock()
	oneByOne(func(ctx context.Context, e message.Envelope) error {
		select {
		case err := <-h.outcomes[e.Shard]:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})(ctx, envelopes, done)
}

// answer is what a submission is told.
type answer struct {
	shards []message.ShardCount
	err    error
	took   time.Duration
}

// submit submits a message for each of the shards, beside the test.
func (h *harness) submit(shards ...int) <-chan answer { return h.submitUntil(h.t.Context(), shards...) }

func (h *harness) submitUntil(ctx context.Context, shards ...int) <-chan answer {
	return h.submitSized(ctx, 100, shards...)
}

func (h *harness) submitSized(ctx context.Context, size int, shards ...int) <-chan answer {
	s := message.Submission{ID: "S"}
	for i, n := range shards {
		s.Messages = append(s.Messages, numbered(i, size, h.at[n]))
	}
	answered := make(chan answer, 1)
	go func() {
		began := time.Now()
		shards, err := h.publisher.Submit(ctx, s)
		answered <- answer{shards, err, time.Since(began)}
	}()
	synctest.Wait()
	return answered
}

// confirm confirms the envelope under way of each of the shards.
func (h *harness) confirm(shards ...int) {
	h.t.Helper()
	for _, n := range shards {
		h.settle(n, nil)
	}
}

// settle gives an outcome to the shard's envelope under way.
func (h *harness) settle(shard int, outcome error) {
	h.t.Helper()
	select {
	case h.outcomes[shard] <- outcome:
	case <-time.After(time.Nanosecond):
		h.t.Fatalf("no envelope of shard %d is under way", shard)
	}
	synctest.Wait()
}

// wantRounds checks which rounds have come since the last call.
func (h *harness) wantRounds(want ...string) {
	h.t.Helper()
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Equal(h.rounds, want) {
		h.t.Fatalf("rounds %q, want %q", h.rounds, want)
	}
	h.rounds = nil
}

// wantError checks that a submission is answered with the error.
func (h *harness) wantError(answered <-chan answer, want error) {
	h.t.Helper()
	if a := <-answered; !errors.Is(a.err, want) {
		h.t.Errorf("error %v, want %v", a.err, want)
	}
}

// wantPublished checks that a submission was answered, without an error.
func (h *harness) wantPublished(answered <-chan answer) {
	h.t.Helper()
	select {
	case a := <-answered:
		if a.err != nil {
			h.t.Errorf("error %v", a.err)
		}
	default:
		h.t.Error("a submission is not answered though its envelopes are confirmed")
	}
}
