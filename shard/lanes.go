package shard

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"async-data-processor/message"
)

// Lanes carries submissions to the queues of their shards. While the envelope of
// a lane is being published the next one fills (group commit), up to
// message.MaxEnvelopeBytes; on an idle lane nothing waits. More than one at a
// time would fill them less, and what an envelope costs a broker hardly depends
// on what is in it.
//
// Its methods may be called concurrently. What it holds is what its callers
// wait for, and at most an envelope more per lane.
type Lanes struct {
	lanes   []lane
	publish Publish
	timeout time.Duration
	late    error // the cause of a publish that exceeded it
}

// Publish makes an envelope durable, and returns nil only then. It returns
// soon after ctx is done.
type Publish func(ctx context.Context, e message.Envelope) error

// NewLanes returns the lanes of n shards. Each publish gets the time-out; its
// envelope's body is not changed afterwards.
func NewLanes(n int, timeout time.Duration, publish Publish) *Lanes {
	l := &Lanes{
		lanes: make([]lane, n), publish: publish,
		timeout: timeout, late: fmt.Errorf("no confirm within %v", timeout),
	}
	for i := range l.lanes {
		l.lanes[i] = lane{of: l, shard: i}
	}
	return l
}

// Submit carries the submission's messages to their shards, those of a shard in
// the order sent, and waits until every envelope with one of them has been
// published, or ctx is done. It returns how many went to each shard, and one
// outcome for each of the envelopes: nil, the error of its publish, or one that
// wraps ctx's cause, after which it may or may not be published.
//
// The messages are copied.
func (l *Lanes) Submit(ctx context.Context, s message.Submission) (counts map[int]int, outcomes []error) {
	order, ends := l.sort(s.Messages)
	counts = make(map[int]int)
	var rides []ride
	start := int32(0)
	for i, end := range ends {
		if end > start {
			counts[i] = int(end - start)
			rides = l.lanes[i].add(rides, s.Messages, order[start:end])
		}
		start = end
	}
	outcomes = make([]error, len(rides))
	for i, r := range rides {
		outcomes[i] = r.wait(ctx)
	}
	return counts, outcomes
}

// sort returns the indexes of the messages ordered by shard, otherwise as they
// are, and for each shard the end of its part.
func (l *Lanes) sort(messages []message.Message) (order, ends []int32) {
	shards := make([]int32, 2*len(messages))
	shards, order = shards[:len(messages)], shards[len(messages):]
	ends = make([]int32, len(l.lanes)+1)
	for i, m := range messages {
		n := Of(m.Time, len(l.lanes))
		shards[i] = int32(n)
		ends[n+1]++
	}
	for n := range l.lanes {
		ends[n+1] += ends[n]
	}
	for i, n := range shards {
		order[ends[n]] = int32(i)
		ends[n]++ // from the start of its part, in the end to that of the next
	}
	return order, ends[:len(l.lanes)]
}

// lane is the way to the queue of a shard.
type lane struct {
	of    *Lanes
	shard int

	mu      sync.Mutex // guards what follows
	flying  bool       // an envelope is being published
	waiting []*filling // those to be published next; the last one still fills
}

// filling is an envelope and those who wait for it.
type filling struct {
	message.Envelope
	riders int           // who still wait; guarded by the lane's mu
	done   chan struct{} // closed when it has been published, or not
	err    error         // set before done is closed
}

// ride is a submission's part in an envelope.
type ride struct {
	lane     *lane
	envelope *filling
}

// add puts the messages at the indexes into envelopes, appends a ride for each
// of those, and has published what may be.
func (l *lane) add(rides []ride, messages []message.Message, indexes []int32) []ride {
	l.mu.Lock()
	defer l.mu.Unlock()
	var f *filling
	if last := len(l.waiting) - 1; last >= 0 {
		f = l.waiting[last]
	}
	room := 0 // for what is still to come, so that a body grows once
	for _, i := range indexes {
		room += len(messages[i].Line) + 1
	}
	aboard := false
	for _, i := range indexes {
		line := messages[i].Line
		if f == nil || len(f.Body)+len(line)+1 > message.MaxEnvelopeBytes {
			f, aboard = &filling{Envelope: message.Envelope{ID: message.NewID(), Shard: l.shard}, done: make(chan struct{})}, false
			l.waiting = append(l.waiting, f)
		}
		if !aboard {
			aboard = true
			f.riders++
			rides = append(rides, ride{l, f})
			f.Body = slices.Grow(f.Body, min(room, message.MaxEnvelopeBytes-len(f.Body)))
		}
		room -= len(line) + 1
		f.Body = append(append(f.Body, line...), '\n')
		f.Count++
	}
	if !l.flying && len(l.waiting) > 0 {
		l.flying = true
		go l.fly(l.next())
	}
	return rides
}

// next takes the oldest envelope from those that wait. mu is held.
func (l *lane) next() *filling {
	f := l.waiting[0]
	l.waiting = slices.Delete(l.waiting, 0, 1)
	return f
}

// fly publishes the envelope, and after it those that wait.
func (l *lane) fly(f *filling) {
	for f != nil {
		ctx, cancel := context.WithTimeoutCause(context.Background(), l.of.timeout, l.of.late)
		f.err = l.of.publish(ctx, f.Envelope)
		cancel()
		close(f.done)
		f = l.landed()
	}
}

// landed returns the next envelope to publish, nil if there is none.
func (l *lane) landed() *filling {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		l.flying = false
		return nil
	}
	return l.next()
}

// wait returns the outcome of the envelope, or an error when ctx is done.
func (r ride) wait(ctx context.Context) error {
	select {
	case <-r.envelope.done:
		return r.envelope.err
	case <-ctx.Done():
		r.lane.leave(r.envelope)
		return fmt.Errorf("the envelope was not confirmed: %w", context.Cause(ctx))
	}
}

// leave counts one who has given up waiting. An envelope that nobody waits for
// any more is not published, so that a broker that stands still for long does
// not find more and more of them.
func (l *lane) leave(f *filling) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.riders--
	if f.riders == 0 {
		l.waiting = slices.DeleteFunc(l.waiting, func(w *filling) bool { return w == f })
	}
}
