package brokertest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/message"
)

var connectionCases = []testCase{
	{"reconnects", reconnects},
	{"never settles another's message", neverSettlesAnothers},
	{"does not know when the answer is lost", unknownWithoutAnswer},
	{"does not know when the request is lost", unknownWithoutRequest},
}

var engineCases = []testCase{
	{"survives a restart", survivesRestart},
	{"counts backlogs when it is back", countsWhenBack},
	{"never outlives its context", neverOutlivesContext},
	{"rejects at once when blocked", rejectsWhenBlocked},
	{"keeps dead letters that cannot be replayed", keepsUnreplayed},
}

// reconnects cuts the connections again and again under publishes.
func reconnects(t *testing.T, e *Engine) {
	const cuts, each = 4, 10
	c := open(t, e)
	in := c.consume(0, 5)
	sent := make(chan string, cuts*each)
	go func() {
		defer close(sent)
		for i := range cuts * each {
			if i%each == each/2 {
				e.Break(t)
			}
			env := envelope(0, 1)
			for {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				err := Publish(ctx, c, env)
				cancel()
				if err == nil {
					break
				}
				if !errors.Is(err, broker.ErrRejected) && !errors.Is(err, broker.ErrUnknown) {
					t.Errorf("%v is neither ErrRejected nor ErrUnknown", err)
				}
				if t.Context().Err() != nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
			sent <- env.ID
		}
	}()
	seen := map[string]bool{}
	for id := range sent {
		for !seen[id] {
			d := in.next()
			seen[d.ID] = true
			if err := d.Settle(ack); err != nil && !errors.Is(err, broker.ErrStale) {
				t.Errorf("settling: %v", err)
			}
		}
	}
	c.awaitReady()
	in.cancel()
	<-in.done
}

// neverSettlesAnothers settles deliveries whose connection is gone, while
// others are held that an engine could take for them.
func neverSettlesAnothers(t *testing.T, e *Engine) {
	const n = 5
	for _, late := range []message.Outcome{ack, {Kind: message.DeadLetter, Reason: "late"}, giveUp} {
		c := open(t, e)
		for range n {
			c.publish(envelope(0, 1))
		}
		in := c.consume(0, n)
		old := in.take(n)
		e.Break(t)
		again := in.take(n)
		for id, d := range old {
			if !again[id].Redelivered {
				t.Errorf("%q is not called redelivered", id)
			}
			if err := d.Settle(late); !errors.Is(err, broker.ErrStale) {
				t.Errorf("a late %v: %v, want ErrStale", late.Kind, err)
			}
		}
		in.none()
		_ = c.Close()
		depth(t, e, 0, n)
		if got := e.DeadLetters(t); len(got) > 0 {
			t.Fatalf("a late %v left %d dead letters", late.Kind, len(got))
		}
		// The next round starts with empty queues.
		c = open(t, e)
		in = c.consume(0, n)
		for _, d := range in.take(n) {
			settle(t, d, ack)
		}
		in.stop()
		_ = c.Close()
	}
	empty(t, e, 0)
}

// unknownWithoutAnswer: failed, but persisted.
func unknownWithoutAnswer(t *testing.T, e *Engine) {
	c := open(t, e)
	env := envelope(0, 1)
	e.Lose(t, Answers)
	failUnknown(t, e, c, env)
	c.awaitReady()
	depth(t, e, 0, 1)
	c.insist(env)
	in := c.consume(0, 5)
	sameEnvelope(t, in.next(), env)
}

// unknownWithoutRequest: failed, and not persisted.
func unknownWithoutRequest(t *testing.T, e *Engine) {
	c := open(t, e)
	env := envelope(0, 1)
	e.Lose(t, Requests)
	failUnknown(t, e, c, env)
	c.awaitReady()
	empty(t, e, 0)
	c.insist(env)
	in := c.consume(0, 5)
	d := in.next()
	sameEnvelope(t, d, env)
	settle(t, d, ack)
	in.none()
}

// failUnknown publishes twice into the void: once until the connection ends, and
// meanwhile once until the context does.
func failUnknown(t *testing.T, e *Engine, c *client, env message.Envelope) {
	t.Helper()
	failed := make(chan error, 1)
	go func() { failed <- Publish(context.Background(), c, env) }()
	time.Sleep(quiet) // it has nothing to say that could be waited for
	ctx, cancel := context.WithTimeout(context.Background(), quiet)
	defer cancel()
	began := time.Now()
	other := env
	other.Shard = 1
	// An engine may keep it back until it has an answer to the first.
	if err := Publish(ctx, c, other); !errors.Is(err, broker.ErrUnknown) && !errors.Is(err, broker.ErrRejected) {
		t.Fatalf("without an answer: %v, want ErrUnknown or ErrRejected", err)
	}
	if took := time.Since(began); took > quiet+slack {
		t.Errorf("Publish outlived its context by %v", took-quiet)
	}
	e.Break(t)
	select {
	case err := <-failed:
		if !errors.Is(err, broker.ErrUnknown) {
			t.Fatalf("with the connection lost: %v, want ErrUnknown", err)
		}
	case <-time.After(patience):
		t.Fatal("Publish did not end with its connection")
	}
}

// survivesRestart stops the engine under a client, opens another one without
// it, and brings it back.
func survivesRestart(t *testing.T, e *Engine) {
	var mu sync.Mutex
	lost := 0
	c := openEarly(t, e, func(e event.Event) {
		mu.Lock()
		defer mu.Unlock()
		if c, ok := e.(event.Connection); ok && c.State == event.Lost && c.Err != nil {
			lost++
		}
	})
	c.awaitReady()
	in := c.consume(0, 5)
	held, kept := envelope(0, 1), envelope(1, 1)
	c.publish(kept)
	c.publish(held)
	old := in.next()

	e.Stop(t)
	late := openEarly(t, e, nil)
	for name, c := range map[string]*client{"connected before": c, "opened without it": late} {
		eventually(t, func() bool { return c.Ready() != nil }, func() string { return name + ": ready without the engine" })
		began := time.Now()
		if err := Publish(t.Context(), c, envelope(0, 1)); !errors.Is(err, broker.ErrRejected) {
			t.Errorf("%s: %v, want ErrRejected", name, err)
		}
		if took := time.Since(began); took > slack {
			t.Errorf("%s: rejected after %v, want at once", name, took)
		}
	}
	e.Start(t)

	c.awaitReady()
	late.awaitReady()
	d := in.next()
	sameEnvelope(t, d, held)
	if !d.Redelivered {
		t.Error("what was held through the restart is not called redelivered")
	}
	settle(t, d, ack)
	if err := old.Settle(ack); !errors.Is(err, broker.ErrStale) {
		t.Errorf("settling a delivery from before: %v, want ErrStale", err)
	}
	other := late.consume(1, 5)
	sameEnvelope(t, other.next(), kept)
	late.insist(envelope(0, 1))
	settle(t, in.next(), ack)
	mu.Lock()
	defer mu.Unlock()
	if lost == 0 {
		t.Error("no event tells that the connection was lost")
	}
}

// neverOutlivesContext fills the sockets of a silent engine.
func neverOutlivesContext(t *testing.T, e *Engine) {
	const publishers, limit = 40, 500 * time.Millisecond
	c := open(t, e)
	body := make([]byte, message.MaxEnvelopeBytes)
	c.publish(message.Envelope{ID: "before", Shard: 0, Count: 1, Body: body})
	e.Stall(t)
	for range 3 {
		var wg sync.WaitGroup
		for i := range publishers {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), limit)
				defer cancel()
				began := time.Now()
				err := Publish(ctx, c, message.Envelope{ID: envelope(0, 0).ID, Shard: i % Shards, Count: 1, Body: body})
				if !errors.Is(err, broker.ErrRejected) && !errors.Is(err, broker.ErrUnknown) {
					t.Errorf("%v, want ErrRejected or ErrUnknown", err)
				}
				if took := time.Since(began); took > limit+slack {
					t.Errorf("Publish took %v with a context of %v", took, limit)
				}
			})
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			envelopes := several(6)
			for i := range envelopes {
				envelopes[i].Body = body
			}
			began := time.Now()
			for i, err := range c.together(ctx, envelopes...) {
				if !errors.Is(err, broker.ErrRejected) && !errors.Is(err, broker.ErrUnknown) {
					t.Errorf("envelope %d of several: %v, want ErrRejected or ErrUnknown", i, err)
				}
			}
			if took := time.Since(began); took > limit+slack {
				t.Errorf("Publish took %v with a context of %v", took, limit)
			}
		})
		wg.Wait()
	}
	e.Resume(t)
	c.awaitReady()
	c.insist(envelope(0, 1))
}

