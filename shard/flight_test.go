package shard_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/message"
	"async-data-processor/shard"
)

// gate is a broker that confirms when it is told to.
type gate struct {
	recorder
	verdicts chan error
}

func (g *gate) publish(ctx context.Context, e message.Envelope) error {
	_ = g.recorder.publish(ctx, e)
	select {
	case err := <-g.verdicts:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// counts are the sizes of the envelopes that came so far.
func (g *gate) counts() (sizes []int) {
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.envelopes {
		sizes = append(sizes, e.Count)
	}
	return sizes
}

// one is a submission of a message of about size bytes.
func one(i, size int) message.Submission {
	return message.Submission{ID: "S", Messages: []message.Message{numbered(i, size, epoch)}}
}

// flight is a lane over a gate, in a bubble of fake time.
type flight struct {
	*gate
	lanes *shard.Lanes
	done  chan error
}

const timeout = 5 * time.Second

func newFlight() *flight {
	g := &gate{verdicts: make(chan error)}
	return &flight{g, shard.NewLanes(1, timeout, oneByOne(g.publish)), make(chan error, 1000)}
}

// submit submits beside the test; the joined outcome comes on done.
func (f *flight) submit(ctx context.Context, s message.Submission) {
	go func() {
		_, outcomes := f.lanes.Submit(ctx, s)
		f.done <- errors.Join(outcomes...)
	}()
	synctest.Wait()
}

func (f *flight) want(t *testing.T, sizes ...int) {
	t.Helper()
	if got := f.counts(); fmt.Sprint(got) != fmt.Sprint(sizes) {
		t.Fatalf("envelopes of %v messages, want %v", got, sizes)
	}
}

// TestGroupCommit: what comes while an envelope flies shares the next one, and
// every submission hears of its own.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlight()
		for i := range 12 {
			f.submit(t.Context(), one(i, 100))
		}
		f.want(t, 1)
		f.verdicts <- nil
		f.want(t, 1, 11)
		if len(f.done) != 1 {
			t.Errorf("%d submissions are done, want the one whose envelope is", len(f.done))
		}
		failure := errors.New("refused")
		f.verdicts <- failure
		synctest.Wait()
		if len(f.done) != 12 {
			t.Fatalf("%d submissions are done, want all", len(f.done))
		}
		failed := 0
		for range 12 {
			if err := <-f.done; errors.Is(err, failure) {
				failed++
			} else if err != nil {
				t.Error(err)
			}
		}
		if failed != 11 {
			t.Errorf("%d submissions failed, want those of the two envelopes that did", failed)
		}
	})
}

// TestWaitingIsBounded: an envelope that waits is never too large.
func TestWaitingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlight()
		const half = message.MaxEnvelopeBytes/2 - 1
		for i := range 7 {
			f.submit(t.Context(), one(i, half))
		}
		f.want(t, 1)
		close(f.verdicts)
		f.want(t, 1, 2, 2, 2)
	})
}

// TestPublishTimeout: a publish gets its time-out from when it begins.
func TestPublishTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlight()
		began := time.Now()
		for i := range 2 {
			f.submit(t.Context(), one(i, 100))
		}
		for i := range 2 {
			if err := <-f.done; err == nil || !strings.Contains(err.Error(), "no confirm within 5s") {
				t.Errorf("outcome %v", err)
			}
			if got, want := time.Since(began), time.Duration(i+1)*timeout; got != want {
				t.Errorf("outcome %d after %v, want %v", i, got, want)
			}
		}
	})
}

// TestGivenUp: nobody waits longer than its context allows, and what nobody
// waits for is not published.
func TestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlight()
		f.submit(t.Context(), one(0, 100))
		tired := errors.New("tired")
		ctx, cancel := context.WithCancelCause(t.Context())
		f.submit(ctx, one(2, 100))
		cancel(tired)
		if err := <-f.done; !errors.Is(err, tired) {
			t.Errorf("outcome %v, want the context's cause", err)
		}
		f.verdicts <- nil
		<-f.done
		f.want(t, 1) // the second was withdrawn

		// One of two in an envelope gives up: it is published all the same.
		ctx, cancel = context.WithCancelCause(t.Context())
		f.submit(t.Context(), one(3, 100)) // flies
		f.submit(ctx, one(4, 100))
		f.submit(t.Context(), one(5, 100))
		cancel(tired)
		if err := <-f.done; !errors.Is(err, tired) {
			t.Errorf("outcome %v, want the context's cause", err)
		}
		close(f.verdicts)
		f.want(t, 1, 1, 2)
		for range 2 {
			if err := <-f.done; err != nil {
				t.Error(err)
			}
		}
	})
}

// TestManySubmitters: under load every message is in one envelope, and every
// submission is told the outcome of the envelopes that have its messages.
func TestManySubmitters(t *testing.T) {
	const clients, rounds, shards = 16, 50, 3
	failure := errors.New("refused")
	var (
		mu        sync.Mutex
		published = map[string]int{}
		publishes int
		flying    [shards]atomic.Int32
	)
	lanes := shard.NewLanes(shards, time.Minute, oneByOne(func(_ context.Context, e message.Envelope) error {
		if n := flying[e.Shard].Add(1); n > 1 {
			t.Errorf("%d envelopes of a lane at a time", n)
		}
		defer flying[e.Shard].Add(-1)
		mu.Lock()
		defer mu.Unlock()
		if publishes++; publishes%7 == 3 {
			return failure
		}
		messages, dead, err := e.Open()
		if err != nil || len(dead) > 0 {
			t.Error(err)
		}
		for _, m := range messages {
			published[m.ID()]++
		}
		return nil
	}))
	var clientsDone sync.WaitGroup
	for range clients {
		clientsDone.Go(func() {
			for range rounds {
				s := decoded(t, 20)
				counts, outcomes := lanes.Submit(t.Context(), s)
				if len(counts) == 0 || outcomes != nil && len(outcomes) < len(counts) {
					t.Errorf("counts %v, %d outcomes", counts, len(outcomes))
				}
				if errors.Join(outcomes...) != nil {
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
