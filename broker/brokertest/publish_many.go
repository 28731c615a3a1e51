package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

var manyCases = []testCase{
	{"carries many exactly", carriesMany},
	{"takes concurrent calls", takesConcurrentCalls},
	{"judges each envelope by itself", judgesEach},
	{"asks the context first", manyAskContext},
	{"tells whose queue is missing", tellsWhoseQueue},
	{"does not know when answers are lost", manyWithoutAnswers},
	{"does not know when requests are lost", manyWithoutRequests},
	{"is cut in the middle", cutInTheMiddle},
}

// together publishes envelopes and returns the outcome of each, once there is
// one and no more than one.
func (c *client) together(ctx context.Context, envelopes ...message.Envelope) []error {
	c.t.Helper()
	var mu sync.Mutex
	outcomes, told := make([]error, len(envelopes)), make([]int, len(envelopes))
	c.Publish(ctx, envelopes, func(i int, outcome error) {
		mu.Lock()
		defer mu.Unlock()
		outcomes[i] = outcome
		told[i]++
	})
	mu.Lock()
	defer mu.Unlock()
	for i, n := range told {
		if n != 1 {
			c.t.Errorf("envelope %d of %d has %d outcomes, want one", i, len(told), n)
		}
	}
	return slices.Clone(outcomes)
}

// several makes n envelopes, of the shards in turn.
func several(n int) (envelopes []message.Envelope) {
	for i := range n {
		envelopes = append(envelopes, envelope(i%Shards, 1+i))
	}
	return envelopes
}

// collect takes n envelopes of each shard and acknowledges them.
func (c *client) collect(n [Shards]int) map[string]message.Envelope {
	c.t.Helper()
	got := map[string]message.Envelope{}
	for shard := range Shards {
		in := c.consume(shard, 50)
		for range n[shard] {
			d := in.next()
			if _, twice := got[d.ID]; twice {
				c.t.Errorf("%q was delivered twice", d.ID)
			}
			got[d.ID] = d.Envelope
			settle(c.t, d, ack)
		}
		in.none()
		in.stop()
	}
	return got
}

func carriesMany(t *testing.T, e *Engine) {
	c := open(t, e)
	c.together(t.Context()) // of nothing
	want := several(20)
	for _, shard := range []int{1, 0} { // more than a socket holds
		large := envelope(shard, 1)
		large.Body = make([]byte, message.MaxEnvelopeBytes)
		large.Body[shard] = 7
		want = append(want, large)
	}
	want = append(want, several(3)...)
	counts := [Shards]int{}
	for i, err := range c.together(t.Context(), want...) {
		if err != nil {
			t.Errorf("envelope %d: %v", i, err)
		}
		counts[want[i].Shard]++
	}
	got := c.collect(counts)
	for _, w := range want {
		sameEnvelope(t, message.NewDelivery(got[w.ID], false, nil), w)
	}
	_ = c.Close()
	empty(t, e, 0)
	empty(t, e, 1)
}

