package live

import (
	"cmp"
	"context"
	"strings"
	"sync"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// ReceiptConfig sets up Receipts.
type ReceiptConfig struct {
	Bus broker.Bus
	// Skips counts what on the bus cannot be used; nil counts nothing.
	Skips *broker.Skips
	// Node returns the name of this node. It is called while Run lasts, as all others are.
	Node func() string
	// Shards is the number of shards.
	Shards int
	// Owned returns what this process knows of a submission that has count messages, for
	// the shards that it owns and no others. shards are those that are asked for, nil for
	// all. Without it the process owns none.
	Owned func(submission string, count int, shards []int) []Owned
	// Server tells that this process accepts submissions. Servers returns the other nodes
	// that do; it is not nil. Without it an answer "not known" takes a second.
	Server  bool
	Servers func() []string
	// DeadLetters is the queue of dead letters; nil for none.
	DeadLetters broker.DeadLetters
}

const (
	// tellAgain is how often a node tells that it is still interested. So another owner,
	// a body that was lost and a new connection cost this long at most.
	tellAgain = time.Second
	// tellSoon is the same while nothing is known, so that the first body may be lost before
	// silentAfter.
	tellSoon = 300 * time.Millisecond
	// gatherInterests is how long an interest waits for others before it is told.
	gatherInterests = 5 * time.Millisecond
	// tickInterval is how often the node looks at what it watches, while it does.
	tickInterval = 100 * time.Millisecond
	// maxWatches bounds the watches, and maxWaits those of Await. A client has half of the
	// latter.
	maxWatches = 12_000
	maxWaits   = 10_000
	// interestBytes is about how long the body of an interest gets.
	interestBytes = broker.MaxBusBody / 2
)

// Receipts knows what becomes of submissions: as the owner of shards it tells others, as
// the node of a client it asks. Its methods may be called concurrently.
//
//	client ── Watch ──▶ entry ──interest──▶ bus ──▶ owner: note it, then look ◀── Written
//	             ▲                           │              │
//	             └────────── learn ◀── bus ◀─┴── answer ◀───┘
//
// Interests are told again every second until all messages are written or dead. One body
// on the bus carries many of them, and one answer tells of many.
type Receipts struct {
	cfg    ReceiptConfig
	to     string // the word of this node's topic
	owner  *owner
	memory *memory       // nil if the process is no server
	woken  chan struct{} // wakes up Run; it holds one wake-up

	mu       sync.Mutex // guards what follows, and the entries and watches
	shards   shardsKnown
	entries  map[string]*entry
	watches  int
	waits    receiptPlaces // of Await
	untold   []*entry
	untoldAt time.Time // of the first of them
	ticked   time.Time
	looks    looks
	finished []*Watch // that are to be told that they are done
}

// NewReceipts returns Receipts that watch nothing.
func NewReceipts(cfg ReceiptConfig) *Receipts {
	r := &Receipts{
		cfg: cfg, to: strings.ToLower(message.NewID()), woken: make(chan struct{}, 1), entries: make(map[string]*entry),
	}
	r.shards.number = cfg.Shards
	r.waits.limit, r.waits.share = maxWaits, maxWaits/2
	if cfg.Server {
		r.memory = newMemory(remembered)
	}
	r.owner = &owner{cfg: &r.cfg, memory: r.memory, tell: r.tellAnswer, wake: r.wake, interests: make(map[string]*interested)}
	return r
}

// Accepted is told of a submission that this server has accepted, and which shards have
// its messages. It costs about as much as a lock.
func (r *Receipts) Accepted(id string, shards []message.ShardCount) {
	r.memory.add(id, shards, time.Now())
}

func (r *Receipts) wake() { wakeUp(r.woken) }

// tellAnswer tells the node that has asked. If the body is lost, that node asks again.
func (r *Receipts) tellAnswer(to string, a answer) {
	_ = r.cfg.Bus.Tell(answerTopic+to, broker.Body(a))
}

// Run hears and tells until ctx ends; then it tells the last changes. It is called once.
func (r *Receipts) Run(ctx context.Context) {
	defer r.cfg.Bus.Listen(interestTopic, r.hearInterest)()
	defer r.cfg.Bus.Listen(answerTopic+r.to, r.hearAnswer)()
	defer r.cfg.Bus.Listen(movedTopic, movements{r}.hear)()
	var looking sync.WaitGroup
	defer looking.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := r.step(ctx, time.Now(), &looking)
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
		select {
		case <-r.woken:
		case <-timer.C:
		case <-ctx.Done():
			r.owner.due(time.Now().Add(gatherChanges))
			return
		}
	}
}

