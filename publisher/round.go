package publisher

import (
	"context"
	"slices"
	"time"

	"async-data-processor/message"
)

// A broker confirms at about the same time what came together. So the first
// confirm of a round tells how long to wait for the others: long enough to keep
// the shards in one round, however slow the broker's disk is; and so short that
// a slow queue does not set the pace, nor a silent one stop the others.
const (
	// The wait for stragglers is stragglerFactor times what the first confirm
	// took, within stragglerMin and stragglerMax.
	stragglerFactor = 4
	stragglerMin    = 2 * time.Millisecond
	stragglerMax    = 50 * time.Millisecond
	// firstWait is how long the next round waits for the first confirm.
	firstWait = 10 * time.Millisecond
)

// round is the envelopes that are published together, one of a shard each.
type round struct {
	envelopes []*envelope        // nil where the outcome is known
	sent      []message.Envelope // the same, for the broker
	pending   int                // how many outcomes are not known
	began     time.Time
	done      func(i int, outcome error)
	timer     *time.Timer // ends the wait of the next round for this one
}

// startRound returns the next round, to be run. It returns nil if that has to
// wait for the current one, or has no envelope. mu is held.
func (p *Publisher) startRound() *round {
	if p.current != nil {
		return nil
	}
	var r *round
	left, bytes := false, 0 // whether an envelope stays for the round after
	for i := range p.queues {
		q := &p.queues[i]
		if q.publishing || len(q.waiting) == 0 {
			continue
		}
		if r == nil {
			r = p.spareRound()
		}
		e := q.waiting[0]
		q.waiting = slices.Delete(q.waiting, 0, 1)
		q.publishing = true
		left, bytes = left || len(q.waiting) > 0, bytes+len(e.Body)
		r.envelopes = append(r.envelopes, e)
		r.sent = append(r.sent, e.Envelope)
	}
	if r != nil {
		p.company.leave(bytes, left)
		r.pending, r.began = len(r.envelopes), time.Now()
		p.waitFor(r, firstWait)
	}
	return r
}

// waitFor has the next round wait for this one. mu is held.
func (p *Publisher) waitFor(r *round, atMost time.Duration) {
	p.current = r
	r.timer.Reset(atMost)
}

// spareRound returns a round without envelopes. mu is held.
func (p *Publisher) spareRound() *round {
	if last := len(p.spare) - 1; last >= 0 {
		r := p.spare[last]
		p.spare = p.spare[:last]
		return r
	}
	r := new(round)
	r.done = func(i int, outcome error) { p.done(r, i, outcome) }
	r.timer = time.AfterFunc(time.Hour, func() { p.startNext(r) })
	return r
}

// run publishes the round, and then those that had to wait for it.
func (p *Publisher) run(r *round) {
	for r != nil {
		ctx, cancel := context.WithTimeoutCause(context.Background(), p.cfg.Timeout, p.late)
		p.cfg.Broker.Publish(ctx, r.sent, r.done)
		cancel()
		r = p.recycle(r)
	}
}

// done takes the outcome of one of the round's envelopes.
func (p *Publisher) done(r *round, i int, outcome error) {
	p.mu.Lock()
	e := r.envelopes[i]
	r.envelopes[i] = nil
	p.queues[e.Shard].publishing = false
	for _, part := range e.parts {
		if p.tell(part.waiter, part.index, outcome) {
			p.company.answered++
		}
	}
	if outcome == nil {
		p.reuse(e) // after an error, its body may still be on its way to a socket
	}
	r.pending--
	if first := r.pending == len(r.envelopes)-1; first && r.pending > 0 && (p.current == nil || p.current == r) {
		p.waitFor(r, min(max(stragglerFactor*time.Since(r.began), stragglerMin), stragglerMax))
	}
	next := p.startRound()
	finished := p.takeFinished()
	p.mu.Unlock()
	if next != nil { // the envelope was a straggler's
		go p.run(next)
	}
	p.tellAll(finished)
}

// recycle takes a round whose outcomes are all known, and returns the next one.
func (p *Publisher) recycle(r *round) *round {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.timer.Stop()
	if p.current == r {
		p.current = nil
		if wait := p.company.expect(time.Since(r.began)); wait > 0 {
			p.waitFor(r, wait)
		}
	}
	clear(r.sent)
	r.envelopes, r.sent = r.envelopes[:0], r.sent[:0]
	p.spare = append(p.spare, r)
	return p.startRound()
}

// startNext runs the next round without the stragglers of r. The timer may fire
// late, when r is in use again: then the next round waits a bit less for it.
func (p *Publisher) startNext(r *round) {
	p.mu.Lock()
	var next *round
	if p.current == r {
		p.current = nil
		p.company.miss()
		next = p.startRound()
	}
	p.mu.Unlock()
	p.run(next)
}
