package brokertest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

var consumeCases = []testCase{
	{"acknowledges and returns", acknowledgesAndReturns},
	{"settles once", settlesOnce},
	{"keeps dead letters", keepsDeadLetters},
	{"keeps dead messages apart", keepsDeadMessages},
	{"limits deliveries", limitsDeliveries},
	{"respects the prefetch", respectsPrefetch},
	{"has one consumer at a time", hasOneConsumer},
	{"drains", drains},
	{"returns what is unsettled at Close", returnsAtClose},
	{"closes for good", closesForGood},
	{"refuses impossible consumers", refusesImpossible},
}

func acknowledgesAndReturns(t *testing.T, e *Engine) {
	c := open(t, e)
	kept, gone := envelope(0, 2), envelope(0, 3)
	c.publish(kept)
	c.publish(gone)
	in := c.consume(0, 10)
	got := in.take(2)
	settle(t, got[gone.ID], ack)
	settle(t, got[kept.ID], giveUp)
	for range 3 {
		d := in.next()
		sameEnvelope(t, d, kept)
		if !d.Redelivered {
			t.Error("a returned envelope is not called redelivered")
		}
		settle(t, d, giveUp)
	}
	settle(t, in.next(), ack)
	in.none()
	in.stop()
	_ = c.Close()
	empty(t, e, 0)
}

func settlesOnce(t *testing.T, e *Engine) {
	c := open(t, e)
	one, two := envelope(0, 1), envelope(0, 1)
	c.publish(one)
	c.publish(two)
	in := c.consume(0, 10)
	got := in.take(2)
	settle(t, got[one.ID], ack)
	for _, again := range []message.Outcome{ack, giveUp, {Kind: message.DeadLetter, Reason: "again"}} {
		if err := got[one.ID].Settle(again); !errors.Is(err, message.ErrSettled) {
			t.Errorf("settling again: %v, want ErrSettled", err)
		}
	}
	settle(t, got[two.ID], giveUp) // not hurt by it
	sameEnvelope(t, in.next(), two)
	in.none()
	if got := e.DeadLetters(t); len(got) > 0 {
		t.Errorf("%d dead letters, want none", len(got))
	}
}

func keepsDeadLetters(t *testing.T, e *Engine) {
	c := open(t, e)
	in := c.consume(1, 10)
	reasons := map[string]string{} // by id
	bodies := map[string][]byte{}
	before := time.Now().Add(-time.Second) // an engine may count in seconds
	for _, reason := range []string{"line 3 of the envelope: not JSON", "", "\xff" + strings.Repeat("ä", 100<<10)} {
		env := envelope(1, 2)
		c.publish(env)
		d := in.next()
		settle(t, d, message.Outcome{Kind: message.DeadLetter, Reason: reason})
		reasons[env.ID], bodies[env.ID] = reason, env.Body
	}
	for _, got := range deadLetters(t, e, 3) {
		want, ok := reasons[got.ID]
		if !ok || !bytes.Equal(got.Body, bodies[got.ID]) || got.Shard != 1 {
			t.Errorf("dead letter %q of shard %d with %d bytes, want one of %v of shard 1", got.ID, got.Shard, len(got.Body), reasons)
		}
		if len(want) < 100 && got.Reason != want {
			t.Errorf("reason %q, want %q", got.Reason, want)
		}
		if len(want) >= 100 && !strings.Contains(got.Reason, "ääää") {
			t.Errorf("reason %q, want the beginning of the long one", got.Reason)
		}
		if got.Time.Before(before) || got.Time.After(time.Now().Add(time.Second)) {
			t.Errorf("dead since %v, want now", got.Time)
		}
	}
	in.none()
	in.stop()
	_ = c.Close()
	empty(t, e, 1)
}

