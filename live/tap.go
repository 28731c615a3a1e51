package live

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// Bounds of an owner.
const (
	// lease is how long a tap lasts after it was renewed.
	lease = 10 * time.Second
	// maxTaps bounds the taps of all nodes, and maxHubTaps those of one.
	maxTaps    = 512
	maxHubTaps = maxTailStreams
	// maxQueuedBytes bounds the lines that wait for the taps' goroutine. Each batch of
	// them counts for passedBytes more.
	maxQueuedBytes = 4 << 20
	passedBytes    = 512
	// tellInterval is how often entries are told, and tellBytes how many bytes of them
	// then: 1 MB a second for all taps together.
	tellInterval = 100 * time.Millisecond
	tellBytes    = 100_000
	// stillInterval is how often a tap is told of when there is nothing new.
	stillInterval = 2 * time.Second
)

// Passed are messages of a shard that have come to a stage. They are not kept.
type Passed struct {
	Stage    Stage
	Shard    int
	Worker   string // that wrote them
	File     string
	At       time.Time
	Reason   string // of dead letters
	Messages []message.Message
}

// tapOwner tells the messages that pass in this process to the nodes that have viewers.
//
//	writers ──Pass: copy, or count──▶ queue ──▶ Run: mask, match, sample ──▶ bus
//
// A writer waits for nothing: what finds the queue full is counted.
type tapOwner struct {
	cfg    TailConfig
	redact *pointers // nil for nothing
	// watched tells for each stage whether there are taps.
	watched [len(stages)]atomic.Bool
	woken   chan struct{} // it holds one wake-up
	reading chan struct{} // of one, taken while files are read
	// bytes are those of the queue, and of what is being copied for it.
	bytes atomic.Int64

	mu     sync.Mutex // guards what follows, and the guarded fields of taps
	taps   map[tapKey]*tap
	hubs   map[string]int // how many taps each has
	began  uint64         // the number of the tap that began last
	queue  []passed
	number uint64 // of the lines that were queued last
	ended  bool
}

// errTooManyTaps: there are as many as there may be.
var errTooManyTaps = errors.New("too many taps")

type tapKey struct{ hub, tap string }

// tap is what one node wants to see, for viewers with one filter.
type tap struct {
	key    tapKey
	filter *filter
	began  uint64
	at     time.Time // when it began
	from   uint64    // the number of the first lines for it

	// Guarded by tapOwner.mu.
	renewed time.Time
	seq     uint64 // of the interest that was heard last
	rate    int
	// unasked are messages that found the queue full.
	unasked uint64

	// Only used by Run.
	seen, matched, sampled uint64
	bucket                 bucket
	entries                [][]byte
	bytes                  int
	told                   tapEntries // the counts that were told last
	toldAt                 time.Time
}

// passed are copies of lines that wait.
type passed struct {
	Passed     // without its messages
	size   int // what it counts for
	number uint64
	lines  []byte // one after the other
	ends   []int
}

// pass takes messages.
func (o *tapOwner) pass(p Passed) {
	stage := stageIndex(p.Stage)
	if stage < 0 || !o.watched[stage].Load() || len(p.Messages) == 0 {
		return
	}
	size := passedBytes
	for _, m := range p.Messages {
		size += len(m.Line)
	}
	if o.bytes.Add(int64(size)) > maxQueuedBytes {
		o.bytes.Add(-int64(size))
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, t := range o.taps {
			if t.filter.Stage == p.Stage && t.filter.wants(p.Shard) {
				t.unasked += uint64(len(p.Messages))
			}
		}
		return
	}
	c := passed{Passed: p, size: size, lines: make([]byte, 0, size-passedBytes), ends: make([]int, 0, len(p.Messages))}
	c.Messages = nil
	for _, m := range p.Messages {
		c.lines = append(c.lines, m.Line...)
		c.ends = append(c.ends, len(c.lines))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.number++
	c.number = o.number
	o.queue = append(o.queue, c)
	o.wake()
}

func (o *tapOwner) wake() { wakeUp(o.woken) }

// hear takes an interest that another node, or this one, has told.
func (o *tapOwner) hear(body []byte, _ int) {
	if len(body) == 0 {
		return
	}
	var i tapInterest
	err := broker.ReadBody(body, &i)
	if err == nil {
		_, err = o.take(&i)
	}
	o.cfg.Skips.Add(err)
}

// take makes the tap of an interest, renews it, or ends it. It returns nil if there is
// none then.
func (o *tapOwner) take(i *tapInterest) (*tap, error) {
	f, err := i.check()
	if err != nil {
		return nil, err
	}
	if o.cfg.Payload == PayloadNone {
		if f.reads() {
			return nil, errTapBody // what matches would tell of the entry
		}
		f.Payload = PayloadNone
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	key := tapKey{i.Hub, i.Tap}
	t := o.taps[key]
	switch {
	case t != nil && i.Seq <= t.seq:
		return t, nil // late, or twice
	case i.End && t != nil:
		o.end(t)
		return nil, nil
	case i.End || o.ended:
		return nil, nil
	case t != nil && t.filter.key != f.key:
		return nil, errTapBody
	case t == nil && (len(o.taps) >= maxTaps || o.hubs[i.Hub] >= maxHubTaps):
		return nil, errTooManyTaps
	case t == nil:
		o.began++
		t = &tap{key: key, filter: f, began: o.began, at: time.Now(), from: o.number + 1}
		o.taps[key] = t
		o.hubs[i.Hub]++
		o.watched[stageIndex(f.Stage)].Store(true)
		o.wake()
	}
	t.renewed, t.seq, t.rate = time.Now(), i.Seq, i.Rate
	return t, nil
}

// end forgets a tap. mu is held.
func (o *tapOwner) end(t *tap) {
	delete(o.taps, t.key)
	if o.hubs[t.key.hub]--; o.hubs[t.key.hub] == 0 {
		delete(o.hubs, t.key.hub)
	}
	for stage := range stages {
		some := false
		for _, t := range o.taps {
			some = some || t.filter.Stage == stages[stage]
		}
		o.watched[stage].Store(some)
	}
}

// expire ends the taps whose lease is over, and returns the others.
func (o *tapOwner) expire(now time.Time) (taps []*tap) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, t := range o.taps {
		if now.Sub(t.renewed) >= lease {
			o.end(t)
			continue
		}
		taps = append(taps, t)
	}
	return taps
}
