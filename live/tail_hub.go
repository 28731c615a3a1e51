package live

import (
	"context"
	"sync"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

const (
	// renewInterval is how often taps are renewed: a lease outlasts four that are lost.
	renewInterval = 2 * time.Second
	// maxTailStreams bounds the streams of a process, those without viewers included.
	maxTailStreams = MaxViewers
	// lingerTime is how long a stream goes on after its last viewer, so that one who
	// comes again misses nothing.
	lingerTime = 15 * time.Second
	// goneAfter is how long a node may be silent. It is longer than a lease, so that it has
	// no tap any more.
	goneAfter = lease + stillInterval
	// retryMS is when a viewer is to come again after a drain.
	retryMS = 1000
)

// TailConfig sets up a Tail.
type TailConfig struct {
	Bus broker.Bus
	// Skips counts what on the bus cannot be used; nil counts nothing.
	Skips *broker.Skips
	// Node returns the node's id. It is called while Run lasts, as all others are.
	Node func() string
	// Redact are JSON pointers (RFC 6901) into entries: the values there are masked before
	// anything else sees the entry. NewMask tells whether they are fine.
	Redact []string
	// Payload is PayloadNone if no entry is to be shown, nor looked into; else PayloadFull.
	Payload Payload
	// Owned returns the shards whose files this process writes. Newest calls take with the
	// lines of a shard's files that were begun at until or before, the newest first, until
	// take returns false. Both are nil in a process that writes no files.
	Owned  func() []int
	Newest func(ctx context.Context, shard int, until time.Time, take func(FileLine) (more bool)) error
	// Consumers returns how many nodes write files, or at least how many do at the
	// moment; nil if that is not known.
	Consumers func() int
}

// Tail shows the messages that pass in the whole system to the viewers of a process.
//
//	owner ──entries, counts──▶ bus ──▶ stream ──▶ ring of the last 1,000
//	  ▲                                  │
//	  └────── interest, a lease ─────────┴──▶ queue of a viewer ──▶ Next
//
// Viewers with one filter share a stream, and so what travels for them. A stream numbers
// all messages that match, those that are lost or sampled out included. So each viewer
// can account for each of them. The methods of a Tail may be called concurrently.
type Tail struct {
	owner *tapOwner
	cfg   TailConfig
	id    string // of the hub: a ULID
	// woken wakes up Run, renews has it tell all interests at once. They hold one each.
	woken, renews chan struct{}

	mu      sync.Mutex // guards what follows, and streams and viewers
	streams map[string]*stream
	viewers int
	seq     uint64 // of interests
	ended   bool
}

// NewTail returns the tail of a process. It panics if cfg.Redact is not fine: with a mask
// that cannot be read, it would show what it has to hide.
func NewTail(cfg TailConfig) *Tail {
	o := &tapOwner{
		cfg: cfg, woken: make(chan struct{}, 1), reading: make(chan struct{}, 1),
		taps: make(map[tapKey]*tap), hubs: make(map[string]int),
	}
	if len(cfg.Redact) > 0 {
		redact, err := parsePointers(cfg.Redact)
		if err != nil {
			panic(err)
		}
		o.redact = redact
	}
	return &Tail{owner: o, cfg: cfg, id: message.NewID(), streams: make(map[string]*stream), woken: make(chan struct{}, 1), renews: make(chan struct{}, 1)}
}

// Watched tells whether messages of the stage are wanted; it costs an atomic load.
func (t *Tail) Watched(s Stage) bool {
	i := stageIndex(s)
	return i >= 0 && t.owner.watched[i].Load()
}

// Pass takes messages that have come to a stage, and does nothing if it is not Watched.
// It never waits for a viewer, and keeps nothing of p.Messages.
func (t *Tail) Pass(p Passed) { t.owner.pass(p) }

// Run serves viewers, and the nodes that have some, until ctx ends. Viewers have their
// last frame then.
func (t *Tail) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { t.owner.run(ctx) })
	defer t.cfg.Bus.Listen(tapInterestTopic, t.owner.hear)()
	defer t.cfg.Bus.Answer(lastTopic, t.owner.answerLast)()
	defer t.cfg.Bus.Listen(entriesTopic(t.id), t.hear)()
	tick := time.NewTicker(renewInterval)
	defer tick.Stop()
	tick.Stop()
	ticking := false
	for {
		select {
		case <-ctx.Done():
			t.Drain()
			t.renew(time.Now())
			return
		case <-t.woken: // there is a stream; its interest was told
		case <-t.renews:
			t.renew(time.Now())
		case <-tick.C:
			t.renew(time.Now())
		}
		if some := t.hasStreams(); some != ticking {
			if ticking = some; some {
				tick.Reset(renewInterval)
			} else {
				tick.Stop()
			}
		}
	}
}

// Drain ends all views with a last frame, and takes no more. The process still tells
// other nodes what passes, until Run ends.
func (t *Tail) Drain() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	for _, s := range t.streams {
		for v := range s.viewers {
			v.end(Bye{ByeDrain, retryMS})
		}
	}
	wakeUp(t.renews)
}

func (t *Tail) hasStreams() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.streams) > 0
}

// renew tells all interests, and ends the streams that are over.
func (t *Tail) renew(now time.Time) {
	t.mu.Lock()
	var bodies [][]byte
	for key, s := range t.streams {
		over := t.ended || len(s.viewers) == 0 && now.Sub(s.left) >= lingerTime
		if over {
			delete(t.streams, key)
		}
		s.miss(now)
		bodies = append(bodies, t.interest(s, over, 0))
	}
	t.mu.Unlock()
	for _, b := range bodies {
		// Without the bus nothing is seen; it is told again.
		_ = t.cfg.Bus.Tell(tapInterestTopic, b)
	}
}

// interest is the body that tells of a stream; a question for its last n if there are
// any. mu is held.
func (t *Tail) interest(s *stream, end bool, n int) []byte {
	t.seq++
	return broker.Body(lastWanted{tapInterest{
		V: broker.BusVersion, Node: t.cfg.Node(), Seq: t.seq, Hub: t.id, Tap: s.epoch, End: end, Rate: s.rate(), Filter: s.filter.Filter,
	}, n})
}

// hear takes what an owner has told.
func (t *Tail) hear(body []byte, missed int) {
	if missed == broker.Reconnected {
		wakeUp(t.renews) // owners may have been without an interest
	}
	if len(body) == 0 {
		return
	}
	var e tapEntries
	err := broker.ReadBody(body, &e)
	if err == nil {
		err = e.check()
	}
	if err == nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, s := range t.streams {
			if s.epoch == e.Tap {
				err = s.take(&e, time.Now())
			}
		}
	}
	t.owner.cfg.Skips.Add(err)
}
