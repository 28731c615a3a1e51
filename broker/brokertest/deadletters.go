package brokertest

import (
	"bytes"
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

var deadLetterCases = []testCase{
	{"shows and leaves", showsAndLeaves},
	{"tells what died", tellsWhatDied},
	{"removes", removes},
	{"replays", replays},
	{"replays what was there", replaysWhatWasThere},
	{"shows all to two", showsAllToTwo},
	{"replays once for two", replaysOnceForTwo},
	{"stops with its context", stopsWithContext},
	{"leaves them when the connection is lost", leavesWhenLost},
	{"needs a connection", needsConnection},
}

// manyDead is more than an engine may put back at a time.
const manyDead = 40

// decideAll applies a verdict to each dead letter, which has to succeed, and
// returns them.
func (c *client) decideAll(verdict broker.Verdict) (dead []broker.DeadLetter) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := c.DeadLetters(ctx, func(d broker.DeadLetter) broker.Verdict {
		dead = append(dead, d)
		return verdict
	})
	if err != nil {
		c.t.Fatalf("DeadLetters: %v", err)
	}
	return dead
}

// kill publishes n envelopes and dead-letters them.
func (c *client) kill(shard, n int) (killed []message.Envelope) {
	c.t.Helper()
	in := c.consume(shard, 1)
	defer in.stop()
	for i := range n {
		e := envelope(shard, i+1)
		c.publish(e)
		settle(c.t, in.next(), dead(i))
		killed = append(killed, e)
	}
	return killed
}

func dead(i int) message.Outcome {
	return message.Outcome{Kind: message.DeadLetter, Reason: fmt.Sprint("reason ", i)}
}

// same checks that dead letters are envelopes, in their order.
func same(t *testing.T, got []broker.DeadLetter, want []message.Envelope) {
	t.Helper()
	var gotIDs, wantIDs []string
	for _, d := range got {
		gotIDs = append(gotIDs, d.Envelope.ID)
	}
	for _, e := range want {
		wantIDs = append(wantIDs, e.ID)
	}
	if !slices.Equal(gotIDs, wantIDs) {
		t.Fatalf("dead letters %q, want %q", gotIDs, wantIDs)
	}
}

func showsAndLeaves(t *testing.T, e *Engine) {
	c := open(t, e)
	if got := c.decideAll(broker.Keep); len(got) > 0 {
		t.Fatalf("%d dead letters at the start", len(got))
	}
	killed := c.kill(1, manyDead)
	for range 3 {
		same(t, c.decideAll(broker.Keep), killed)
	}
	same(t, open(t, e).decideAll(broker.Keep), killed)
	if got := e.DeadLetters(t); len(got) != manyDead {
		t.Errorf("the engine has %d dead letters left, want %d", len(got), manyDead)
	}
}

func tellsWhatDied(t *testing.T, e *Engine) {
	before := time.Now().Add(-time.Second)
	c := open(t, e)
	own := envelope(1, 3)
	c.publish(own)
	e.PublishForeign(t, 1, "made-elsewhere", []byte(`{"timestamp":"2019-10-12T08:10:54.52Z"}`))
	e.PublishForeign(t, 1, "", []byte("not JSON \x00\xff"))
	in := c.consume(1, 10)
	for i := range 3 {
		settle(t, in.next(), dead(i))
	}
	want := []message.Envelope{
		own,
		{ID: "made-elsewhere", Shard: 1, Count: 1, Foreign: true, Body: []byte(`{"timestamp":"2019-10-12T08:10:54.52Z"}`)},
		{ID: message.KeyedID("", []byte("not JSON \x00\xff")), Shard: 1, Count: 1, Foreign: true, Body: []byte("not JSON \x00\xff")},
	}
	got := c.decideAll(broker.Keep)
	same(t, got, want)
	for i, d := range got {
		if d.Envelope.Shard != 1 || d.Envelope.Count != want[i].Count || d.Envelope.Foreign != want[i].Foreign {
			t.Errorf("%q: shard %d, count %d, foreign %v; want %+v", d.Envelope.ID, d.Envelope.Shard, d.Envelope.Count, d.Envelope.Foreign, want[i])
		}
		if !bytes.Equal(d.Envelope.Body, want[i].Body) {
			t.Errorf("%q: body %q, want %q", d.Envelope.ID, d.Envelope.Body, want[i].Body)
		}
		if d.Reason != dead(i).Reason || d.Origin == "" {
			t.Errorf("%q: reason %q, origin %q", d.Envelope.ID, d.Reason, d.Origin)
		}
		if d.Time.Before(before) || d.Time.After(time.Now().Add(time.Second)) || d.Time.Location() != time.UTC {
			t.Errorf("%q: dead since %v, want now in UTC", d.Envelope.ID, d.Time)
		}
	}
}