// step does what is due, and returns when something will be; zero for not until a wake-up.
func (r *Receipts) step(ctx context.Context, now time.Time, looking *sync.WaitGroup) (next time.Time) {
	sooner := func(at time.Time) {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	sooner(r.owner.due(now))
	servers := r.servers()
	r.mu.Lock()
	tick := len(r.entries) > 0 || r.owner.watched.Load()
	if tick && now.Sub(r.ticked) >= tickInterval {
		r.ticked = now
		r.tick(now, servers)
	}
	if tick {
		sooner(r.ticked.Add(tickInterval))
	}
	var bodies []interest
	if len(r.untold) > 0 {
		if at := r.untoldAt.Add(gatherInterests); now.Before(at) {
			sooner(at)
		} else {
			bodies = r.interests(now)
		}
	}
	sooner(r.looks.expire(now))
	if r.looks.begin(now) {
		looking.Go(func() { r.look(ctx) })
	}
	calls := r.calls()
	r.mu.Unlock()
	r.owner.expire(now)
	for _, in := range bodies {
		_ = r.cfg.Bus.Tell(interestTopic, broker.Body(in)) // the bus may be away; it is told again
	}
	for _, call := range calls {
		call()
	}
	return next
}

// servers returns the other nodes that accept submissions, nil if they are not known.
func (r *Receipts) servers() []string {
	if r.cfg.Servers == nil {
		return nil
	}
	return r.cfg.Servers()
}

// tick looks at every submission that is not done. mu is held.
func (r *Receipts) tick(now time.Time, servers []string) {
	for _, e := range r.entries {
		again := now.Sub(e.toldAt) >= tellAgain || !e.ready && now.Sub(e.toldAt) >= tellSoon
		if e.done || e.ready && !again {
			continue
		}
		if again && !e.toldAt.IsZero() {
			r.untell(e, now)
		}
		r.judge(e, false, servers, now)
	}
}

// untell has the interest in a submission told soon. mu is held.
func (r *Receipts) untell(e *entry, now time.Time) {
	if len(r.untold) == 0 {
		r.untoldAt = now
		r.wake()
	}
	e.toldAt = time.Time{}
	r.untold = append(r.untold, e)
}

// interests are the bodies that tell what is not told yet. mu is held.
func (r *Receipts) interests(now time.Time) (bodies []interest) {
	bytes := interestBytes
	for _, e := range r.untold {
		if r.entries[e.id] != e || e.done {
			continue
		}
		e.toldAt = now
		a := asked{ID: e.id, Shards: e.shards.String(), Seek: e.seek && (!e.ready || e.failure != nil)}
		if last := len(bodies) - 1; bytes >= interestBytes || len(bodies[last].IDs) >= maxAsked {
			bodies, bytes = append(bodies, interest{V: broker.BusVersion, Node: r.cfg.Node(), To: r.to}), 0
		}
		bytes += 64 + len(a.Shards)
		last := &bodies[len(bodies)-1]
		last.IDs = append(last.IDs, a)
	}
	r.untold = r.untold[:0]
	return bodies
}

// judge decides what is known of a submission, and tells its watches if something is
// new. mu is held.
func (r *Receipts) judge(e *entry, changed bool, servers []string, now time.Time) {
	looked := r.cfg.DeadLetters == nil || r.looks.fresh(now)
	if silent := len(e.unknown(&r.shards, now)); silent != e.silent {
		e.silent, changed = silent, true
	}
	if e.pauseChanges != r.shards.pauseChanges {
		e.pauseChanges, changed = r.shards.pauseChanges, true
	}
	if e.judge(&r.shards, servers, looked, now) || changed {
		for _, w := range e.watches {
			w.notify()
		}
	}
	pending := !e.done && e.any() || !e.done && e.complete(&r.shards, now)
	if r.cfg.DeadLetters != nil && pending && (e.urgent || now.Sub(e.created) >= lookAfter) && r.looks.want(now) {
		r.wake()
	}
}

// hearInterest takes what another node asks, or this one.
func (r *Receipts) hearInterest(body []byte, missed int) {
	if missed == broker.Reconnected {
		return
	}
	in, err := parseInterest(body)
	r.cfg.Skips.Add(err)
	if err != nil {
		return
	}
	r.owner.hear(&in)
	r.wake() // leases end
}

// hearAnswer takes what an owner or a server tells.
func (r *Receipts) hearAnswer(body []byte, missed int) {
	now := time.Now()
	if missed == broker.Reconnected {
		r.mu.Lock()
		for _, e := range r.entries {
			if !e.done && !e.toldAt.IsZero() {
				r.untell(e, now)
			}
		}
		r.mu.Unlock()
		return
	}
	a, err := parseAnswer(body)
	owns, ranges := parseBits(a.Owns, maxShards)
	err = cmp.Or(err, ranges)
	r.cfg.Skips.Add(err)
	if err != nil {
		return
	}
	servers := r.servers()
	r.mu.Lock()
	r.shards.answered(owns, a.Forgot, now)
	r.shards.pausesTold(owns, a.Paused)
	for i := range a.IDs {
		if e := r.entries[a.IDs[i].ID]; e != nil {
			changed, broken := e.learn(&a, owns, &a.IDs[i], now)
			if broken {
				r.cfg.Skips.Add(errBounds)
			}
			r.judge(e, changed, servers, now)
		}
	}
	calls := r.calls()
	r.mu.Unlock()
	for _, call := range calls {
		call()
	}
}
