package consumer

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"async-data-processor/backoff"
	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/message"
	"async-data-processor/workerpool"
)

// age knows when the oldest message of a shard was accepted that is in no file. Of
// what was received it knows that. Of the queue it knows a floor: no message in there
// was accepted earlier, because a queue is in the order of acceptance.
//
//	queue          ═══════▶        received, in slots
//	accepted after the floor       accepted at the times in the slots
//
// The floor is when the envelope received last was accepted, or when the queue was seen
// empty, whichever is later. What went back to the queue is older, so it is remembered
// apart until it comes again: see returned.
//
// A delivery costs four atomic stores, if nothing is expected to come again.
type age struct {
	slots    atomic.Pointer[[]*page] // only receive adds pages
	next     int                     // the slot after the one used last; only used by receive
	floor    atomic.Int64            // 0 if it is not known
	received atomic.Int64            // how many envelopes were; only receive adds
	// queued is how many envelopes are in the queue, -1 if that is not known.
	queued  atomic.Int64
	expects atomic.Bool // that returned is not empty

	mu       sync.Mutex // held to change floor, but by receive; guards what follows
	returns  int        // how many envelopes went back
	seen     int        // of them before the last measuring
	returned []returned // the newest last, at most maxReturned
}

// returned is an envelope that went back to the queue. It is forgotten when it comes again,
// or when the whole queue of a measuring after its return has come: then it was a delivery
// of an earlier connection, and had come again before.
type returned struct {
	id       string // empty if it stands for others, too, that are younger
	accepted int64
	number   int   // of the return
	due      int64 // how many will have been received, but for returns; -1 for not known
}

// maxReturned bounds the envelopes that are remembered one by one.
const maxReturned = 1024

// page has slots for deliveries.
type page [64]slot

// slot is when a delivery was accepted, in milliseconds since 1970, 0 if the slot is free;
// and the delivery, for who looks for a message.
type slot struct {
	atomic.Int64
	delivery atomic.Pointer[message.Delivery]
}

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
func (a *age) receive(accepted time.Time, id string) (ticket int) {
	ms := max(accepted.UnixMilli(), 1)
	ticket = a.free()
	a.slot(ticket).Store(ms)
	a.received.Store(a.received.Load() + 1)
	if !a.expects.Load() || !a.comesAgain(id) {
		a.floor.Store(ms)
	}
	return ticket
}

// comesAgain forgets an envelope that went back, and returns whether there was one.
func (a *age) comesAgain(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.returned, func(r returned) bool { return r.id == id && id != "" })
	if i < 0 {
		return false
	}
	a.returned = slices.Delete(a.returned, i, i+1)
	a.expects.Store(len(a.returned) > 0)
	return true
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

func (a *age) slot(ticket int) *slot {
	pages := *a.slots.Load()
	return &pages[ticket/len(page{})][ticket%len(page{})]
}

// accepted returns when an unsettled delivery was accepted.
func (a *age) accepted(ticket int) time.Time { return time.UnixMilli(a.slot(ticket).Load()) }

// returning notes that a delivery goes back to the queue, before it does.
func (a *age) returning(ticket int, id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.returns++
	r := returned{id: strings.Clone(id), accepted: a.slot(ticket).Load(), number: a.returns, due: -1}
	if last := len(a.returned) - 1; len(a.returned) == maxReturned {
		r.id, r.accepted = "", min(r.accepted, a.returned[last].accepted)
		a.returned = a.returned[:last]
	}
	a.returned = append(a.returned, r)
	a.expects.Store(true)
}

// settled forgets a delivery.
func (a *age) settled(ticket int) {
	s := a.slot(ticket)
	s.delivery.Store(nil)
	s.Store(0)
}

// holds tells whether a message is in an unsettled delivery. It reads all of them.
func (a *age) holds(id []byte) bool {
	for _, p := range *a.slots.Load() {
		for i := range p {
			if d := p[i].delivery.Load(); d != nil && has(&d.Envelope, id) {
				return true
			}
		}
	}
	return false
}

// measure returns what takes the depth of the queue, which is asked for from now on.
func (a *age) measure() (take func(queued int)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	asked, returns, before := time.Now().UnixMilli(), a.returns, a.seen
	a.seen = returns
	return func(queued int) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if queued <= 0 && a.returns == returns {
			a.floor.Store(max(a.floor.Load(), asked))
		}
		a.queued.Store(int64(max(queued, 0)))
		a.expire(before, queued)
	}
}

// expire forgets what has come again without being known. The first before returns are
// among those that are queued, however long the broker took for them. mu is held.
func (a *age) expire(before, queued int) {
	came := a.received.Load() - int64(a.returns)
	for i := range a.returned {
		if r := &a.returned[i]; r.due < 0 && r.number <= before {
			r.due = came + int64(max(queued, 0))
		}
	}
	a.returned = slices.DeleteFunc(a.returned, func(r returned) bool { return r.due >= 0 && came >= r.due })
	a.expects.Store(len(a.returned) > 0)
}

// forget forgets what is known of the queue: another process consumes it from now on.
func (a *age) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.floor.Store(0)
	a.queued.Store(-1)
	a.returned = nil
	a.expects.Store(false)
}

// know says that no message in the queue was accepted before a time. What this process
// has found out itself is better.
func (a *age) know(floor time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.floor.CompareAndSwap(0, floor.UnixMilli())
}

// least returns when no message is older that is in the queue or unsettled; zero if that
// is not known.
func (a *age) least() time.Time {
	floor := a.floor.Load()
	if floor == 0 {
		return time.Time{}
	}
	if ms := a.oldestHeld(); ms > 0 {
		floor = min(floor, ms)
	}
	return time.UnixMilli(floor)
}

// oldestHeld returns when the oldest message was accepted that is unsettled, or went back
// to the queue; 0 if there is none.
func (a *age) oldestHeld() (oldest int64) {
	older := func(ms int64) {
		if ms > 0 && (oldest == 0 || ms < oldest) {
			oldest = ms
		}
	}
	a.mu.Lock() // so that nothing is between a slot and returned meanwhile
	defer a.mu.Unlock()
	for _, r := range a.returned {
		older(r.accepted)
	}
	for _, p := range *a.slots.Load() {
		for i := range p {
			older(p[i].Load())
		}
	}
	return oldest
}

// oldest returns how many envelopes are queued, -1 if that is not known, and when the
// oldest message was accepted that is queued or unsettled, zero if there is none; and
// whether that is known.
func (a *age) oldest() (queued int, at time.Time, known bool) {
	queued = int(a.queued.Load())
	oldest := a.oldestHeld()
	known = queued == 0 || oldest > 0
	if floor := a.floor.Load(); queued > 0 && floor > 0 {
		if known = true; oldest == 0 || floor < oldest {
			oldest = floor
		}
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

// onWritten tells of a batch that is durable: how long its messages have waited, and the
// messages to who watches.
func (sh *shard) onWritten(w workerpool.Written) {
	if told := sh.set.cfg.OnWritten; told != nil {
		w.Batch.Each(func(d *message.Delivery, messages int) { told(w.At.Sub(sh.age.accepted(d.Ticket)), messages) })
	}
	if watch := sh.set.cfg.Watch; watch != nil && watch.Watched() {
		watch.Written(sh.n, w)
	}
}