func removes(t *testing.T, e *Engine) {
	c := open(t, e)
	killed := c.kill(0, manyDead)
	var left []message.Envelope
	seen := 0
	err := c.DeadLetters(t.Context(), func(broker.DeadLetter) broker.Verdict {
		seen++
		if seen%3 == 0 {
			return broker.Remove
		}
		left = append(left, killed[seen-1])
		return broker.Keep
	})
	if err != nil || seen != manyDead {
		t.Fatalf("%v after %d dead letters, want nil after %d", err, seen, manyDead)
	}
	same(t, c.decideAll(broker.Keep), left)
	same(t, c.decideAll(broker.Remove), left)
	same(t, c.decideAll(broker.Keep), nil)
	deadLetters(t, e, 0)
	empty(t, e, 0)
}

// replays lets each kind of envelope die twice and come back twice, soon after
// each other: no engine may take the one for a retry of the other.
func replays(t *testing.T, e *Engine) {
	c := open(t, e)
	own := envelope(1, 3)
	c.publish(own)
	e.PublishForeign(t, 1, "made-elsewhere", []byte(`{"timestamp":"2019-10-12T08:10:54.52Z"}`))
	e.PublishForeign(t, 1, "", []byte(`{"timestamp":"2019-10-12T08:10:55Z"}`))
	in := c.consume(1, 10)
	var came []message.Envelope
	for i := range 3 {
		d := in.next()
		came = append(came, d.Envelope)
		settle(t, d, dead(i))
	}
	var last time.Time
	for range 2 {
		got := c.decideAll(broker.Replay)
		if len(got) != 3 {
			t.Fatalf("%d replayed, want 3", len(got))
		}
		for i := range 3 {
			if !got[i].Time.After(last) {
				t.Errorf("dead since %v, the one before since %v", got[i].Time, last)
			}
			d := in.next()
			sameEnvelope(t, d, came[i])
			settle(t, d, dead(i))
		}
		last = got[2].Time
	}
	if got := c.decideAll(broker.Replay); len(got) != 3 || got[0].Envelope.ID != own.ID {
		t.Errorf("%d replayed at last, want 3, the first %q", len(got), own.ID)
	}
	for range 3 {
		settle(t, in.next(), ack)
	}
	in.none()
	in.stop()
	same(t, c.decideAll(broker.Keep), nil)
	_ = c.Close()
	empty(t, e, 1)
}

// replaysWhatWasThere: what dies again meanwhile is not shown again.
func replaysWhatWasThere(t *testing.T, e *Engine) {
	const n = 5
	c := open(t, e)
	killed := c.kill(0, n)
	in := c.consume(0, 10)
	shown := 0
	err := c.DeadLetters(t.Context(), func(d broker.DeadLetter) broker.Verdict {
		if shown++; shown > n {
			return broker.Keep
		}
		if shown > 1 {
			settle(t, in.next(), dead(shown)) // the one before
		}
		return broker.Replay
	})
	if err != nil || shown != n {
		t.Fatalf("%v after %d dead letters, want nil after %d", err, shown, n)
	}
	settle(t, in.next(), dead(n))
	in.none()
	in.stop()
	same(t, c.decideAll(broker.Keep), killed)
}

// showsAllToTwo: who looks at dead letters does not hide them from others.
func showsAllToTwo(t *testing.T, e *Engine) {
	const n = 10
	c, other := open(t, e), open(t, e)
	killed := c.kill(0, n)
	looking, shown := make(chan struct{}), 0
	var seen [2][]broker.DeadLetter
	var others sync.WaitGroup
	for i, c := range []*client{other, c} {
		others.Go(func() {
			<-looking
			err := c.DeadLetters(t.Context(), func(d broker.DeadLetter) broker.Verdict {
				seen[i] = append(seen[i], d)
				return broker.Keep
			})
			if err != nil {
				t.Errorf("DeadLetters: %v", err)
			}
		})
	}
	err := c.DeadLetters(t.Context(), func(broker.DeadLetter) broker.Verdict {
		if shown++; shown == n/2 {
			close(looking)
			time.Sleep(100 * time.Millisecond) // the others look meanwhile
		}
		return broker.Keep
	})
	if err != nil || shown != n {
		t.Errorf("%v after %d dead letters, want nil after %d", err, shown, n)
	}
	others.Wait()
	for _, all := range seen {
		same(t, all, killed)
	}
}

