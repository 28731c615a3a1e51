package brokertest

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/message"
)

// Memory is a broker whose queues live in the process, and the first client of
// itself. It keeps no goroutine and no timer, so it also works in the bubbles
// of testing/synctest. Closing a client leaves the queues as they are.
type Memory struct {
	*Client
	shards int

	mu      sync.Mutex // guards what follows, and the clients' and consumers' fields
	changed chan struct{}
	clients []*Client
	queues  map[int]*memoryQueue
	dead    []*deadItem

	stopped, stalled bool
	blocked          string // why publishes are refused, or empty
	loss             Loss
	failures         []Failure
}

type memoryQueue struct {
	missing   bool
	waiting   []*memoryItem
	held      []*memoryItem
	consumers []*consumer // the first one is active
}

type memoryItem struct {
	envelope message.Envelope
	returns  int       // how often it came back
	holder   *consumer // nil while it waits
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
	m := &Memory{shards: shards, changed: make(chan struct{}), queues: map[int]*memoryQueue{}}
	m.Client = m.Open(nil)
	return m
}

// Open returns another client. events must not call the broker.
func (m *Memory) Open(events event.Sink) *Client { return m.OpenShards(m.shards, events) }

// OpenShards returns a client with a number of shards of its own.
func (m *Memory) OpenShards(shards int, events event.Sink) *Client {
	c := &Client{memory: m, shards: shards, events: events}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clients = append(m.clients, c)
	return c
}

// FailPublish lets the next publishes fail, one for each failure.
func (m *Memory) FailPublish(failures ...Failure) {
	m.change(func() { m.failures = append(m.failures, failures...) })
}

// Depth counts the shard's envelopes, those that are held included.
func (m *Memory) Depth(shard int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.queue(shard)
	return len(q.waiting) + len(q.held)
}

// Waiting lists the shard's envelopes that are not handed out.
func (m *Memory) Waiting(shard int) (waiting []message.Envelope) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, item := range m.queue(shard).waiting {
		waiting = append(waiting, item.envelope)
	}
	return waiting
}

// Dead lists the dead letters in the order in which they came.
func (m *Memory) Dead() (dead []DeadLetter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, item := range m.dead {
		dead = append(dead, item.DeadLetter)
	}
	return dead
}

// PublishForeign queues a body as another program would; the id is optional.
func (m *Memory) PublishForeign(shard int, id string, body []byte) {
	m.change(func() {
		m.save(message.Envelope{ID: id, Shard: shard, Count: 1, Body: body, Foreign: true})
	})
}

// DeleteQueue removes the shard's queue under its users.
func (m *Memory) DeleteQueue(shard int) {
	m.change(func() {
		q := m.queue(shard)
		for _, item := range q.held {
			item.holder = nil
		}
		for _, c := range q.consumers {
			c.client.events.Send(event.Connection{State: event.Cancelled, Role: "consume", Shard: shard})
		}
		*q = memoryQueue{missing: true}
	})
}

// Break cuts the connections of all clients; they come back at once.
func (m *Memory) Break() {
	m.change(func() {
		m.loss = Nothing
		m.disconnect(errors.New("connection reset"))
	})
}

// Lose lets what clients send, or what they are sent, go lost until Break.
func (m *Memory) Lose(what Loss) { m.change(func() { m.loss = what }) }

// Stop ends the broker under its clients; Start brings it back.
func (m *Memory) Stop() {
	m.change(func() {
		m.stopped = true
		m.disconnect(errStopped)
	})
}

// Start ends Stop.
func (m *Memory) Start() {
	m.change(func() { m.stopped = false; m.tell(event.Connected, nil) })
}

// Stall makes the broker silent; its connections stay.
func (m *Memory) Stall() { m.change(func() { m.stalled = true }) }

// Resume ends Stall.
func (m *Memory) Resume() { m.change(func() { m.stalled = false }) }

// Block makes the broker refuse publishes, for a reason.
func (m *Memory) Block(reason string) {
	m.change(func() {
		m.blocked = reason
		m.tell(event.Blocked, errors.New(reason))
	})
}

// Unblock ends Block.
func (m *Memory) Unblock() {
	m.change(func() { m.blocked = ""; m.tell(event.Unblocked, nil) })
}

var errStopped = errors.New("the broker is stopped")

// change does something under the lock and wakes up all who wait.
func (m *Memory) change(do func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	do()
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *Memory) tell(state event.ConnectionState, err error) {
	for _, role := range []string{"publish", "consume"} {
		for _, c := range m.clients {
			c.events.Send(event.Connection{State: state, Role: role, Shard: -1, Err: err})
		}
	}
}

func (m *Memory) disconnect(err error) {
	m.tell(event.Lost, err)
	for _, c := range m.clients {
		m.release(c)
	}
	for _, c := range m.clients {
		c.connection++
	}
}

// queue returns the shard's queue, making it if need be.
func (m *Memory) queue(shard int) *memoryQueue {
	q := m.queues[shard]
	if q == nil {
		q = &memoryQueue{}
		m.queues[shard] = q
	}
	return q
}

func (m *Memory) save(e message.Envelope) {
	e.Body, e.Attributes = slices.Clone(e.Body), maps.Clone(e.Attributes)
	q := m.queue(e.Shard)
	q.waiting = append(q.waiting, &memoryItem{envelope: e})
}

// release ends the client's consumers and returns what they hold.
func (m *Memory) release(c *Client) {
	for _, q := range m.queues {
		q.consumers = slices.DeleteFunc(q.consumers, func(o *consumer) bool { return o.client == c })
		for _, item := range slices.Clone(q.held) {
			if item.holder.client == c {
				m.giveBack(q, item, true)
			}
		}
	}
}

// giveBack puts a held item back, or away if it came back too often.
func (m *Memory) giveBack(q *memoryQueue, item *memoryItem, counts bool) {
	m.drop(q, item)
	if counts {
		item.returns++
	}
	if item.returns > broker.DeliveryLimit {
		m.publishDeadLetter(item, message.Outcome{Kind: message.DeadLetter, Reason: "delivery_limit"})
		return
	}
	q.waiting = slices.Insert(q.waiting, 0, item)
}

// drop removes a held item.
func (m *Memory) drop(q *memoryQueue, item *memoryItem) {
	q.held = slices.DeleteFunc(q.held, func(o *memoryItem) bool { return o == item })
	item.holder.unsettled--
	item.holder = nil
}

// publishDeadLetter makes a dead letter of an item, or of each message that is dead
// of it.
func (m *Memory) publishDeadLetter(item *memoryItem, o message.Outcome) {
	e := item.envelope
	keep := func(e message.Envelope, reason string) {
		m.dead = append(m.dead, &deadItem{envelope: e, DeadLetter: DeadLetter{
			ID: e.ID, Body: e.Body, Reason: reason, Shard: e.Shard, Time: time.Now(),
		}})
	}
	if len(o.Dead) == 0 {
		keep(e, o.Reason)
	}
	for _, d := range o.Dead {
		keep(message.Envelope{
			ID: cmp.Or(d.ID(), e.ID), Shard: e.Shard, Count: 1, Body: slices.Concat(d.Line, []byte{'\n'}),
			Attributes: e.Attributes,
		}, d.Reason)
	}
}
