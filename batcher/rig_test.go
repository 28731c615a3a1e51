package batcher_test

import (
	"fmt"
	"slices"
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
	began      time.Time
	sent       int // messages so far; their numbers are their ids
}

func start(t *testing.T, cfg batcher.Config) *rig {
	r := &rig{
		t:          t,
		deliveries: make(chan batcher.Opened),
		batches:    make(chan *message.Batch),
		began:      time.Now(),
	}
	go batcher.Run(cfg, r.deliveries, r.batches)
	return r
}

// inBubble runs a test of a batcher that makes batches of 5 or lingers a second.
func inBubble(t *testing.T, test func(t *testing.T, r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		test(t, start(t, batcher.Config{Size: 5, Linger: time.Second}))
	})
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

// offer reports whether the batcher takes a delivery of n messages now.
func (r *rig) offer(n int) (*parcel, bool) {
	r.t.Helper()
	p := pack(r.sent, n)
	synctest.Wait()
	select {
	case r.deliveries <- p.Opened:
		r.sent += n
		return p, true
	default:
		return nil, false
	}
}

// deliver has the batcher take a delivery of n messages.
func (r *rig) deliver(n int) *parcel {
	r.t.Helper()
	p, ok := r.offer(n)
	if !ok {
		r.t.Fatalf("after %v: the batcher does not take a delivery", time.Since(r.began))
	}
	return p
}

// refuse asserts that the batcher takes no delivery now.
func (r *rig) refuse() {
	r.t.Helper()
	if _, ok := r.offer(1); ok {
		r.t.Fatalf("after %v: the batcher took a delivery", time.Since(r.began))
	}
}

// take asserts that a batch leaves now, with n messages numbered from first.
func (r *rig) take(first, n int, cause message.Cause) *message.Batch {
	r.t.Helper()
	synctest.Wait()
	select {
	case b, ok := <-r.batches:
		if !ok {
			r.t.Fatal("batches is closed, want a batch")
		}
		want := pack(first, n)
		if got := ids(b.Messages); !slices.Equal(got, ids(want.Messages)) || b.Cause != cause {
			r.t.Fatalf("after %v: got batch %v (%v), want %v (%v)", time.Since(r.began), got, b.Cause, ids(want.Messages), cause)
		}
		return b
	default:
		r.t.Fatalf("after %v: no batch leaves, want %d messages from %d", time.Since(r.began), n, first)
	}
	return nil
}

// none asserts that no batch leaves now.
func (r *rig) none() {
	r.t.Helper()
	synctest.Wait()
	select {
	case b, ok := <-r.batches:
		if !ok {
			r.t.Fatalf("after %v: batches is closed", time.Since(r.began))
		}
		r.t.Fatalf("after %v: batch %v (%v) leaves", time.Since(r.began), ids(b.Messages), b.Cause)
	default:
	}
}

// closed asserts that the batcher has closed batches, with nothing left in it.
func (r *rig) closed() {
	r.t.Helper()
	synctest.Wait()
	select {
	case b, ok := <-r.batches:
		if ok {
			r.t.Fatalf("after %v: batch %v (%v) leaves, want none any more", time.Since(r.began), ids(b.Messages), b.Cause)
		}
	default:
		r.t.Fatalf("after %v: batches is still open", time.Since(r.began))
	}
}

// drain ends the deliveries and asserts that nothing was held.
func (r *rig) drain() {
	r.t.Helper()
	close(r.deliveries)
	r.closed()
}

// at sleeps until d after the start.
func (r *rig) at(d time.Duration) {
	time.Sleep(time.Until(r.began.Add(d)))
}

func ids(messages []message.Message) []string {
	var out []string
	for _, m := range messages {
		out = append(out, m.ID())
	}
	return out
}

// unsettled asserts that the broker has not been told of the parcels.
func (r *rig) unsettled(parcels ...*parcel) {
	r.t.Helper()
	for i, p := range parcels {
		if got := p.settled(); len(got) != 0 {
			r.t.Errorf("delivery %d is settled with %v, want not yet", i, got)
		}
	}
}

// settledAs asserts that the broker has been told of the parcels once.
func (r *rig) settledAs(want message.OutcomeKind, parcels ...*parcel) {
	r.t.Helper()
	for i, p := range parcels {
		if got := p.settled(); len(got) != 1 || got[0].Kind != want {
			r.t.Errorf("delivery %d is settled with %v, want once with %v", i, got, want)
		}
	}
}

func settle(t *testing.T, b *message.Batch, k message.OutcomeKind) {
	t.Helper()
	if err := b.Settle(message.Outcome{Kind: k}); err != nil {
		t.Errorf("settle: %v", err)
	}
}
