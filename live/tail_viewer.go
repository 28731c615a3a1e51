package live

import (
	"context"
	"errors"
	"fmt"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

const (
	// maxWaitingEvents and maxWaitingBytes bound what waits for a viewer.
	maxWaitingEvents = 256
	maxWaitingBytes  = 1 << 20
	// statsInterval and sampleInterval are those of frames with counts.
	statsInterval  = 5 * time.Second
	sampleInterval = time.Second
	// shownTime is how long the ids of earlier messages are remembered, so that none is
	// shown again when its owner tells it late.
	shownTime = 10 * time.Second
)

// Viewer is the view of one client. Next must not be called concurrently.
type Viewer struct {
	tail   *Tail
	stream *stream
	query  Query
	some   chan struct{} // of one: there may be something
	bucket bucket        // only used by push

	// What follows is guarded by Tail.mu.
	first   []Frame // to be shown before anything else
	want    int     // earlier messages that are still to be asked for
	earlier []item  // to be shown before the queue
	queue   []item
	bytes   int
	// before are messages before the queue that are not shown, behind those behind it.
	before, behind counts
	shown          map[string]struct{} // ids of earlier messages
	bye            *Bye
	over           bool // bye was shown
	closed         bool

	// begin is where the view has begun, at where it is. What is at the place or before
	// is counted here.
	begin, at             uint64
	sent, missed, sampled uint64
	replayed, again       uint64
	seenBefore            uint64 // what to take from the stream's
	born                  time.Time
	statsAt, sampleAt     time.Time
	sampleTold            uint64
}

// View returns a view of the messages that match, from now on, or after q.After. Its
// errors are ErrQuery, ErrTooManyViewers and ErrTailEnded. The viewer must be closed.
func (t *Tail) View(q Query) (*Viewer, error) {
	f, err := q.compile()
	if err != nil {
		return nil, err
	}
	if t.cfg.Payload == PayloadNone {
		if f.reads() {
			return nil, fmt.Errorf("%w: contains and where look into entries, which LIVE_PAYLOAD=none hides", ErrQuery)
		}
		if f, err = f.hidden(); err != nil {
			return nil, err
		}
	}
	now := time.Now()
	v := &Viewer{
		tail: t, query: q, some: make(chan struct{}, 1), bucket: bucket{rate: q.Rate}, born: now, statsAt: now, sampleAt: now,
	}
	bodies, err := t.join(v, f)
	for _, b := range bodies {
		// Without the bus nothing is seen; Run tells it again.
		_ = t.cfg.Bus.Tell(tapInterestTopic, b)
	}
	if err != nil {
		return nil, err
	}
	wakeUp(t.woken)
	return v, nil
}

// join gives the viewer its stream, and returns what is to be told of that.
func (t *Tail) join(v *Viewer, f *filter) (bodies [][]byte, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.ended:
		return nil, ErrTailEnded
	case t.viewers >= MaxViewers:
		return nil, ErrTooManyViewers
	}
	s := t.streams[f.key]
	if s == nil {
		if body := t.makeRoom(); body != nil {
			bodies = append(bodies, body)
		}
		s = &stream{epoch: message.NewID(), filter: f, sources: make(map[string]*source), viewers: make(map[*Viewer]struct{}), asked: -1}
		t.streams[f.key] = s
	}
	reset := t.begin(v, s)
	v.stream = s
	v.first = append(v.first, Frame{KindHello, placeOf(s.epoch, v.at), Hello{
		Node: t.cfg.Node(), Epoch: s.epoch, Seq: v.at, Filter: f.Filter,
		Limits: Limits{Events: maxWaitingEvents, Bytes: maxWaitingBytes, EntryBytes: MaxTailEntry, Rate: v.query.Rate},
	}})
	if reset != "" {
		v.first = append(v.first, Frame{KindReset, placeOf(s.epoch, v.at), Reset{reset}})
	}
	t.viewers++
	s.viewers[v] = struct{}{}
	if asked := s.asked; s.rate() != asked {
		bodies = append(bodies, t.interest(s, false, 0))
	}
	return bodies, nil
}

// makeRoom makes room for another stream: the one goes that has been without viewers for
// longest. It returns what is to be told of that. mu is held.
func (t *Tail) makeRoom() []byte {
	if len(t.streams) < maxTailStreams {
		return nil
	}
	var oldest *stream
	for _, s := range t.streams {
		if len(s.viewers) == 0 && (oldest == nil || s.left.Before(oldest.left)) {
			oldest = s
		}
	}
	delete(t.streams, oldest.filter.key) // there is one: there are fewer viewers than streams
	return t.interest(oldest, true, 0)
}

