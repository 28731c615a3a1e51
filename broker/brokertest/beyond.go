package brokertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"async-data-processor/broker"
)

var beyondCases = []testCase{
	{"finds no shards", findsNone},
	{"finds and consumes other shards", findsOthers},
}

// beyond returns the envelopes of the shards found, without those that are empty.
func (c *client) beyond(shards, gap int) map[int]int {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	found, err := c.Beyond(ctx, shards, gap)
	if err != nil {
		c.t.Fatalf("Beyond(%d): %v", shards, err)
	}
	got, last := map[int]int{}, shards-1
	for _, b := range found {
		if b.Shard <= last {
			c.t.Errorf("Beyond(%d) returned %v, want ascending shards from %d on", shards, found, shards)
		}
		if last = b.Shard; b.Envelopes > 0 {
			got[b.Shard] = b.Envelopes
		}
	}
	return got
}

// awaitBeyond waits until what is found is as wanted: counting may lag behind.
func (c *client) awaitBeyond(shards int, want map[int]int) {
	c.t.Helper()
	var got map[int]int
	eventually(c.t, func() bool { got = c.beyond(shards, MaxShards); return maps.Equal(got, want) },
		func() string { return fmt.Sprintf("found from %d on: %v, want %v", shards, got, want) })
}

// findsNone: where there is nothing beyond, looking makes nothing.
func findsNone(t *testing.T, e *Engine) {
	c := open(t, e)
	c.publish(envelope(Shards-1, 1))
	for range 2 {
		for _, gap := range []int{0, MaxShards} {
			found, err := c.Beyond(t.Context(), Shards, gap)
			if err != nil || len(found) > 0 {
				t.Errorf("found %v, %v, want nothing", found, err)
			}
		}
	}
	c.awaitReady()
	_ = c.Close()
	if _, err := c.Beyond(t.Context(), Shards, 0); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
}

// findsOthers: a client finds the shards of one that has more, and drains them.
func findsOthers(t *testing.T, e *Engine) {
	const first, last = Shards, MaxShards - 1
	larger := &client{e.OpenShards(t, MaxShards), t}
	t.Cleanup(func() { _ = larger.Close() })
	larger.awaitReady()
	larger.publish(envelope(0, 1))
	larger.publish(envelope(first, 1))
	for range 3 {
		larger.publish(envelope(last, 2))
	}
	_ = larger.Close()

	c := open(t, e)
	if err := c.Publish(t.Context(), envelope(first, 1)); !errors.Is(err, broker.ErrRejected) {
		t.Errorf("publishing beyond the number of shards: %v, want ErrRejected", err)
	}
	c.awaitBeyond(Shards, map[int]int{first: 1, last: 3})
	c.awaitBeyond(last, map[int]int{last: 3})
	in := c.consume(last, 2)
	for range 3 {
		d := in.next()
		if d.Shard != last || d.Count != 2 {
			t.Errorf("a delivery of shard %d with %d messages, want shard %d and 2", d.Shard, d.Count, last)
		}
		settle(t, d, ack)
	}
	in.none()
	in.stop()
	c.awaitBeyond(Shards, map[int]int{first: 1})
	c.awaitReady()
}

// looksWhenBack: looking waits for the engine, as long as its context allows.
func looksWhenBack(t *testing.T, e *Engine) {
	c := open(t, e)
	e.Stop(t)
	ctx, cancel := context.WithTimeout(t.Context(), quiet)
	defer cancel()
	if found, err := c.Beyond(ctx, Shards, 0); err == nil {
		t.Errorf("found %v while the engine is stopped, want an error", found)
	}
	looked := make(chan error, 1)
	waiting, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	go func() {
		_, err := c.Beyond(waiting, Shards, 0)
		for err != nil && waiting.Err() == nil { // the loss, if it was not noticed before
			_, err = c.Beyond(waiting, Shards, 0)
		}
		looked <- err
	}()
	e.Start(t)
	select {
	case <-looked:
	case <-time.After(patience):
		giveUp()
		t.Errorf("%v after the engine is back: %v", patience, <-looked)
	}
}
