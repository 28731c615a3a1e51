package live

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/message"
)

// system is nodes on one bus that share shards, and what is written for them.
type system struct {
	t      *testing.T
	shards int
	memory *brokertest.Memory
	// bus, unless nil, is what stands between a node and the bus.
	bus func(broker.Bus) broker.Bus

	mu      sync.Mutex // guards what follows
	written map[string]map[int]bitset
	at      map[string]time.Time // of the last
	owners  []*node              // by shard; nil for none
	forgot  map[int]time.Time
	paused  map[int]Pause
	nodes   []*node
}

type node struct {
	*Receipts
	system *system
	name   string
	stop   func()
}

func newSystem(t *testing.T, shards int) *system {
	time.Sleep(time.Until(time.Unix(0, 0).Add(firstTime + 24*time.Hour))) // the bubble's clock is behind
	s := &system{
		t: t, shards: shards, memory: brokertest.NewMemory(shards), owners: make([]*node, shards),
		written: make(map[string]map[int]bitset), at: make(map[string]time.Time), forgot: make(map[int]time.Time), paused: make(map[int]Pause),
	}
	t.Cleanup(func() {
		for _, n := range slices.Clone(s.nodes) {
			n.end()
		}
		_ = s.memory.Close()
		synctest.Wait()
	})
	return s
}

// start starts a node: a server, an owner of shards, or both.
func (s *system) start(name string, server, owns bool) *node {
	s.t.Helper()
	n := &node{system: s, name: name}
	client := s.memory.Open(nil)
	var bus broker.Bus = client
	if s.bus != nil {
		bus = s.bus(client)
	}
	cfg := ReceiptConfig{Bus: bus, Skips: new(broker.Skips), Node: func() string { return name }, Shards: s.shards, Server: server, DeadLetters: client, Servers: func() []string { return s.servers(n) }}
	if owns {
		cfg.Owned = n.owned
	}
	n.Receipts = NewReceipts(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.Run(ctx)
	}()
	n.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		_ = client.Close()
	})
	s.mu.Lock()
	s.nodes = append(s.nodes, n)
	s.mu.Unlock()
	synctest.Wait()
	return n
}

// end ends a node as a crash does for the others: its shards have no owner.
func (n *node) end() {
	s := n.system
	s.mu.Lock()
	s.nodes = slices.DeleteFunc(s.nodes, func(o *node) bool { return o == n })
	for i, o := range s.owners {
		if o == n {
			s.owners[i] = nil
		}
	}
	s.mu.Unlock()
	n.stop()
}

func (s *system) servers(but *node) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := []string{}
	for _, n := range s.nodes {
		if n.memory != nil && n != but {
			names = append(names, n.name)
		}
	}
	return names
}

func (n *node) owned(id string, count int, shards []int) []Owned {
	s := n.system
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []Owned{}
	for i, o := range s.owners {
		if o != n || shards != nil && !slices.Contains(shards, i) {
			continue
		}
		w := Owned{Shard: i, Bits: slices.Clone(s.written[id][i])}
		if w.Bits != nil {
			w.First, w.Last, w.Until = s.at[id], s.at[id], s.at[id].Add(24*time.Hour)
		}
		w.Since, w.Forgot = s.forgot[i], !s.forgot[i].IsZero()
		if p, is := s.paused[i]; is {
			w.Pause = &p
		}
		all = append(all, w)
	}
	return all
}

// own gives shards to a node.
func (s *system) own(n *node, shards ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range shards {
		s.owners[i] = n
	}
}

// pause has the owner of a shard say that it is paused, and resume that it is not.
func (s *system) pause(shard int, p Pause) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused[shard] = p
}

func (s *system) resume(shard int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.paused, shard)
}

// write makes messages durable, as the owner of their shard does it: first it knows them,
// then it tells.
func (s *system) write(id string, shard int, indexes ...int) {
	s.mu.Lock()
	if s.written[id] == nil {
		s.written[id] = make(map[int]bitset)
	}
	bits := s.written[id][shard]
	for _, i := range indexes {
		bits.add(i)
	}
	s.written[id][shard] = bits
	s.at[id] = time.Now()
	o := s.owners[shard]
	s.mu.Unlock()
	if o != nil && o.Watched() {
		o.Written(messagesOf(id, indexes...))
	}
}

func messagesOf(id string, indexes ...int) (all []message.Message) {
	for _, i := range indexes {
		all = append(all, message.Message{Line: fmt.Appendf(nil, `{"message_id":"%s.%d"}`, id, i)})
	}
	return all
}

// bury makes messages dead letters, as the owner of their shard does it, which tells of it
// or not.
func (s *system) bury(tells bool, id string, shard int, reason string, indexes ...int) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	deliveries := make(chan *message.Delivery)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.memory.Consume(ctx, shard, 1, deliveries)
	}()
	for _, m := range messagesOf(id, indexes...) {
		s.memory.Publish(ctx, []message.Envelope{{ID: message.NewID(), Shard: shard, Count: 1, Body: append(m.Line, '\n')}}, func(int, error) {})
		d := <-deliveries
		if err := d.Settle(message.Outcome{Kind: message.DeadLetter, Reason: reason}); err != nil {
			s.t.Error(err)
		}
		s.mu.Lock()
		o := s.owners[shard]
		s.mu.Unlock()
		if tells && o != nil && o.Watched() {
			o.Dead(shard, m.RawID(), reason)
		}
	}
	cancel()
	<-ended
}

// newID is the id of a submission of so many messages that is accepted now.
func newID(count int) string { return message.WithCount(message.NewID(), count) }

func keyedID(key string, count int) string {
	return message.WithCount(message.KeyedID(key, nil), count)
}

// ask asks a node, and waits until it knows.
func (n *node) ask(id string) (Receipt, error) {
	w, err := n.Watch(id)
	if err != nil {
		return Receipt{}, err
	}
	defer w.Close()
	<-w.Ready()
	return w.Receipt()
}

// receipt is ask of a node that has to know.
func (n *node) receipt(id string) Receipt {
	n.system.t.Helper()
	r, err := n.ask(id)
	if err != nil {
		n.system.t.Fatalf("%s: %v", id, err)
	}
	return r
}

// lossy is a bus that loses and doubles what is told.
type lossy struct {
	broker.Bus
	mu   sync.Mutex // guards what follows
	rnd  *rand.Rand
	lose int // percent
}

func (l *lossy) Tell(topic string, body []byte) error {
	l.mu.Lock()
	n, lose := l.rnd.IntN(100), l.lose
	l.mu.Unlock()
	if n < lose {
		return nil
	}
	if n > 80 {
		_ = l.Bus.Tell(topic, body)
	}
	return l.Bus.Tell(topic, body)
}