// begin has the view of a stream go on after query.After, or begin. It returns why it
// cannot go on; empty if it can. mu is held.
func (t *Tail) begin(v *Viewer, s *stream) (reset string) {
	epoch, seq, ok := parsePlace(v.query.After)
	if ok && epoch == s.epoch && seq <= s.seq {
		v.begin, v.at, v.seenBefore = seq, seq, s.seen-(s.seq-seq)
		v.earlier, v.before = s.after(seq)
		return ""
	}
	v.begin, v.at, v.seenBefore = s.seq, s.seq, s.seen
	v.earlier = append(v.earlier, s.ring[len(s.ring)-min(len(s.ring), v.query.Last):]...)
	for i := range v.earlier {
		v.earlier[i].message.Replayed, v.earlier[i].before = true, counts{}
	}
	if s.filter.Stage == StageWritten && !s.cut {
		v.want = v.query.Last - len(v.earlier) // they are in files only
	}
	if v.query.After == "" {
		return ""
	}
	for _, other := range t.streams {
		if other != s && other.epoch == epoch {
			return "filter"
		}
	}
	return "epoch"
}

// Close ends the view. It may be called more than once.
func (v *Viewer) Close() {
	t := v.tail
	t.mu.Lock()
	defer t.mu.Unlock()
	if v.closed {
		return
	}
	v.closed = true
	v.earlier, v.queue, v.shown = nil, nil, nil
	delete(v.stream.viewers, v)
	t.viewers--
	if len(v.stream.viewers) == 0 {
		v.stream.left = time.Now()
	}
}

// push puts a message into the queue. If that is full, the oldest go. mu is held.
func (v *Viewer) push(it item, now time.Time) {
	if v.bye != nil {
		return
	}
	if _, again := v.shown[it.message.ID]; again {
		v.behind.again++
		wakeUp(v.some)
		return
	}
	if !v.bucket.take(now) {
		v.behind.sampled++
		wakeUp(v.some)
		return
	}
	it.before, v.behind = v.behind, counts{}
	v.queue = append(v.queue, it)
	v.bytes += it.size
	for len(v.queue) > maxWaitingEvents || v.bytes > maxWaitingBytes {
		v.drop()
	}
	wakeUp(v.some)
}

// drop counts the oldest message of the queue in place of showing it.
func (v *Viewer) drop() {
	it := v.pop()
	v.before.add(it.before)
	v.before.slow++
}

func (v *Viewer) pop() item {
	it := v.queue[0]
	v.queue[0] = item{} // it can go
	v.queue = v.queue[1:]
	v.bytes -= it.size
	return it
}

// skip counts messages that are not here. mu is held.
func (v *Viewer) skip(c counts) {
	if v.bye != nil {
		return
	}
	v.behind.add(c)
	wakeUp(v.some)
}

// end has the view end with what was shown until now. mu is held.
func (v *Viewer) end(b Bye) {
	if v.bye != nil {
		return
	}
	v.want = 0
	for _, it := range v.earlier {
		if !it.message.Replayed { // the others count once they are shown
			v.before.add(it.before)
			v.before.slow++
		}
	}
	v.earlier = nil
	for len(v.queue) > 0 {
		v.drop()
	}
	v.before.add(v.behind)
	v.behind = counts{}
	v.bye = &b
	wakeUp(v.some)
}

// Next returns the next frame, once there is one. It returns io.EOF after KindBye, and
// the cause of ctx when that ends.
func (v *Viewer) Next(ctx context.Context) (Frame, error) {
	for {
		f, wait, err := v.step(ctx, time.Now())
		if err != nil || f.Kind != "" {
			return f, err
		}
		due := time.NewTimer(wait)
		select {
		case <-v.some:
		case <-due.C:
		case <-ctx.Done():
			due.Stop()
			return Frame{}, context.Cause(ctx)
		}
		due.Stop()
	}
}

var errClosed = errors.New("the view was closed")

// lastQuestion asks for earlier messages.
func (v *Viewer) lastQuestion(want int) []byte {
	v.tail.mu.Lock()
	defer v.tail.mu.Unlock()
	return v.tail.interest(v.stream, false, want)
}

// ask has the nodes that write files look for earlier messages. Some of them may be in
// the ring, too, so it asks for all and keeps as many as are wanted beside that.
func (v *Viewer) ask(ctx context.Context, want int) {
	var found []Message
	answers, room := 0, maxAnswered
	nodes := 0
	if v.tail.cfg.Consumers != nil {
		nodes = v.tail.cfg.Consumers()
	}
	// Without the bus there are none.
	_ = v.tail.cfg.Bus.Ask(ctx, lastTopic, v.lastQuestion(v.query.Last), func(answer []byte) bool {
		var l lastFound
		err := broker.ReadBody(answer, &l)
		if err == nil && len(l.Entries) > v.query.Last {
			err = errTapBody
		}
		if err == nil {
			err = checkMessages(l.Entries)
		}
		v.tail.owner.cfg.Skips.Add(err)
		if err == nil {
			found = append(found, l.Entries...)
			answers++
		}
		room -= len(answer)
		return room > 0 && answers != nodes
	})
	v.replay(found, want)
}

// maxAnswered bounds the answers of all nodes to a question for earlier messages.
const maxAnswered = 8 << 20