func replaysOnceForTwo(t *testing.T, e *Engine) {
	const n = 20
	c, other := open(t, e), open(t, e)
	c.kill(0, n)
	var wg sync.WaitGroup
	for _, c := range []*client{c, other} {
		wg.Go(func() {
			err := c.DeadLetters(t.Context(), func(broker.DeadLetter) broker.Verdict { return broker.Replay })
			if err != nil {
				t.Errorf("DeadLetters: %v", err)
			}
		})
	}
	wg.Wait()
	in := c.consume(0, n)
	for _, d := range in.take(n) {
		settle(t, d, ack)
	}
	in.none()
	in.stop()
	same(t, c.decideAll(broker.Keep), nil)
}

func stopsWithContext(t *testing.T, e *Engine) {
	c := open(t, e)
	killed := c.kill(0, manyDead)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	shown := 0
	err := c.DeadLetters(ctx, func(broker.DeadLetter) broker.Verdict {
		if shown++; shown < 3 {
			return broker.Remove
		}
		if shown == manyDead-5 {
			cancel(why)
		}
		return broker.Keep
	})
	if !errors.Is(err, why) || shown != manyDead-5 {
		t.Errorf("%v after %d dead letters, want the context's cause after %d", err, shown, manyDead-5)
	}
	// Their order is not asked for: RabbitMQ puts back behind what it has taken back before.
	got := c.decideAll(broker.Keep)
	if len(got) != manyDead-2 {
		t.Errorf("%d dead letters are left, want %d", len(got), manyDead-2)
	}
	for _, d := range got {
		if slices.ContainsFunc(killed[:2], func(e message.Envelope) bool { return e.ID == d.Envelope.ID }) {
			t.Errorf("%q was removed and is there", d.Envelope.ID)
		}
	}
}

func leavesWhenLost(t *testing.T, e *Engine) {
	const n = 10
	c := open(t, e)
	c.kill(0, n)
	shown := 0
	err := c.DeadLetters(t.Context(), func(broker.DeadLetter) broker.Verdict {
		if shown++; shown == 3 {
			e.Break(t)
		}
		return broker.Keep
	})
	if err == nil {
		t.Error("no error although the connection was lost")
	}
	// Both sides may take a moment to notice.
	eventually(t, func() bool {
		shown = 0
		err = c.DeadLetters(t.Context(), func(broker.DeadLetter) broker.Verdict {
			shown++
			return broker.Keep
		})
		return err == nil && shown == n
	}, func() string {
		return fmt.Sprintf("%d of %d dead letters are there again, %s", shown, n, errorText(err))
	})
}

func needsConnection(t *testing.T, e *Engine) {
	early := openEarly(t, e, nil)
	same(t, early.decideAll(broker.Keep), nil) // it waits for the connection
	early.awaitReady()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	keep := func(broker.DeadLetter) broker.Verdict { return broker.Keep }
	early.kill(0, 1)
	if err := early.DeadLetters(ctx, keep); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's cause", err)
	}
	_ = early.Close()
	if err := early.DeadLetters(t.Context(), keep); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
}

// keepsUnreplayed: a dead letter is not removed before its queue has it.
func keepsUnreplayed(t *testing.T, e *Engine) {
	c := open(t, e)
	killed := c.kill(1, 3)
	e.Block(t)
	var err error
	eventually(t, func() bool { // it may take a moment to say so
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err = Publish(ctx, c, envelope(0, 1))
		return errors.Is(err, broker.ErrRejected)
	}, func() string { return "not rejected: " + errorText(err) })
	err = c.DeadLetters(t.Context(), func(broker.DeadLetter) broker.Verdict { return broker.Replay })
	if !errors.Is(err, broker.ErrRejected) {
		t.Errorf("replayed while blocked: %v, want ErrRejected", err)
	}
	same(t, c.decideAll(broker.Keep), killed)
	e.Unblock(t)
	c.awaitReady()
	same(t, c.decideAll(broker.Replay), killed)
	depth(t, e, 1, len(killed))
}
