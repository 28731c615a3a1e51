package live

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/message"
)

// badBus is a bus that loses, doubles and holds up what is told.
type badBus struct {
	broker.Bus
	mu    sync.Mutex // guards what follows
	rand  *rand.Rand
	loses float64 // the part that is lost, and that is doubled
	stuck chan struct{}
	told  map[string]int // bodies by topic
	hear  func(topic string, body []byte)
}

func (b *badBus) Tell(topic string, body []byte) error {
	b.mu.Lock()
	kind, _, _ := strings.Cut(topic, ".0")
	b.told[kind]++
	if b.hear != nil {
		b.hear(topic, body)
	}
	chance, stuck := b.rand.Float64(), b.stuck
	loses := b.loses
	b.mu.Unlock()
	if stuck != nil && strings.HasPrefix(topic, "tail.entries") {
		<-stuck
	}
	switch {
	case chance < loses/2:
		return nil
	case chance < loses:
		return errors.New("the bus is away")
	case chance < 2*loses:
		_ = b.Bus.Tell(topic, body)
	}
	return b.Bus.Tell(topic, body)
}

// hang has those that tell entries wait until release is called.
func (b *badBus) hang() (release func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stuck = make(chan struct{})
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		close(b.stuck)
		b.stuck = nil
	}
}

// onTell has hear called with what is told from now on.
func (b *badBus) onTell(hear func(topic string, body []byte)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hear = hear
}

func (b *badBus) setLoses(part float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loses = part
}

func (b *badBus) toldTo(kind string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for topic, told := range b.told {
		if strings.HasPrefix(topic, kind) {
			n += told
		}
	}
	return n
}

// tailRig is a system of nodes with tails, in a bubble of synctest.
type tailRig struct {
	t      *testing.T
	memory *brokertest.Memory
	seed   uint64
	ctx    context.Context
	nodes  sync.WaitGroup
	passed map[int]int // how many messages of a shard have passed
}

func newTailRig(t *testing.T) *tailRig {
	r := &tailRig{t: t, memory: brokertest.NewMemory(1), passed: make(map[int]int)}
	ctx, cancel := context.WithCancel(t.Context())
	r.ctx = ctx
	t.Cleanup(func() {
		cancel()
		r.nodes.Wait()
		_ = r.memory.Close()
	})
	return r
}

// node starts a node.
func (r *tailRig) node(name string, edit ...func(*TailConfig)) (*Tail, *badBus) {
	client := r.memory.Open(nil)
	r.t.Cleanup(func() { _ = client.Close() })
	bus := &badBus{Bus: client, rand: rand.New(rand.NewPCG(r.seed, uint64(len(name)))), told: make(map[string]int)}
	cfg := TailConfig{Bus: bus, Skips: new(broker.Skips), Node: func() string { return name }, Payload: PayloadFull}
	for _, e := range edit {
		e(&cfg)
	}
	tail := NewTail(cfg)
	r.nodes.Go(func() { tail.Run(r.ctx) })
	synctest.Wait()
	return tail, bus
}

// pass has messages of a shard pass at a node, each with the next number of the shard.
func (r *tailRig) pass(tail *Tail, shard, n int, extra string) {
	p := Passed{Stage: StageWritten, Shard: shard, Worker: fmt.Sprintf("%d-1", shard), File: "f.ndjson", At: time.Now()}
	for range n {
		number := r.passed[shard]
		r.passed[shard]++
		p.Messages = append(p.Messages, message.Message{Line: fmt.Appendf(nil, `{"message_id":"s%d.%d","n":%d%s}`, shard, number, number, extra)})
	}
	tail.Pass(p)
}

// taps returns how many taps an owner has, and how many of a hub.
func (t *Tail) taps(hub string) (all, ofHub int) {
	synctest.Wait()
	t.owner.mu.Lock()
	defer t.owner.mu.Unlock()
	return len(t.owner.taps), t.owner.hubs[hub]
}

// client is what a client has seen, over all its connections.
type client struct {
	t      *testing.T
	tail   *Tail
	query  Query
	viewer *Viewer

	last         string // the last id
	epoch        string
	begin        uint64
	sent, missed uint64
	sampled      uint64 // as the stats have told
	sessionSent  uint64 // of this connection
	sessionGone  uint64
	sessionBegin uint64
	next         map[int]int // by shard: the least number that may come
	seen         map[string]bool
	frames       []Frame
	unknown      int
}

func newClient(t *testing.T, tail *Tail, q Query) *client {
	l := &client{t: t, tail: tail, query: q, next: make(map[int]int), seen: make(map[string]bool)}
	l.connect()
	return l
}

func (l *client) connect() {
	l.t.Helper()
	l.query.After = l.last
	v, err := l.tail.View(l.query)
	if err != nil {
		l.t.Fatal(err)
	}
	l.viewer, l.sessionSent, l.sessionGone = v, 0, 0
	l.read(1)
}

// read takes so many frames, or those that there are.
func (l *client) read(n int) (frames int) {
	l.t.Helper()
	for ; frames < n; frames++ {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		f, err := l.viewer.Next(ctx)
		cancel()
		if err != nil {
			return frames
		}
		l.take(f)
	}
	return frames
}

func (l *client) take(f Frame) {
	l.t.Helper()
	l.frames = append(l.frames, f)
	epoch, seq, ok := parsePlace(f.ID)
	if !ok {
		l.t.Fatalf("%v has no place", f)
	}
	l.last = f.ID
	switch d := f.Data.(type) {
	case Hello:
		if l.epoch == "" || l.epoch != epoch {
			l.epoch, l.begin = epoch, seq
			l.sent, l.missed = 0, 0
			clear(l.next)
			clear(l.seen)
		}
		l.sessionBegin = seq
	case Message:
		if l.seen[d.ID] {
			l.t.Errorf("%s is shown twice", d.ID)
		}
		l.seen[d.ID] = true
		_, digits, _ := strings.Cut(d.ID, ".")
		number, err := strconv.Atoi(digits)
		if err != nil || number < l.next[d.Shard] {
			l.t.Errorf("%s is shown out of order", d.ID)
		}
		l.next[d.Shard] = number + 1
		l.sent++
		l.sessionSent++
	case Gap:
		l.missed += d.Missed
		l.sessionGone += d.Missed
		if d.AtLeast {
			l.unknown++
		}
	case Counts:
		l.sampled = d.Sampled
		if d.Matched != d.Sent+d.Missed+d.Sampled || d.Sent != l.sessionSent || d.Missed != l.sessionGone || d.Seen < d.Matched {
			l.t.Errorf("%+v, and %d were shown, %d missed", d, l.sessionSent, l.sessionGone)
		}
		if d.Matched != seq-l.sessionBegin && l.query.Last == 0 {
			l.t.Errorf("%+v at %d, begun at %d", d, seq, l.sessionBegin)
		}
	}
}

// matched is how many the numbers of the stream tell of since the first hello.
func (l *client) matched() uint64 {
	_, seq, _ := parsePlace(l.last)
	return seq - l.begin
}