// keepsDeadMessages takes messages out of their envelopes, some of them without
// an id of their own, or twice the same.
func keepsDeadMessages(t *testing.T, e *Engine) {
	c := open(t, e)
	in := c.consume(1, 10)
	env := envelope(1, 3)
	lines := bytes.Split(bytes.TrimSuffix(env.Body, []byte("\n")), []byte("\n"))
	long := append([]byte(`{"message_id":"`+strings.Repeat("i", 300)+`","a":`), '"')
	bad := message.Envelope{ID: "bad", Shard: 1, Count: 5, Body: slices.Concat([]byte("bad\nbad\n\n"), long, []byte("\n"), lines[0], []byte("\n"))}
	middle := message.Message{Line: lines[1]}.ID()
	poison := message.Dead{Line: lines[1], Reason: "poison"}
	// A dead letter that is published again and dies again is kept again.
	again := message.Envelope{ID: middle, Shard: 1, Count: 2, Body: slices.Concat(lines[1], []byte("\n"), lines[0], []byte("\n"))}
	var want []string
	for _, step := range []struct {
		envelope message.Envelope
		id       string // of its dead letters
		dead     []message.Dead
	}{
		{env, middle, []message.Dead{poison}},
		{again, middle, []message.Dead{poison}},
		{bad, bad.ID, []message.Dead{{Line: []byte("bad"), Reason: "1"}, {Line: []byte("bad"), Reason: "2"}, {Reason: "3"}, {Line: long, Reason: "4"}}},
	} {
		c.publish(step.envelope)
		settle(t, in.next(), message.Outcome{Kind: message.DeadLetter, Reason: "some are dead", Dead: step.dead})
		for _, d := range step.dead {
			want = append(want, fmt.Sprintf("%s: %s: %s\n", step.id, d.Reason, d.Line))
		}
	}
	var got []string
	for _, d := range deadLetters(t, e, len(want)) {
		got = append(got, fmt.Sprintf("%s: %s: %s", d.ID, d.Reason, d.Body))
		if d.Shard != 1 || d.Time.IsZero() {
			t.Errorf("dead letter %q of shard %d at %v", d.ID, d.Shard, d.Time)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("dead letters\n%q, want\n%q", got, want)
	}
	in.none() // the envelopes do not come again
	in.stop()
	_ = c.Close()
	empty(t, e, 1)
}

// limitsDeliveries returns one envelope for ever.
func limitsDeliveries(t *testing.T, e *Engine) {
	c := open(t, e)
	poison, mate := envelope(0, 2), envelope(0, 1)
	c.publish(poison)
	in := c.consume(0, 1)
	came, silence := 0, time.Now()
	for done := false; !done; {
		if time.Since(silence) > patience {
			t.Fatalf("after %d deliveries it neither comes nor is a dead letter", came)
		}
		select {
		case d := <-in.deliveries:
			came, silence = came+1, time.Now()
			settle(t, d, giveUp)
		case <-time.After(quiet):
			done = len(e.DeadLetters(t)) > 0
		}
		if came > 2*broker.DeliveryLimit {
			t.Fatalf("still coming after %d deliveries", came)
		}
	}
	if came < broker.DeliveryLimit || came > broker.DeliveryLimit+1 {
		t.Errorf("it came %d times, want %d or one more", came, broker.DeliveryLimit)
	}
	dead := deadLetters(t, e, 1)[0]
	if dead.ID != poison.ID || !bytes.Equal(dead.Body, poison.Body) || dead.Shard != 0 || dead.Reason == "" {
		t.Errorf("dead letter %+v, want %q of shard 0, with a reason", dead, poison.ID)
	}
	c.publish(mate)
	settle(t, in.next(), ack)
	// The engine's own dead letter is one like the others.
	again := c.decideAll(broker.Replay)[0]
	if again.Reason == "" || again.Origin == "" || again.Envelope.Shard != 0 || time.Since(again.Time) > time.Minute {
		t.Errorf("it is shown as %+v, want shard 0, now, with a reason and an origin", again)
	}
	d := in.next()
	sameEnvelope(t, d, poison)
	settle(t, d, ack)
	in.stop()
	_ = c.Close()
	empty(t, e, 0)
}

func respectsPrefetch(t *testing.T, e *Engine) {
	c := open(t, e)
	for range 12 {
		c.publish(envelope(0, 1))
	}
	in := c.consume(0, 3)
	held := in.take(3)
	in.none()
	for range 9 {
		for id, d := range held {
			settle(t, d, ack)
			delete(held, id)
			break
		}
		d := in.next()
		held[d.ID] = d
	}
	in.none()
	for _, d := range held {
		settle(t, d, ack)
	}
	in.stop()
	_ = c.Close()
	empty(t, e, 0)
}

func hasOneConsumer(t *testing.T, e *Engine) {
	active, standby := open(t, e), open(t, e)
	first := active.consume(0, 5)
	active.publish(envelope(0, 1))
	held := first.next() // so it is the active one
	second := standby.consume(0, 5)
	// Long enough for the second to arrive, and to get its share if it had one.
	for began := time.Now(); time.Since(began) < 2*quiet; {
		active.publish(envelope(0, 1))
		select {
		case d := <-first.deliveries:
			settle(t, d, ack)
		case d := <-second.deliveries:
			t.Fatalf("%q went to the second consumer", d.ID)
		case <-time.After(patience):
			t.Fatal("the active consumer gets nothing")
		}
	}
	second.none()

	// It ends its intake; the other takes over, what it holds stays its own.
	first.stop()
	standby.publish(envelope(0, 1))
	settle(t, second.next(), ack)
	settle(t, held, ack)

	// The other dies, holding one; a third gets it.
	standby.publish(envelope(0, 1))
	left := second.next()
	third := active.consume(0, 5)
	third.none() // while the other lives
	_ = standby.Close()
	d := third.next()
	sameEnvelope(t, d, left.Envelope)
	if !d.Redelivered {
		t.Error("what another consumer held is not called redelivered")
	}
	settle(t, d, ack)
	third.stop()
	_ = active.Close()
	empty(t, e, 0)
}

func drains(t *testing.T, e *Engine) {
	const all, inHand = 10, 4
	c := open(t, e)
	for range all {
		c.publish(envelope(0, 1))
	}
	in := c.consume(0, all)
	held := in.take(inHand)
	in.stop()
	// What was not sent is back for the next consumer, what was sent is not.
	next := open(t, e).consume(0, all)
	for id, d := range next.take(all - inHand) {
		if held[id] != nil {
			t.Errorf("%q came again while it was held", id)
		}
		settle(t, d, ack)
	}
	i := 0
	for _, d := range held {
		outcome := ack
		if i++; i == 1 {
			outcome = giveUp
		}
		settle(t, d, outcome)
	}
	if d := next.next(); held[d.ID] == nil {
		t.Errorf("%q came, want what was returned after the intake ended", d.ID)
	} else {
		settle(t, d, ack)
	}
	next.none()
	next.stop()
	_ = c.Close()
	empty(t, e, 0)
}

func returnsAtClose(t *testing.T, e *Engine) {
	c := open(t, e)
	for range 4 {
		c.publish(envelope(1, 1))
	}
	in := c.consume(1, 10)
	held := in.take(4)
	settled := map[string]bool{}
	for id, d := range held {
		settle(t, d, ack)
		settled[id] = true
		delete(held, id)
		if len(held) == 2 {
			break
		}
	}
	if err := c.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	if err := <-in.done; !errors.Is(err, broker.ErrClosed) {
		t.Errorf("Consume after Close: %v, want ErrClosed", err)
	}
	next := open(t, e)
	again := next.consume(1, 10)
	for id, d := range again.take(2) {
		if settled[id] {
			t.Errorf("%q was acknowledged before Close and came again", id)
		}
		if !d.Redelivered {
			t.Errorf("%q is not called redelivered", id)
		}
	}
	again.none()
	for id, d := range held {
		if err := d.Settle(ack); !errors.Is(err, broker.ErrStale) {
			t.Errorf("settling %q after Close: %v, want ErrStale", id, err)
		}
	}
}

func closesForGood(t *testing.T, e *Engine) {
	c := open(t, e)
	for range 3 {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if err := Publish(t.Context(), c, envelope(0, 1)); !errors.Is(err, broker.ErrRejected) || !errors.Is(err, broker.ErrClosed) {
		t.Errorf("Publish: %v, want ErrRejected and ErrClosed", err)
	}
	if err := c.Consume(t.Context(), 0, 1, nil); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("Consume: %v, want ErrClosed", err)
	}
	if err := c.Ready(); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("Ready: %v, want ErrClosed", err)
	}
	empty(t, e, 0)
}

func refusesImpossible(t *testing.T, e *Engine) {
	c := open(t, e)
	for _, bad := range []struct{ shard, prefetch int }{{-1, 1}, {0, 0}, {0, -1}} {
		if err := c.Consume(t.Context(), bad.shard, bad.prefetch, nil); err == nil {
			t.Errorf("Consume(%d, %d) returned nil", bad.shard, bad.prefetch)
		}
	}
}
