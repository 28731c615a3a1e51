package control

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
)

// cutBus is a bus that can be cut off from all others.
type cutBus struct {
	broker.Bus
	mu    sync.Mutex // guards what follows
	isCut bool
	hears []func([]byte, int)
}

var errCut = errors.New("the bus is not connected")

func (b *cutBus) gone() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.isCut
}

// cut cuts it off, or connects it again.
func (b *cutBus) cut(off bool) {
	b.mu.Lock()
	b.isCut = off
	hears := b.hears
	b.mu.Unlock()
	for _, hear := range hears {
		if !off {
			hear(nil, broker.Reconnected)
		}
	}
}

func (b *cutBus) Tell(topic string, body []byte) error {
	if b.gone() {
		return errCut
	}
	return b.Bus.Tell(topic, body)
}

func (b *cutBus) Ask(ctx context.Context, topic string, body []byte, take func([]byte) bool) error {
	if b.gone() {
		<-ctx.Done() // it waits for the connection
		return errCut
	}
	return b.Bus.Ask(ctx, topic, body, take)
}

func (b *cutBus) Listen(topic string, hear func([]byte, int)) (stop func()) {
	b.mu.Lock()
	b.hears = append(b.hears, hear)
	b.mu.Unlock()
	return b.Bus.Listen(topic, func(body []byte, missed int) {
		if !b.gone() {
			hear(body, missed)
		}
	})
}

func (b *cutBus) Answer(topic string, answer func([]byte) []byte) (stop func()) {
	return b.Bus.Answer(topic, func(body []byte) []byte {
		if b.gone() {
			return nil
		}
		return answer(body)
	})
}

// TestSystemBusAway: while the bus is away, the others and their shards are unknown. Once
// it is back, those that stay silent for three beats are gone, and the others are here.
func TestSystemBusAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a, b, c, server := s.node(), s.node(), s.node(), s.node("server")
		after(10 * time.Second)
		check := func(when string, complete bool, here, unknown, gone, running, unknownShards int) {
			t.Helper()
			o := get[Overview](t, server, "/api/v1/overview")
			if o.Complete != complete || o.Nodes["here"] != here || o.Nodes["unknown"] != unknown || o.Nodes["gone"] != gone ||
				o.Shards["running"] != running || o.Shards["unknown"] != unknownShards || o.Shards["unowned"] != 0 {
				t.Errorf("%s: %+v", when, o)
			}
		}
		check("at first", true, 4, 0, 0, 10, 0)
		server.bus.cut(true)
		for range 20 {
			after(2 * time.Second)
			check("away", false, 1, 3, 0, 0, 10)
		}
		s.checkTold(0, "NodeGone{Node:"+a.ID())
		after(forgetAfter / 2)
		check("away for long", false, 1, 3, 0, 0, 10)

		c.bus.cut(true) // for ever
		server.bus.cut(false)
		after(goneAfter - 2*time.Second)
		s.mu.Lock()
		var own int // of what c has, which the others cannot take from it
		for _, n := range s.owner {
			if n == c {
				own++
			}
		}
		s.mu.Unlock()
		check("back", false, 3, 1, 0, 10-own, own)
		c.kill()
		after(goneAfter + time.Second)
		check("all is known", true, 3, 0, 1, 10, 0)
		for _, n := range []*testNode{a, b, server} {
			n.end()
		}
	})
}

// sought returns the shards of the node for which another one waits that could write them.
func (n *testNode) sought() (shards []int) {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	for shard, owner := range n.s.owner {
		for _, o := range n.s.nodes {
			if owner == n && o != n && o.assigned[shard] && !o.useless {
				shards = append(shards, shard)
				break
			}
		}
	}
	return shards
}

// TestNodeCutOff: a node that neither hears nor writes gives up what another one waits for,
// and gets it back when it can. If no node can write, each keeps what it has.
func TestNodeCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a, b := s.node(), s.node()
		after(5 * time.Second)
		set := func(off bool, nodes ...*testNode) {
			for _, n := range nodes {
				n.bus.cut(off)
				s.mu.Lock()
				n.useless = off
				s.mu.Unlock()
			}
		}
		set(true, a, b)
		after(time.Minute)
		s.checkOwns(map[*testNode]int{a: 5, b: 5})
		set(false, a, b)
		after(time.Minute)
		s.checkOwns(map[*testNode]int{a: 5, b: 5})

		set(true, a)
		after(goneAfter + failAfter)
		s.checkOwns(map[*testNode]int{a: 0, b: 10})
		after(time.Minute)
		s.checkOwns(map[*testNode]int{a: 0, b: 10})
		set(false, a)
		after(10 * time.Second)
		s.checkOwns(map[*testNode]int{a: 5, b: 5})

		b.bus.cut(true) // it can write
		after(time.Minute)
		s.checkOwns(map[*testNode]int{a: 5, b: 5})
		b.kill()
		a.kill()
	})
}
