package shard

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"async-data-processor/message"
)

// Lanes carries submissions to the queues of their shards. While a convoy, one
// envelope of each lane that has any, is being published, the next envelopes fill
// (group commit over all lanes), each up to message.MaxEnvelopeBytes; on an idle
// system nothing waits. More convoys at a time would fill them less, and what an
// envelope costs a broker hardly depends on what is in it, but very much on
// whether it comes alone.
//
// A lane whose envelope is not confirmed soon is left behind: the others take
// off without it, and it follows when it can.
//
// Its methods may be called concurrently. What it holds is what its callers
// wait for, and at most an envelope more per lane.
type Lanes struct {
	publish Publish
	timeout time.Duration
	late    error // the cause of a publish that exceeded it

	waiters  sync.Pool // of *waiter
	fillings sync.Pool // of *filling whose body nobody reads any more

	mu     sync.Mutex // guards what follows, and all that is reached from it
	lanes  []lane
	leader *convoy   // the next one waits for it; nil if none has to
	spare  []*convoy // for the next ones
}

// Publish makes envelopes durable. It calls done once for each, with its index,
// as soon as its outcome is known, which is nil only if it is durable. It returns
// after the last, soon after ctx is done, and reads no body then whose outcome
// was nil; done may be called concurrently.
type Publish func(ctx context.Context, envelopes []message.Envelope, done func(i int, outcome error))

// NewLanes returns the lanes of n shards. Each publish gets the time-out.
func NewLanes(n int, timeout time.Duration, publish Publish) *Lanes {
	l := &Lanes{
		lanes: make([]lane, n), publish: publish,
		timeout: timeout, late: fmt.Errorf("no confirm within %v", timeout),
	}
	l.waiters.New = func() any { return &waiter{landed: make(chan struct{}, 1)} }
	l.fillings.New = func() any { return new(filling) }
	return l
}

// Submit carries the submission's messages to their shards, those of a shard in
// the order sent, and waits until every envelope with one of them has been
// published, or ctx is done. It returns how many went to each shard, and no
// outcomes if all were published; or else one for each of the envelopes: nil, the
// error of its publish, or one that wraps ctx's cause, after which it may or may
// not be published. What is published at the moment when ctx is done counts.
//
// The messages are copied.
func (l *Lanes) Submit(ctx context.Context, s message.Submission) (counts map[int]int, outcomes []error) {
	w := l.waiters.Get().(*waiter)
	order, ends := w.sort(s.Messages, len(l.lanes))
	counts = make(map[int]int, min(len(l.lanes), len(s.Messages)))
	l.mu.Lock()
	start := int32(0)
	for i, end := range ends {
		if end > start {
			counts[i] = int(end - start)
			l.add(w, i, s.Messages, order[start:end])
		}
		start = end
	}
	c := l.takeOff()
	l.mu.Unlock()
	if c != nil {
		go l.fly(c)
	}
	if len(w.parts) > 0 {
		select {
		case <-w.landed:
		case <-ctx.Done():
			l.leave(w, fmt.Errorf("the envelope was not confirmed: %w", context.Cause(ctx)))
		}
	}
	outcomes = w.end()
	l.waiters.Put(w)
	return counts, outcomes
}

// lane is the way to the queue of a shard.
type lane struct {
	flying  bool       // an envelope is being published
	waiting []*filling // those to be published next; the last one still fills
}

// filling is an envelope and those who wait for it.
type filling struct {
	message.Envelope
	rides []ride
}

// ride is a submission's part in an envelope.
type ride struct {
	waiter *waiter
	part   int // of the waiter's parts
}

// recycle gives away a filling whose body nobody reads any more.
func (l *Lanes) recycle(f *filling) {
	clear(f.rides)
	*f = filling{Envelope: message.Envelope{Body: f.Body[:0]}, rides: f.rides[:0]}
	l.fillings.Put(f)
}

// add puts the messages at the indexes into envelopes of a shard, where the
// waiter gets a ride. mu is held.
func (l *Lanes) add(w *waiter, shard int, messages []message.Message, indexes []int32) {
	lane := &l.lanes[shard]
	var f *filling
	if last := len(lane.waiting) - 1; last >= 0 {
		f = lane.waiting[last]
	}
	room := 0 // for what is still to come, so that a body grows once
	for _, i := range indexes {
		room += len(messages[i].Line) + 1
	}
	aboard := false
	for _, i := range indexes {
		line := messages[i].Line
		if f == nil || len(f.Body)+len(line)+1 > message.MaxEnvelopeBytes {
			f, aboard = l.fillings.Get().(*filling), false
			f.ID, f.Shard = message.NewID(), shard
			lane.waiting = append(lane.waiting, f)
		}
		if !aboard {
			aboard = true
			f.rides = append(f.rides, ride{w, w.board(f)})
			f.Body = slices.Grow(f.Body, min(room, message.MaxEnvelopeBytes-len(f.Body)))
		}
		room -= len(line) + 1
		f.Body = append(append(f.Body, line...), '\n')
		f.Count++
	}
}

// leave ends the waiting of one who has given up, with an outcome for what is
// not published yet. An envelope that nobody waits for any more is not published,
// so that a broker that stands still for long does not find more and more of them.
func (l *Lanes) leave(w *waiter, outcome error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.aloft == 0 {
		<-w.landed // just now
		return
	}
	for part, f := range w.parts {
		if f == nil {
			continue
		}
		w.outcomes[part] = outcome
		f.rides = slices.DeleteFunc(f.rides, func(r ride) bool { return r.waiter == w })
		if len(f.rides) > 0 {
			continue
		}
		lane := &l.lanes[f.Shard]
		if i := slices.Index(lane.waiting, f); i >= 0 {
			lane.waiting = slices.Delete(lane.waiting, i, i+1)
			l.recycle(f)
		}
	}
}
