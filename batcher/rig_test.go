package batcher_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/batcher"
	"async-data-processor/message"
)

// rig is a batcher at work in a bubble. Its operations never wait: they let
// the batcher come to rest, look what it is ready for, and leave it so.
type rig struct {
	t          *testing.T
	deliveries chan batcher.Opened
	batches    chan *message.Batch
	flush      chan struct{}
	began      time.Time
	size       int // of its batches
	sent, left int // messages so far; their numbers are their ids
}

func start(t *testing.T, cfg batcher.Config) *rig {
	r := &rig{
		t:          t,
		deliveries: make(chan batcher.Opened),
		batches:    make(chan *message.Batch),
		flush:      make(chan struct{}),
		began:      time.Now(),
		size:       cfg.Size,
	}
	cfg.Flush = r.flush
	go batcher.Run(cfg, r.deliveries, r.batches)
	return r
}

// play runs a script, in which each step is what the batcher does at once:
//
//	deliver N, refuse         it takes a delivery of N messages, or none
//	full N, lingered N, ...   a batch leaves, of the next N messages and that cause
//	none                      no batch leaves
//	flush                     what is incomplete is asked to leave
//	at D                      wait until D after the start
//	none before D             no batch leaves a nanosecond before D
//	close, closed             the deliveries end, batches has ended
//	end                       close, and nothing was held
func (r *rig) play(script string) {
	r.t.Helper()
	for step := range strings.SplitSeq(script, ", ") {
		words := strings.Fields(step)
		last := words[len(words)-1]
		n, _ := strconv.Atoi(last)
		d, _ := time.ParseDuration(last)
		switch words[0] {
		case "deliver":
			r.deliver(n)
		case "refuse":
			if r.offer(1) != nil {
				r.t.Fatalf("after %v: the batcher took a delivery", time.Since(r.began))
			}
		case "flush":
			r.flush <- struct{}{}
		case "at":
			r.at(d)
		case "none":
			if d > 0 {
				r.at(d - 1)
			}
			r.none()
			r.at(d)
		case "close":
			close(r.deliveries)
		case "closed":
			r.closed()
		case "end":
			close(r.deliveries)
			r.closed()
		default:
			r.take(n, map[string]message.Cause{"full": message.Full, "lingered": message.Lingered, "flushed": message.Flushed}[words[0]])
		}
	}
}

// parcel is a delivery and what became of it.
type parcel struct {
	batcher.Opened

	mu       sync.Mutex // guards what follows
	outcomes []message.Outcome
}

func (p *parcel) settled() []message.Outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.outcomes)
}

// pack makes a delivery of n messages, numbered from first.
func pack(first, n int) *parcel {
	p := new(parcel)
	for i := range n {
		line := fmt.Appendf(nil, `{"message_id":"%d"}`, first+i)
		p.Messages = append(p.Messages, message.Message{Line: line})
	}
	p.Delivery = message.NewDelivery(message.Envelope{Count: n}, false, func(o message.Outcome) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.outcomes = append(p.outcomes, o)
		return nil
	})
	p.Delivery.Expect(n)
	return p
}

// offer has the batcher take a delivery of n messages, or returns nil.
func (r *rig) offer(n int) *parcel {
	p := pack(r.sent, n)
	synctest.Wait()
	select {
	case r.deliveries <- p.Opened:
		r.sent += n
		return p
	default:
		return nil
	}
}

func (r *rig) deliver(n int) *parcel {
	r.t.Helper()
	p := r.offer(n)
	if p == nil {
		r.t.Fatalf("after %v: the batcher does not take a delivery", time.Since(r.began))
	}
	return p
}

// leaves returns what the batcher hands over now: a batch, nil and true when
// batches is closed, or nil and false.
func (r *rig) leaves() (b *message.Batch, closed bool) {
	synctest.Wait()
	select {
	case b, ok := <-r.batches:
		return b, !ok
	default:
		return nil, false
	}
}

// take asserts that a batch leaves now, of the next n messages.
func (r *rig) take(n int, cause message.Cause) *message.Batch {
	r.t.Helper()
	b, _ := r.leaves()
	if b == nil {
		r.t.Fatalf("after %v: no batch leaves, want %d messages from %d", time.Since(r.began), n, r.left)
	}
	want := ids(pack(r.left, n).Messages)
	if got := ids(b.Messages); !slices.Equal(got, want) || b.Cause != cause || b.Size != r.size {
		r.t.Fatalf("after %v: got batch %v (%v) of %d, want %v (%v)", time.Since(r.began), got, b.Cause, b.Size, want, cause)
	}
	r.left += n
	return b
}

// none asserts that no batch leaves now.
func (r *rig) none() {
	r.t.Helper()
	if b, closed := r.leaves(); b != nil || closed {
		r.t.Fatalf("after %v: batch %+v leaves, closed %v", time.Since(r.began), b, closed)
	}
}

// closed asserts that the batcher has closed batches, with nothing left in it.
func (r *rig) closed() {
	r.t.Helper()
	if b, closed := r.leaves(); !closed {
		r.t.Fatalf("after %v: batch %+v leaves, want none any more", time.Since(r.began), b)
	}
}

// at sleeps until d after the start, and lets the batcher come to rest.
func (r *rig) at(d time.Duration) {
	time.Sleep(time.Until(r.began.Add(d)))
	synctest.Wait()
}

func ids(messages []message.Message) []string {
	var out []string
	for _, m := range messages {
		out = append(out, m.ID())
	}
	return out
}

func settle(t *testing.T, b *message.Batch, k message.OutcomeKind) {
	t.Helper()
	if err := b.Settle(message.Outcome{Kind: k}); err != nil {
		t.Errorf("settle: %v", err)
	}
}
