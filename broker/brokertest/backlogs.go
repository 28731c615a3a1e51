package brokertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"async-data-processor/broker"
)

var backlogCases = []testCase{
	{"counts the client's own shards", countsOwn},
	{"tells the depths of queues", tellsDepths},
	{"finds no other shards", findsNone},
	{"finds and consumes other shards", findsOthers},
}

// backlogs returns the envelopes of the shards from a number on, without those that
// are empty; all tells which are listed.
func (c *client) backlogs(from int) (waiting map[int]int, all []int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	found, err := c.Backlogs(ctx, from)
	if err != nil {
		c.t.Fatalf("Backlogs(%d): %v", from, err)
	}
	waiting = map[int]int{}
	last := from - 1
	for _, b := range found {
		if b.Shard <= last {
			c.t.Errorf("Backlogs(%d) returned %v, want ascending shards from %d on", from, found, from)
		}
		if last = b.Shard; b.Envelopes > 0 {
			waiting[b.Shard] = b.Envelopes
		}
		all = append(all, b.Shard)
	}
	return waiting, all
}

// awaitBacklogs waits until what is found is as wanted: counting may lag behind.
func (c *client) awaitBacklogs(from int, want map[int]int) {
	c.t.Helper()
	var got map[int]int
	eventually(c.t, func() bool { got, _ = c.backlogs(from); return maps.Equal(got, want) },
		func() string { return fmt.Sprintf("backlogs from %d on: %v, want %v", from, got, want) })
}

// countsOwn: every configured shard is listed, also when it is empty.
func countsOwn(t *testing.T, e *Engine) {
	c := open(t, e)
	c.awaitBacklogs(0, nil)
	const many = 3
	for range many {
		c.publish(envelope(Shards-1, 2))
	}
	c.awaitBacklogs(0, map[int]int{Shards - 1: many})
	c.publish(envelope(0, 1))
	c.awaitBacklogs(0, map[int]int{0: 1, Shards - 1: many})
	c.awaitBacklogs(1, map[int]int{Shards - 1: many})
	for _, from := range []int{0, 1} {
		if _, all := c.backlogs(from); len(all) != Shards-from {
			t.Errorf("shards %v are listed, want the %d from %d on", all, Shards-from, from)
		}
	}
	in := c.consume(Shards-1, many)
	for range many {
		settle(t, in.next(), ack)
	}
	in.stop()
	c.awaitBacklogs(0, map[int]int{0: 1})
}

// tellsDepths: the depths are those of the shards asked for, in that order. What the
// client has of them does not count.
func tellsDepths(t *testing.T, e *Engine) {
	c := open(t, e)
	await := func(want ...broker.Backlog) {
		t.Helper()
		shards := make([]int, len(want))
		for i, b := range want {
			shards[i] = b.Shard
		}
		var got []broker.Backlog
		var err error
		eventually(t, func() bool { got, err = c.Depths(t.Context(), shards); return err == nil && slices.Equal(got, want) },
			func() string { return fmt.Sprintf("depths: %v, %v, want %v", got, err, want) })
	}
	const last = Shards - 1
	await(broker.Backlog{Shard: last}, broker.Backlog{Shard: 0})
	for range 3 {
		c.publish(envelope(last, 2))
	}
	c.publish(envelope(0, 1))
	await(broker.Backlog{Shard: last, Envelopes: 3}, broker.Backlog{Shard: 0, Envelopes: 1})
	in := c.consume(last, 2)
	first, second := in.next(), in.next()
	await(broker.Backlog{Shard: last, Envelopes: 1}, broker.Backlog{Shard: 0, Envelopes: 1})
	settle(t, first, ack)
	settle(t, second, ack)
	settle(t, in.next(), ack)
	await(broker.Backlog{Shard: last})
	in.stop()
	c.awaitReady()
	_ = c.Close()
	if _, err := c.Depths(t.Context(), []int{0}); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
}

// findsNone: where there is nothing beyond, looking makes nothing.
func findsNone(t *testing.T, e *Engine) {
	c := open(t, e)
	c.publish(envelope(Shards-1, 1))
	for range 3 {
		found, err := c.Backlogs(t.Context(), Shards)
		if err != nil || len(found) > 0 {
			t.Errorf("found %v, %v, want nothing", found, err)
		}
	}
	c.awaitReady()
	_ = c.Close()
	if _, err := c.Backlogs(t.Context(), 0); !errors.Is(err, broker.ErrClosed) {
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
	if err := Publish(t.Context(), c, envelope(first, 1)); !errors.Is(err, broker.ErrRejected) {
		t.Errorf("publishing beyond the number of shards: %v, want ErrRejected", err)
	}
	c.awaitBacklogs(0, map[int]int{0: 1, first: 1, last: 3})
	c.awaitBacklogs(Shards, map[int]int{first: 1, last: 3})
	c.awaitBacklogs(last, map[int]int{last: 3})
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
	c.awaitBacklogs(Shards, map[int]int{first: 1})
	c.awaitReady()
}

// countsWhenBack: counting waits for the engine, as long as its context allows.
func countsWhenBack(t *testing.T, e *Engine) {
	c := open(t, e)
	e.Stop(t)
	ctx, cancel := context.WithTimeout(t.Context(), quiet)
	defer cancel()
	if found, err := c.Backlogs(ctx, Shards); err == nil {
		t.Errorf("found %v while the engine is stopped, want an error", found)
	}
	looked := make(chan error, 1)
	waiting, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	go func() {
		_, err := c.Backlogs(waiting, Shards)
		for err != nil && waiting.Err() == nil { // the loss, if it was not noticed before
			_, err = c.Backlogs(waiting, Shards)
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