func rejectsWhenBlocked(t *testing.T, e *Engine) {
	var mu sync.Mutex
	told := map[event.ConnectionState]int{}
	c := openEarly(t, e, func(e event.Event) {
		mu.Lock()
		defer mu.Unlock()
		if c, ok := e.(event.Connection); ok {
			told[c.State]++
		}
	})
	c.awaitReady()
	const before = 5
	for range before {
		c.publish(envelope(1, 1))
	}
	in := c.consume(1, 2)
	held := in.next()
	e.Block(t)

	// A broker may take, or leave open, what comes before it can say so.
	var err error
	eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err = Publish(ctx, c, envelope(0, 1))
		return errors.Is(err, broker.ErrRejected)
	}, func() string { return "not rejected: " + errorText(err) })
	for range 10 {
		began := time.Now()
		err := Publish(context.Background(), c, envelope(0, 1))
		if !errors.Is(err, broker.ErrRejected) {
			t.Fatalf("blocked: %v, want ErrRejected", err)
		}
		if took := time.Since(began); took > slack {
			t.Fatalf("rejected after %v, want at once", took)
		}
	}
	began := time.Now()
	for i, err := range c.together(context.Background(), several(5)...) {
		if !errors.Is(err, broker.ErrRejected) {
			t.Errorf("blocked, envelope %d of several: %v, want ErrRejected", i, err)
		}
	}
	if took := time.Since(began); took > slack {
		t.Errorf("several are rejected after %v, want at once", took)
	}
	if c.Ready() == nil {
		t.Error("ready although publishes are rejected")
	}
	settle(t, held, ack)
	for range before - 1 {
		settle(t, in.next(), ack)
	}
	in.none()

	e.Unblock(t)
	c.awaitReady()
	c.insist(envelope(1, 1))
	settle(t, in.next(), ack)
	mu.Lock()
	defer mu.Unlock()
	if told[event.Blocked] == 0 || told[event.Unblocked] == 0 {
		t.Errorf("told %v, want that it is blocked, and that it is not any more", told)
	}
}

func errorText(err error) string {
	if err == nil {
		return "nil"
	}
	return err.Error()
}
