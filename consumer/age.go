package consumer

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"async-data-processor/backoff"
	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/message"
)

// age knows when the oldest message of a shard was accepted that is in no file. Of
// what was received it knows that. Of the queue it knows a floor: no message in there
// was accepted earlier, because a queue is in the order of acceptance.
//
//	queue          ═══════▶        received, in slots
//	accepted after the floor       accepted at the times in the slots
//
// The floor is when the envelope received last was accepted, or when the queue was seen
// empty, whichever is later; what goes back to the queue lowers it.
//
// A delivery costs an atomic store when it is received and one when it is settled.
type age struct {
	slots atomic.Pointer[[]*page] // only receive adds pages
	next  int                     // the slot after the one used last; only used by receive
	floor atomic.Int64            // 0 if it is not known
	// queued is how many envelopes are in the queue, -1 if that is not known.
	queued atomic.Int64

	mu      sync.Mutex // held to change floor, but by receive
	returns int        // how many envelopes went back; guarded by mu
}

// page is when deliveries were accepted, in milliseconds since 1970; 0 in a free slot.
type page [64]atomic.Int64

func newAge() *age {
	a := &age{}
	a.slots.Store(&[]*page{})
	a.queued.Store(-1)
	return a
}

// ages has an age for each shard.
type ages map[int]*age

// of returns that of a shard.
func (s ages) of(n int) *age {
	if s[n] == nil {
		s[n] = newAge()
	}
	return s[n]
}

// acceptedAt returns when an envelope was accepted. Another program does not tell, so
// its envelopes count from when they are received.
func acceptedAt(e *message.Envelope) time.Time {
	if !e.Foreign {
		if at, ok := message.TimeOf(e.ID); ok {
			return at
		}
	}
	return time.Now()
}

// receive notes a delivery, and returns its ticket. It has one caller at a time.
func (a *age) receive(accepted time.Time) (ticket int) {
	ms := max(accepted.UnixMilli(), 1)
	ticket = a.free()
	a.slot(ticket).Store(ms)
	a.floor.Store(ms)
	return ticket
}

// free returns a free slot. There are about as many as the prefetch; after a lost
// connection what was received before it is settled beside what comes again.
func (a *age) free() int {
	pages := *a.slots.Load()
	all := len(pages) * len(page{})
	for range all {
		i := a.next
		a.next = (i + 1) % all
		if a.slot(i).Load() == 0 {
			return i
		}
	}
	more := append(slices.Clip(pages), new(page))
	a.slots.Store(&more)
	return all
}

func (a *age) slot(ticket int) *atomic.Int64 {
	pages := *a.slots.Load()
	return &pages[ticket/len(page{})][ticket%len(page{})]
}

// accepted returns when an unsettled delivery was accepted.
func (a *age) accepted(ticket int) time.Time { return time.UnixMilli(a.slot(ticket).Load()) }

// settled forgets a delivery. If it goes back to the queue, that has its message again.
func (a *age) settled(ticket int, back bool) {
	slot := a.slot(ticket)
	if back {
		a.mu.Lock()
		a.returns++
		if floor := a.floor.Load(); floor > slot.Load() {
			a.floor.Store(slot.Load())
		}
		a.mu.Unlock()
	}
	slot.Store(0)
}

// measure returns what takes the depth of the queue, which is asked for from now on.
func (a *age) measure() (take func(queued int)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	asked, returns := time.Now().UnixMilli(), a.returns
	return func(queued int) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if queued <= 0 && a.returns == returns {
			a.floor.Store(max(a.floor.Load(), asked))
		}
		a.queued.Store(int64(max(queued, 0)))
	}
}

// forget forgets what is known of the queue: another process consumes it from now on.
func (a *age) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.floor.Store(0)
	a.queued.Store(-1)
}

// oldest returns how many envelopes are queued, -1 if that is not known, and when the
// oldest message was accepted that is queued or unsettled, zero if there is none; and
// whether that is known.
func (a *age) oldest() (queued int, at time.Time, known bool) {
	queued = int(a.queued.Load())
	oldest := int64(0)
	older := func(ms int64) {
		if ms > 0 && (oldest == 0 || ms < oldest) {
			oldest = ms
		}
	}
	for _, p := range *a.slots.Load() {
		for i := range p {
			older(p[i].Load())
		}
	}
	known = queued == 0 || oldest > 0
	if floor := a.floor.Load(); queued > 0 && floor > 0 {
		older(floor)
		known = true
	}
	if oldest > 0 {
		at = time.UnixMilli(oldest)
	}
	return queued, at, known
}

const (
	// measureInterval is how often the broker is asked for the depth of the queues.
	measureInterval = time.Second
	// measureShare bounds the share of the time that the asking takes: a twentieth.
	measureShare = 20
)

// measurer asks for the depth of the queues of a Set's shards.
type measurer struct{ set *Set }

// run asks until ctx ends.
func (m measurer) run(ctx context.Context) {
	for {
		began := time.Now()
		m.measure(ctx)
		if !backoff.Sleep(ctx, max(measureInterval, measureShare*time.Since(began))) {
			return
		}
	}
}

// measure asks once. Without an answer what was known stays.
func (m measurer) measure(ctx context.Context) {
	s := m.set
	s.mu.Lock()
	take := make(map[int]func(int), len(s.running))
	for n, sh := range s.running {
		if sh.purpose == toConsume && sh.state != event.ShardStandby {
			take[n] = sh.age.measure()
		}
	}
	s.mu.Unlock()
	if len(take) == 0 {
		return
	}
	depths, err := s.cfg.Queues.Depths(ctx, slices.Sorted(maps.Keys(take)))
	if err != nil {
		return // looks for other queues tell why
	}
	m.note(depths, take)
}

// note takes the answer for those that still have no other owner.
func (m measurer) note(depths []broker.Backlog, take map[int]func(int)) {
	s := m.set
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range depths {
		if sh := s.running[d.Shard]; sh != nil && sh.state != event.ShardStandby && take[d.Shard] != nil {
			take[d.Shard](d.Envelopes)
		}
	}
}

// settled forgets a delivery that was settled, or could not be.
func (sh *shard) settled(d *message.Delivery, o message.OutcomeKind) {
	sh.unsettled.Add(-1)
	sh.age.settled(d.Ticket, o == message.Return)
}

// onWritten returns what tells how long the messages of a batch have waited, or nil.
func (sh *shard) onWritten() func(*message.Batch, time.Time) {
	told := sh.set.cfg.OnWritten
	if told == nil {
		return nil
	}
	return func(b *message.Batch, at time.Time) {
		b.Each(func(d *message.Delivery, messages int) { told(at.Sub(sh.age.accepted(d.Ticket)), messages) })
	}
}
