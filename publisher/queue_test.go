package publisher_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/message"
	"async-data-processor/publisher"
)

// TestGroupCommit: what comes while an envelope is under way shares the next one,
// and every submission is told the outcome of its own.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, 1)
		first := h.submit(0)
		var later []<-chan answer
		for range 11 {
			later = append(later, h.submit(0))
		}
		h.wantRounds("0:1 ")
		h.confirm(0)
		h.wantRounds("0:11 ")
		h.wantPublished(first)
		for _, answered := range later {
			if len(answered) > 0 {
				t.Error("a submission is answered before its envelope is confirmed")
			}
		}
		failure := errors.New("refused")
		h.settle(0, failure)
		for _, answered := range later {
			h.wantError(answered, failure)
		}
	})
}

// TestWaitingIsBounded: an envelope that waits is never too large.
func TestWaitingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, 1)
		const half = message.MaxEnvelopeBytes/2 - 1
		for range 7 {
			h.submitSized(t.Context(), half, 0)
		}
		h.wantRounds("0:1 ")
		close(h.outcomes[0])
		h.wantRounds("0:2 ", "0:2 ", "0:2 ")
	})
}

// TestTimeout: a round gets its time-out from when it begins.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, 1)
		for i, answered := range []<-chan answer{h.submit(0), h.submit(0)} {
			a := <-answered
			if a.err == nil || !strings.Contains(a.err.Error(), "no confirm within 5s") {
				t.Errorf("error %v", a.err)
			}
			if want := time.Duration(i+1) * timeout; a.took != want {
				t.Errorf("answer %d after %v, want %v", i, a.took, want)
			}
		}
	})
}

// TestGivesUp: Submit waits no longer than its context allows, and an envelope
// that has no waiter is not published.
func TestGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, 1)
		tired := errors.New("tired")
		first := h.submit(0)
		ctx, cancel := context.WithCancelCause(t.Context())
		abandoned := h.submitUntil(ctx, 0)
		cancel(tired)
		h.wantError(abandoned, tired)
		h.confirm(0)
		h.wantPublished(first)
		h.wantRounds("0:1 ")

		// One of two in an envelope gives up: it is published all the same.
		first = h.submit(0)
		ctx, cancel = context.WithCancelCause(t.Context())
		abandoned, other := h.submitUntil(ctx, 0), h.submit(0)
		cancel(tired)
		h.wantError(abandoned, tired)
		h.confirm(0)
		h.wantPublished(first)
		h.wantRounds("0:1 ", "0:2 ")
		h.confirm(0)
		h.wantPublished(other)
	})
}

// TestManySubmitters: under load every message is in one envelope, and every
// submission is told the outcomes of the envelopes that have its messages.
func TestManySubmitters(t *testing.T) {
	const clients, rounds, shards = 16, 50, 3
	failure := errors.New("refused")
	var (
		mu        sync.Mutex
		published = map[string]int{}
		publishes int
		underWay  [shards]atomic.Int32
	)
	broker := oneByOne(func(_ context.Context, e message.Envelope) error {
		if n := underWay[e.Shard].Add(1); n > 1 {
			t.Errorf("%d envelopes of a shard at a time", n)
		}
		defer underWay[e.Shard].Add(-1)
		mu.Lock()
		defer mu.Unlock()
		if publishes++; publishes%7 == 3 {
			return failure
		}
		messages, dead, err := message.Strict.Open(e)
		if err != nil || len(dead) > 0 {
			t.Error(err)
		}
		for _, m := range messages {
			published[m.ID()]++
		}
		return nil
	})
	p := publisher.New(publisher.Config{Broker: broker, Shards: shards, Timeout: time.Minute})
	var clientsDone sync.WaitGroup
	for range clients {
		clientsDone.Go(func() {
			for range rounds {
				s := decoded(t, 20)
				if _, err := p.Submit(t.Context(), s); err != nil {
					if !errors.Is(err, failure) {
						t.Error(err)
					}
					continue
				}
				mu.Lock()
				for _, m := range s.Messages {
					if published[m.ID()] != 1 {
						t.Errorf("%s is published %d times", m.ID(), published[m.ID()])
					}
				}
				mu.Unlock()
			}
		})
	}
	clientsDone.Wait()
}