func takesConcurrentCalls(t *testing.T, e *Engine) {
	const publishers, each, size = 6, 8, 6
	c := open(t, e)
	var wg sync.WaitGroup
	for range publishers {
		wg.Go(func() {
			for range each {
				if err := errors.Join(c.together(t.Context(), several(size)...)...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	const perShard = publishers * each * size / Shards
	c.collect([Shards]int{perShard, perShard})
}

func judgesEach(t *testing.T, e *Engine) {
	c := open(t, e)
	invalid := []message.Envelope{
		{ID: "x", Count: 1, Body: make([]byte, message.MaxEnvelopeBytes+1)},
		{Count: 1, Body: []byte("x")},
		{ID: "x", Shard: -1, Count: 1, Body: []byte("x")},
		{ID: "x", Shard: Shards, Count: 1, Body: []byte("x")},
	}
	var mixed []message.Envelope
	for i, good := range several(2 * len(invalid)) {
		if i%2 == 0 {
			mixed = append(mixed, invalid[i/2])
		}
		mixed = append(mixed, good)
	}
	for i, err := range c.together(t.Context(), mixed...) {
		if bad := i%3 == 0; bad != errors.Is(err, broker.ErrRejected) || !bad && err != nil {
			t.Errorf("envelope %d: %v, want ErrRejected: %v", i, err, bad)
		}
	}
	for i, err := range c.together(t.Context(), invalid...) {
		if !errors.Is(err, broker.ErrRejected) {
			t.Errorf("envelope %d, all being invalid: %v, want ErrRejected", i, err)
		}
	}
	c.collect([Shards]int{len(invalid), len(invalid)})
}

func manyAskContext(t *testing.T, e *Engine) {
	c := open(t, e)
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("the client has left")
	cancel(why)
	for range 20 {
		for i, err := range c.together(ctx, several(4)...) {
			if !errors.Is(err, broker.ErrRejected) || !errors.Is(err, why) {
				t.Fatalf("envelope %d: %v, want ErrRejected and the context's cause", i, err)
			}
		}
	}
	empty(t, e, 0)
	empty(t, e, 1)
}

func tellsWhoseQueue(t *testing.T, e *Engine) {
	if e.DeleteQueue == nil {
		return // its queues are always there
	}
	c := open(t, e)
	if err := errors.Join(c.together(t.Context(), several(2)...)...); err != nil {
		t.Fatal(err)
	}
	e.DeleteQueue(t, 0)
	lost := several(6)
	lost = append(lost, lost[0]) // a retry
	rejected, published := 0, 0
	for i, err := range c.together(t.Context(), lost...) {
		switch {
		case err != nil && !errors.Is(err, broker.ErrRejected):
			t.Errorf("envelope %d: %v, want ErrRejected or nil", i, err)
		case lost[i].Shard == 0 && err != nil:
			rejected++
		case lost[i].Shard == 1 && err == nil:
			published++
		}
	}
	if rejected == 0 {
		t.Error("no envelope was rejected, though there was no queue")
	}
	c.insist(lost[0])
	// Queues that are parts of one thing go together, with what was in them.
	// Otherwise the other one knows nothing of it.
	got := 0
	eventually(t, func() bool {
		got = e.Depth(t, 1)
		return got == published+1 && published == 3 || got == published
	}, func() string {
		return fmt.Sprintf("%d envelopes in shard 1, where %d of 3 were published", got, published)
	})
}

func manyWithoutAnswers(t *testing.T, e *Engine)  { loseMany(t, e, Answers, 1) }
func manyWithoutRequests(t *testing.T, e *Engine) { loseMany(t, e, Requests, 0) }

// loseMany publishes twice into the void: once until the context ends, once
// until the connection does.
func loseMany(t *testing.T, e *Engine, what Loss, each int) {
	const n = 5
	for _, cut := range []bool{false, true} {
		c := open(t, e)
		before := [Shards]int{e.Depth(t, 0), e.Depth(t, 1)}
		e.Lose(t, what)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		if !cut {
			ctx, cancel = context.WithTimeout(ctx, quiet)
			defer cancel()
		}
		outcomes, began := make(chan []error, 1), time.Now()
		go func() { outcomes <- c.together(ctx, several(n*Shards)...) }()
		if cut {
			time.Sleep(quiet) // it has nothing to say that could be waited for
			e.Break(t)
		}
		select {
		case all := <-outcomes:
			for i, err := range all {
				if !errors.Is(err, broker.ErrUnknown) {
					t.Errorf("envelope %d: %v, want ErrUnknown", i, err)
				}
			}
		case <-time.After(patience):
			t.Fatal("a call ends neither with its context nor with its connection")
		}
		if took := time.Since(began); took > quiet+slack {
			t.Errorf("it took %v", took)
		}
		if !cut {
			e.Break(t)
		}
		c.awaitReady()
		for shard := range Shards {
			depth(t, e, shard, before[shard]+n*each)
		}
		_ = c.Close()
	}
}

// cutInTheMiddle cuts the connection under calls again and again. What is
// said to be published is there, and what is said not to be is not.
func cutInTheMiddle(t *testing.T, e *Engine) {
	const calls, size, publishers = 30, 10, 3
	c := open(t, e)
	var mu sync.Mutex
	said := map[string]error{}
	counts := map[string]int{}
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range calls {
				if p == 0 && i%8 == 4 {
					e.Break(t)
				}
				envelopes := several(size)
				for k := range envelopes {
					envelopes[k].Body = slices.Concat(envelopes[k].Body, make([]byte, 50_000)) // some writes
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				outcomes := c.together(ctx, envelopes...)
				cancel()
				mu.Lock()
				for k, err := range outcomes {
					said[envelopes[k].ID] = err
					switch {
					case err == nil:
						counts["published"]++
					case errors.Is(err, broker.ErrRejected):
						counts["rejected"]++
					case errors.Is(err, broker.ErrUnknown):
						counts["unknown"]++
					default:
						t.Errorf("%v is neither ErrRejected nor ErrUnknown", err)
					}
				}
				mu.Unlock()
				if outcomes[0] != nil {
					time.Sleep(5 * time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
	c.awaitReady()
	if counts["published"] == 0 {
		t.Errorf("outcomes %v, want some published", counts)
	}
	found := map[string]bool{}
	for shard := range Shards {
		in := c.consume(shard, 50)
		last := envelope(shard, 1)
		c.insist(last)
		// Behind it only redeliveries could come, and there are none.
		for came := false; !came; {
			d := in.next()
			came = d.ID == last.ID
			found[d.ID] = true
			settle(t, d, ack)
		}
		in.none()
		in.stop()
	}
	for id, err := range said {
		if err == nil && !found[id] {
			t.Errorf("%q is lost, though published", id)
		}
		if errors.Is(err, broker.ErrRejected) && found[id] {
			t.Errorf("%q is there, though rejected: %v", id, err)
		}
	}
}
