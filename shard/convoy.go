package shard

import (
	"context"
	"slices"
	"time"

	"async-data-processor/message"
)

// How long lanes wait for a convoy. A broker confirms what came together at about
// the same time, so those that have landed wait for the others some times as long
// as the first of them took: long enough that a convoy stays together, whatever
// the disk behind the broker is, and so short that a slow queue does not set the
// pace, nor a silent one stop the others.
const (
	// strayFactor, strayMin and strayMax make the wait out of what the first took.
	strayFactor = 4
	strayMin    = 2 * time.Millisecond
	strayMax    = 50 * time.Millisecond
	// idleWait is how long lanes that are not in the convoy wait for its first.
	idleWait = 10 * time.Millisecond
)

// convoy is the envelopes that are published together, of a lane each.
type convoy struct {
	fillings  []*filling // nil once landed
	envelopes []message.Envelope
	aloft     int // how many have not landed
	began     time.Time
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
		c.aloft, c.began = len(c.fillings), time.Now()
		l.lead(c, idleWait)
	}
	return c
}

// lead has the others wait for the convoy. mu is held.
func (l *Lanes) lead(c *convoy, wait time.Duration) {
	l.leader = c
	c.patience.Reset(wait)
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
	c.aloft--
	if first := c.aloft == len(c.fillings)-1; first && c.aloft > 0 && (l.leader == nil || l.leader == c) {
		l.lead(c, min(max(strayFactor*time.Since(c.began), strayMin), strayMax))
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
