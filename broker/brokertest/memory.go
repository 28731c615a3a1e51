package brokertest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"async-data-processor/broker"
	"async-data-processor/broker/local"
	"async-data-processor/event"
	"async-data-processor/message"
)

// Memory is the broker of package local over a store in memory, and the first
// client of itself. It keeps no goroutine and no timer while nothing happens, so it
// also works in the bubbles of testing/synctest. Closing a client leaves the queues
// as they are.
type Memory struct {
	*Client
	engine *local.Engine
	store  *Faulty
	kept   *kept
	shards int

	mu       sync.Mutex // guards failures
	failures []Failure
}

// Client is a client of a Memory.
type Client struct {
	*local.Client
	memory *Memory
}

// Failure is what becomes of a publish that fails.
type Failure int

const (
	// Refused: ErrRejected, and not in the queue.
	Refused Failure = iota
	// Unsaved: ErrUnknown, and not in the queue.
	Unsaved
	// Saved: ErrUnknown, and in the queue all the same.
	Saved
)

var _ broker.Broker = (*Memory)(nil)

// NewMemory returns an empty broker with a number of shards.
func NewMemory(shards int) *Memory {
	m := &Memory{kept: &kept{queues: map[int]*keptQueue{}}, shards: shards}
	m.store = NewFaulty(m.kept)
	m.engine = local.New(local.Config{Store: m.store})
	if err := m.engine.Open(context.Background()); err != nil {
		panic(err) // the store has not been told to fail
	}
	m.Client = m.Open(nil)
	return m
}

// Open returns another client. events must not call the broker.
func (m *Memory) Open(events event.Sink) *Client { return m.OpenShards(m.shards, events) }

// OpenShards returns a client with a number of shards of its own.
func (m *Memory) OpenShards(shards int, events event.Sink) *Client {
	return &Client{m.engine.Client(shards, events), m}
}

// FailPublish lets the next envelopes fail, one for each failure.
func (m *Memory) FailPublish(failures ...Failure) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failures = append(m.failures, failures...)
}

// failure returns the next failure, or nil.
func (m *Memory) failure() *Failure {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.failures) == 0 {
		return nil
	}
	f := m.failures[0]
	m.failures = m.failures[1:]
	return &f
}

// Publish implements broker.Queues.
func (c *Client) Publish(ctx context.Context, envelopes []message.Envelope, done func(int, error)) {
	outcome := make(map[int]error) // of those that fail, and their places
	var rest []int
	var saved []message.Envelope
	for i, e := range envelopes {
		f := c.memory.failure()
		switch {
		case f != nil && *f == Refused:
			outcome[i] = broker.Rejected(errTest)
		case f != nil:
			outcome[i] = broker.Unknown(errTest)
		}
		if f == nil || *f == Saved {
			rest, saved = append(rest, i), append(saved, e)
		}
	}
	for i, err := range outcome {
		if !slices.Contains(rest, i) {
			done(i, err)
		}
	}
	c.Client.Publish(ctx, saved, func(i int, err error) {
		if err == nil {
			err = outcome[rest[i]]
		}
		done(rest[i], err)
	})
}

// Depth counts the shard's envelopes, those that are handed out included.
func (m *Memory) Depth(shard int) int {
	all, _ := m.engine.Depth(shard)
	return all
}

// Waiting counts the shard's envelopes that are not handed out.
func (m *Memory) Waiting(shard int) int {
	all, out := m.engine.Depth(shard)
	return all - out
}

// Stored lists the shard's envelopes, those that are handed out included.
func (m *Memory) Stored(shard int) (stored []message.Envelope) {
	for _, it := range m.kept.list(shard) {
		stored = append(stored, it.Envelope)
	}
	return stored
}

// Dead lists the dead letters in the order in which they came.
func (m *Memory) Dead() (dead []DeadLetter) {
	for _, it := range m.kept.list(local.Dead) {
		e := it.Envelope
		dead = append(dead, DeadLetter{ID: e.ID, Body: e.Body, Reason: it.Reason, Shard: e.Shard, Time: it.Time})
	}
	return dead
}

