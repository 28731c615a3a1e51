package control

import (
	"testing"
	"time"

	"async-data-processor/broker"
)

// slow is an Owner whose folders take a while to open.
type slow struct {
	now   time.Time
	since map[int]time.Time // when a shard was started
	ran   map[int]bool
}

func (o *slow) Start(shard int) { o.since[shard] = o.now }
func (o *slow) Stop(shard int)  { delete(o.since, shard) }

// has is what the node says: nothing of a shard that it opens.
func (o *slow) has(shards int) Consumer {
	c := Consumer{Shards: shards, Works: true}
	for n := range shards {
		if at, started := o.since[n]; started && o.now.Sub(at) >= 3*time.Second {
			c.Runs.Add(n)
			o.ran[n] = true
		}
	}
	return c
}

// TestShareOpensSlowly: a node that takes shards whose meant owner only waits for them is
// not stopped while it opens them.
func TestShareOpensSlowly(t *testing.T) {
	const shards = 4
	o := &slow{now: start, since: make(map[int]time.Time), ran: make(map[int]bool)}
	m, s := newMembers("a"), newShare(start, "a", shards, o)
	all := Shards{0, 1, 2, 3}
	for n := range shards {
		o.Start(n)
	}
	for i := range 240 { // a minute
		o.now = start.Add(time.Duration(i) * 250 * time.Millisecond)
		if i%8 == 0 {
			m.heard(o.now, Beat{V: broker.BusVersion, Node: "b", Seq: uint64(i + 1), Kind: Still, Consumer: &Consumer{Shards: shards, Works: true, Waits: all}})
		}
		if i == 8 {
			clear(o.ran) // it was alone
		}
		m.pass(o.now)
		s.step(o.now, o.has(shards), m)
	}
	if len(o.ran) != shards {
		t.Errorf("it has run %v of %d shards that no other node runs", o.ran, shards)
	}
}
