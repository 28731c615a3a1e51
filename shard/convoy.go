package shard

import (
	"context"
	"slices"
	"time"

	"async-data-processor/message"
)

// grace is how long the lanes of a convoy wait for each other. A broker confirms
// what came together within milliseconds, or tens of them on a spinning disk,
// unless one of its queues is silent; that one then costs the others so much once
// in each publish time-out.
const grace = 250 * time.Millisecond

// convoy is the envelopes that are published together, of a lane each.
type convoy struct {
	fillings  []*filling // nil once landed
	envelopes []message.Envelope
	landed    func(i int, outcome error)
	patience  *time.Timer // ends the others' wait for it
}

// takeOff returns the next convoy, to fly, or nil if it has to wait for another
// or has no envelope. mu is held.
func (l *Lanes) takeOff() *convoy {
	if l.leader != nil {
		return nil
	}
	var c *convoy
	for i := range l.lanes {
		lane := &l.lanes[i]
		if lane.flying || len(lane.waiting) == 0 {
			continue
		}
		if c == nil {
			c = l.convoy()
		}
		f := lane.waiting[0]
		lane.waiting = slices.Delete(lane.waiting, 0, 1)
		lane.flying = true
		c.fillings = append(c.fillings, f)
		c.envelopes = append(c.envelopes, f.Envelope)
	}
	if c != nil {
		l.leader = c
		c.patience.Reset(grace)
	}
	return c
}

// convoy returns one to fill. mu is held.
func (l *Lanes) convoy() *convoy {
	if last := len(l.spare) - 1; last >= 0 {
		c := l.spare[last]
		l.spare = l.spare[:last]
		return c
	}
	c := new(convoy)
	c.landed = func(i int, outcome error) { l.land(c, i, outcome) }
	c.patience = time.AfterFunc(time.Hour, func() { l.goOn(c) })
	return c
}

// fly publishes the convoy, and after it those that wait.
func (l *Lanes) fly(c *convoy) {
	for c != nil {
		ctx, cancel := context.WithTimeoutCause(context.Background(), l.timeout, l.late)
		l.publish(ctx, c.envelopes, c.landed)
		cancel()
		c = l.home(c)
	}
}

// land ends the flight of one of the convoy's envelopes.
func (l *Lanes) land(c *convoy, i int, outcome error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := c.fillings[i]
	c.fillings[i] = nil
	l.lanes[f.Shard].flying = false
	for _, r := range f.rides {
		r.waiter.hear(r.part, outcome)
	}
	if outcome == nil {
		l.recycle(f) // else its body may be on its way to a socket
	}
	if next := l.takeOff(); next != nil { // it was left behind
		go l.fly(next)
	}
}

// home takes back a convoy that has landed, and returns the next one.
func (l *Lanes) home(c *convoy) *convoy {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.patience.Stop()
	if l.leader == c {
		l.leader = nil
	}
	clear(c.envelopes)
	c.fillings, c.envelopes = c.fillings[:0], c.envelopes[:0]
	l.spare = append(l.spare, c)
	return l.takeOff()
}

// goOn lets the lanes take off that need not wait for the convoy. Where it has
// landed meanwhile, and is another one, nothing is lost by that.
func (l *Lanes) goOn(c *convoy) {
	l.mu.Lock()
	var next *convoy
	if l.leader == c {
		l.leader = nil
		next = l.takeOff()
	}
	l.mu.Unlock()
	l.fly(next)
}