// PublishForeign queues a body as another program would; the id is optional.
func (m *Memory) PublishForeign(shard int, id string, body []byte) {
	enqueue(m.engine, shard, id, body)
}

func enqueue(e *local.Engine, shard int, id string, body []byte) {
	err := e.Enqueue(message.Envelope{ID: id, Shard: shard, Count: 1, Body: body, Foreign: true})
	if err != nil {
		panic(err)
	}
}

var errTest = errors.New("failed by the test")

// Break cuts the connections of all clients; they come back at once.
func (m *Memory) Break() {
	m.store.Break(m.engine)
	m.await()
}

// Stop ends the broker under its clients; Start brings it back.
func (m *Memory) Stop() { m.store.Stop(m.engine) }

// Start ends Stop.
func (m *Memory) Start() {
	m.store.Start()
	m.await()
}

// await waits until the store is back.
func (m *Memory) await() {
	c := m.OpenShards(0, nil)
	_, _ = c.Backlogs(context.Background(), 0) // an error says that the broker is closed
	_ = c.Close()
}

// Stall makes the broker silent; its connections stay.
func (m *Memory) Stall() { m.store.Stall() }

// Resume ends Stall.
func (m *Memory) Resume() { m.store.Resume() }

// Block makes the broker refuse publishes, for a reason; without one it takes them again.
func (m *Memory) Block(reason string) {
	if reason == "" {
		m.engine.Block(nil)
		return
	}
	m.engine.Block(errors.New("the broker blocks publishing: " + reason))
}

// kept is a store in memory.
type kept struct {
	mu     sync.Mutex // guards what follows
	queues map[int]*keptQueue
}

type keptQueue struct {
	given, handedOut uint64
	items            []local.Item // ascending
	returns          map[uint64]int
}

// queue returns a queue, and makes it if need be. mu is held.
func (k *kept) queue(n int) *keptQueue {
	q := k.queues[n]
	if q == nil {
		q = &keptQueue{returns: map[uint64]int{}}
		k.queues[n] = q
	}
	return q
}

// Recover implements local.Store.
func (k *kept) Recover(context.Context) (map[int]local.Contents, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	contents := map[int]local.Contents{}
	for n, q := range k.queues {
		c := local.Contents{Given: q.given, Depth: len(q.items)}
		for _, it := range q.items {
			if it.Seq <= q.handedOut {
				q.returns[it.Seq]++
			}
		}
		q.handedOut = 0
		if len(q.items) > 0 {
			c.First, c.Last = q.items[0].Seq, q.items[len(q.items)-1].Seq
		}
		c.Returns = maps.Clone(q.returns)
		contents[n] = c
	}
	return contents, nil
}

// Commit implements local.Store.
func (k *kept) Commit(c *local.Change) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range c.Put {
		q, it := k.queue(p.Queue), *p.Item
		it.Envelope.Body, it.Envelope.Attributes = slices.Clone(it.Envelope.Body), maps.Clone(it.Envelope.Attributes)
		q.items = append(q.items, it)
		q.given = it.Seq
	}
	for _, p := range c.Delete {
		q := k.queue(p.Queue)
		q.items = slices.DeleteFunc(q.items, func(it local.Item) bool { return it.Seq == p.Seq })
		delete(q.returns, p.Seq)
	}
	for _, r := range c.Returns {
		k.queue(r.Queue).returns[r.Seq] = r.N
	}
	return nil
}

// Read implements local.Store.
func (k *kept) Read(queue int, after uint64, limit int) (items []local.Item, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, it := range k.queue(queue).items {
		if it.Seq > after && len(items) < limit {
			items = append(items, it)
		}
	}
	return items, nil
}

// HandOut implements local.Store.
func (k *kept) HandOut(shard int, upTo uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.queue(shard).handedOut = upTo
}

// Close implements local.Store.
func (k *kept) Close() error { return nil }

func (k *kept) list(queue int) []local.Item {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.queue(queue).items)
}
