package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// move takes an item out of its queue and puts others into theirs, in one commit.
type move struct {
	from Place
	to   []Put
	done chan error // has room for the outcome
}

// move has a move committed. mu is held.
func (e *Engine) move(m *move) *move {
	m.done = make(chan error, 1)
	e.moves = append(e.moves, m)
	e.kick()
	return m
}

// into adds the move to a change. mu is held.
func (m *move) into(e *Engine, c *Change) {
	c.Delete = append(c.Delete, m.from)
	for _, p := range m.to {
		q := e.queue(p.Queue)
		q.given++
		p.Item.Seq = q.given
		c.Put = append(c.Put, p)
	}
}

// bury is the move of an item to the dead letters, or of its messages that are dead.
func (q *queue) bury(it *Item, o message.Outcome) *move {
	m := &move{from: q.place(it)}
	put := func(envelope message.Envelope, reason string) {
		m.to = append(m.to, Put{Dead, &Item{Envelope: envelope, Reason: reason, Time: time.Now()}})
	}
	if len(o.Dead) == 0 {
		put(it.Envelope, o.Reason)
	}
	for _, d := range o.Dead {
		put(message.Envelope{
			ID: cmp.Or(d.ID(), it.Envelope.ID), Shard: it.Envelope.Shard, Count: 1,
			Body: slices.Concat(d.Line, []byte{'\n'}), Attributes: it.Envelope.Attributes,
		}, d.Reason)
	}
	return m
}

var errLost = errors.New("the broker's store was lost meanwhile")

// deadLettersAtOnce is how many dead letters a walk reads at a time, at most.
const deadLettersAtOnce = 100

// DeadLetters implements broker.DeadLetters. Others see the same ones meanwhile; of
// two verdicts on one, the first counts.
func (c *Client) DeadLetters(ctx context.Context, decide func(broker.DeadLetter) broker.Verdict) error {
	e := c.engine
	life, err := e.await(ctx, c)
	if err != nil {
		return err
	}
	e.mu.Lock()
	end := e.queue(Dead).given
	e.mu.Unlock()
	for after := uint64(0); after < end; {
		items, err := e.cfg.Store.Read(Dead, after, deadLettersAtOnce)
		if err != nil {
			return err
		}
		if len(items) == 0 {
			return nil
		}
		for _, it := range items {
			if after = it.Seq; after > end {
				return nil
			}
			if err := c.same(ctx, life); err != nil {
				return err
			}
			if err := c.apply(ctx, life, it, decide(letter(&it))); err != nil {
				return err
			}
		}
	}
	return c.same(ctx, life)
}

// same returns why a walk through the dead letters cannot go on.
func (c *Client) same(ctx context.Context, life *life) error {
	now, err := c.engine.await(ctx, c)
	if err == nil && now != life {
		err = errLost
	}
	return err
}

// letter is the item as a dead letter.
func letter(it *Item) broker.DeadLetter {
	l := broker.DeadLetter{Envelope: it.Envelope, Reason: it.Reason, Time: it.Time.UTC(), Origin: fmt.Sprintf("shard %d", it.Envelope.Shard)}
	if l.Envelope.ID == "" {
		l.Envelope.ID = message.KeyedID("", l.Envelope.Body)
	}
	return l
}

// apply does what was decided, and returns when it is durable.
func (c *Client) apply(ctx context.Context, life *life, it Item, verdict broker.Verdict) error {
	m := &move{from: Place{Queue: Dead, Seq: it.Seq}}
	switch {
	case verdict == broker.Keep:
		return nil
	case verdict == broker.Replay && it.Envelope.Shard < 0:
		return broker.ErrNoOrigin
	case verdict == broker.Replay:
		m.to = []Put{{it.Envelope.Shard, &Item{Envelope: it.Envelope}}}
	}
	if err := c.same(ctx, life); err != nil {
		return err
	}
	e := c.engine
	e.mu.Lock()
	if err := c.usable(); err != nil && verdict == broker.Replay {
		e.mu.Unlock()
		return broker.Rejected(err)
	}
	if e.leaving[it.Seq] {
		e.mu.Unlock()
		return nil // another walk has decided
	}
	e.leaving[it.Seq] = true
	e.mu.Unlock()
	there, err := e.cfg.Store.Read(Dead, it.Seq-1, 1)
	gone := err == nil && (len(there) == 0 || there[0].Seq != it.Seq)
	e.mu.Lock()
	if e.life != life { // which has forgotten what was leaving
		e.mu.Unlock()
		return errLost
	}
	if err != nil || gone {
		delete(e.leaving, it.Seq)
		e.mu.Unlock()
		return err
	}
	e.move(m)
	e.mu.Unlock()
	select {
	case err := <-m.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
