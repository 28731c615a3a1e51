package brokertest

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"async-data-processor/broker"
	"async-data-processor/message"
)

var publishCases = []testCase{
	{"carries envelopes exactly", carriesExactly},
	{"takes concurrent publishes", takesConcurrent},
	{"rejects what no broker takes", rejectsInvalid},
	{"asks the context first", asksContextFirst},
	{"tells that the queue is missing", tellsMissingQueue},
	{"delivers what others publish", deliversForeign},
}

func carriesExactly(t *testing.T, e *Engine) {
	c := open(t, e)
	bytes256 := make([]byte, 256)
	for i := range bytes256 {
		bytes256[i] = byte(i)
	}
	large := bytes.Repeat(bytes256, message.MaxEnvelopeBytes/len(bytes256))
	cases := []message.Envelope{
		envelope(0, 1),
		envelope(1, 7),
		{ID: "01JD8Y6G5V3X9Q2R7T4B1C0D5E", Shard: 1, Count: 10_000, Body: large},
		{ID: strings.Repeat("i", 255), Shard: 0, Count: 3, Body: []byte("\x00\xff\n\r\n")},
	}
	for _, want := range cases {
		c.publish(want)
		in := c.consume(want.Shard, 1)
		d := in.next()
		sameEnvelope(t, d, want)
		if d.Redelivered {
			t.Errorf("%q is called redelivered", d.ID)
		}
		settle(t, d, ack)
		in.stop()
	}
	_ = c.Close()
	empty(t, e, 0)
	empty(t, e, 1)
}

func takesConcurrent(t *testing.T, e *Engine) {
	const publishers, each = 8, 40
	c := open(t, e)
	var wg sync.WaitGroup
	for range publishers {
		wg.Go(func() {
			for i := range each {
				if err := Publish(t.Context(), c, envelope(i%Shards, 1)); err != nil {
					t.Errorf("Publish: %v", err)
				}
			}
		})
	}
	wg.Wait()
	for shard := range Shards {
		in := c.consume(shard, 50)
		seen := map[string]bool{}
		for range publishers * each / Shards {
			d := in.next()
			if seen[d.ID] {
				t.Errorf("%q was delivered twice", d.ID)
			}
			seen[d.ID] = true
			settle(t, d, ack)
		}
		in.none()
		in.stop()
	}
	_ = c.Close()
	empty(t, e, 0)
	empty(t, e, 1)
}

func rejectsInvalid(t *testing.T, e *Engine) {
	c := open(t, e)
	invalid := map[string]message.Envelope{
		"too large":   {ID: "x", Count: 1, Body: make([]byte, message.MaxEnvelopeBytes+1)},
		"no id":       {Count: 1, Body: []byte("x")},
		"long id":     {ID: strings.Repeat("x", 256), Count: 1, Body: []byte("x")},
		"shard below": {ID: "x", Shard: -1, Count: 1, Body: []byte("x")},
		"shard above": {ID: "x", Shard: Shards, Count: 1, Body: []byte("x")},
	}
	for name, bad := range invalid {
		if err := Publish(t.Context(), c, bad); !errors.Is(err, broker.ErrRejected) {
			t.Errorf("%s: %v, want ErrRejected", name, err)
		}
	}
	c.publish(envelope(0, 1)) // and no harm was done
	depth(t, e, 0, 1)
}

func asksContextFirst(t *testing.T, e *Engine) {
	c := open(t, e)
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("the client has left")
	cancel(why)
	for range 20 {
		err := Publish(ctx, c, envelope(0, 1))
		if !errors.Is(err, broker.ErrRejected) || !errors.Is(err, why) {
			t.Fatalf("%v, want ErrRejected and the context's cause", err)
		}
	}
	empty(t, e, 0)
}

func tellsMissingQueue(t *testing.T, e *Engine) {
	if e.DeleteQueue == nil {
		return // its queues are always there
	}
	c := open(t, e)
	c.publish(envelope(0, 1))
	e.DeleteQueue(t, 0)
	lost := envelope(0, 1)
	if err := Publish(t.Context(), c, lost); !errors.Is(err, broker.ErrRejected) {
		t.Fatalf("%v, want ErrRejected without a queue", err)
	}
	c.insist(lost)
	in := c.consume(0, 5)
	settle(t, in.next(), ack)

	// Under a consumer, too: it subscribes again.
	e.DeleteQueue(t, 0)
	again := envelope(0, 1)
	c.insist(again)
	d := in.next()
	sameEnvelope(t, d, again)
	settle(t, d, ack)
	in.stop()
	_ = c.Close()
	empty(t, e, 0)
}

func deliversForeign(t *testing.T, e *Engine) {
	c := open(t, e)
	in := c.consume(1, 10)
	foreign := []message.Envelope{
		{ID: "made-elsewhere", Shard: 1, Count: 1, Foreign: true, Body: []byte(`{"timestamp":"2019-10-12T08:10:54.52Z", "n": 1.0}`)},
		{ID: "", Shard: 1, Count: 1, Foreign: true, Body: []byte("not even JSON \x00\xff")},
		{ID: strings.Repeat("i", 255), Shard: 1, Count: 1, Foreign: true, Body: bytes.Repeat([]byte{7}, 2<<20)},
	}
	for _, want := range foreign {
		e.PublishForeign(t, want.Shard, want.ID, want.Body)
		d := in.next()
		sameEnvelope(t, d, want)
		settle(t, d, message.Outcome{Kind: message.DeadLetter, Reason: "unreadable"})
	}
	for i, got := range deadLetters(t, e, len(foreign)) {
		if got.ID != foreign[i].ID || !bytes.Equal(got.Body, foreign[i].Body) {
			t.Errorf("dead letter %d: id %q, %d bytes; want %q, %d", i, got.ID, len(got.Body), foreign[i].ID, len(foreign[i].Body))
		}
	}
}
