package live

import (
	"flag"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

var modelRuns = flag.Int("receipts", 30, "how many random systems TestReceiptModel runs")

// TestReceiptModel: whatever becomes of owners and of bodies on the bus, a receipt never
// says more than is true, and says all in the end.
func TestReceiptModel(t *testing.T) {
	for seed := range uint64(*modelRuns) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			s := newSystem(t, 1+rnd.IntN(4))
			lose := 0
			if rnd.IntN(2) == 0 {
				lose = 50
			}
			s.bus = func(b broker.Bus) broker.Bus {
				return &lossy{Bus: b, rnd: rand.New(rand.NewPCG(seed, rnd.Uint64())), lose: lose}
			}
			m := &receiptModel{t: t, rnd: rnd, s: s, dead: make(map[string]bitset)}
			m.run()
			if t.Failed() {
				t.Logf("-receipts: seed %d", seed)
			}
		})
		if t.Failed() {
			return
		}
	}
}

type receiptModel struct {
	t   *testing.T
	rnd *rand.Rand
	s   *system

	server *node
	owners []*node
	subs   []*modelSubmission
	dead   map[string]bitset // by id
}

type modelSubmission struct {
	id    string
	count int
	shard []int // by index
	watch []*Watch
	wait  *Waiting
	told  atomic.Int32
	shown Receipt // by the first watch
}

func (m *receiptModel) run() {
	m.server = m.s.start("server", true, false)
	m.owners = []*node{m.s.start("a", false, true), m.s.start("b", true, true)}
	for i := range m.s.shards {
		m.s.own(m.owners[i%2], i)
	}
	for range 60 {
		m.step()
		time.Sleep(time.Duration(m.rnd.IntN(400)) * time.Millisecond)
		synctest.Wait()
		m.check()
	}
	for i := range m.s.shards { // each gets an owner
		m.s.own(m.owners[i%2], i)
	}
	for _, sub := range m.subs {
		for i := range sub.count {
			m.finish(sub, i)
		}
	}
	time.Sleep(20 * time.Second) // of bodies that are lost for a while
	for _, n := range m.s.nodes {
		if l, ok := n.cfg.Bus.(*lossy); ok {
			l.mu.Lock()
			l.lose = 0
			l.mu.Unlock()
		}
	}
	time.Sleep(2*lookEvery + 3*time.Second)
	m.check()
	for _, sub := range m.subs {
		for i, w := range sub.watch {
			if r, err := w.Receipt(); err != nil || !r.Done || r.Pending > 0 {
				m.t.Errorf("watch %d of %s: %+v, %v in the end", i, sub.id, r, err)
			}
			w.Close()
		}
		if p := sub.wait.Progress(); !p.Done || sub.told.Load() != 1 {
			m.t.Errorf("wait for %s: %+v, told %d times", sub.id, p, sub.told.Load())
		}
		sub.wait.End()
	}
}

// step does one thing at random.
func (m *receiptModel) step() {
	switch m.rnd.IntN(6) {
	case 0, 1:
		m.submit()
	case 2, 3: // some messages of one are written, or die
		if len(m.subs) > 0 {
			sub := m.subs[m.rnd.IntN(len(m.subs))]
			for i := range sub.count {
				if m.rnd.IntN(2) == 0 {
					m.finish(sub, i)
				}
			}
		}
	case 4: // a shard changes hands, or loses its owner
		shard := m.rnd.IntN(m.s.shards)
		if m.rnd.IntN(3) == 0 {
			m.s.own(nil, shard)
		} else {
			m.s.own(m.owners[m.rnd.IntN(len(m.owners))], shard)
		}
	case 5: // an owner dies, another one starts
		if m.rnd.IntN(3) == 0 {
			i := m.rnd.IntN(len(m.owners))
			for _, sub := range m.subs { // those who watch there end with it
				for j, w := range sub.watch {
					if w.receipts == m.owners[i].Receipts {
						w.Close()
						sub.watch = append(sub.watch[:j:j], sub.watch[j+1:]...)
						break
					}
				}
			}
			m.owners[i].end()
			m.owners[i] = m.s.start("o"+message.NewID(), m.rnd.IntN(2) == 0, true)
		}
	}
}

func (m *receiptModel) submit() {
	sub := &modelSubmission{count: 1 + m.rnd.IntN(5)}
	if m.rnd.IntN(10) == 0 {
		sub.count = 100
	}
	sub.id = newID(sub.count)
	has := make(map[int]int)
	for range sub.count {
		shard := m.rnd.IntN(m.s.shards)
		sub.shard = append(sub.shard, shard)
		has[shard]++
	}
	var shards []message.ShardCount
	for n := range m.s.shards {
		if has[n] > 0 {
			shards = append(shards, message.ShardCount{Shard: n, Messages: has[n]})
		}
	}
	var ok bool
	if sub.wait, ok = m.server.Await(sub.id, "client", func(Progress) { sub.told.Add(1) }); !ok {
		m.t.Fatal("there is no place to wait")
	}
	m.server.Accepted(sub.id, shards)
	sub.wait.Accepted(shards)
	for _, n := range []*node{m.server, m.owners[0], m.owners[1]} {
		w, err := n.Watch(sub.id)
		if err != nil {
			m.t.Fatal(err)
		}
		sub.watch = append(sub.watch, w)
	}
	m.subs = append(m.subs, sub)
}

// finish writes a message, or makes it a dead letter, unless it has no owner.
func (m *receiptModel) finish(sub *modelSubmission, i int) {
	m.s.mu.Lock()
	owner, known := m.s.owners[sub.shard[i]], m.s.written[sub.id][sub.shard[i]].has(i) || m.dead[sub.id].has(i)
	m.s.mu.Unlock()
	if owner == nil || known {
		return
	}
	if m.rnd.IntN(12) == 0 {
		bits := m.dead[sub.id]
		bits.add(i)
		m.dead[sub.id] = bits
		m.s.bury(m.rnd.IntN(2) == 0, sub.id, sub.shard[i], "bad", i)
		return
	}
	m.s.write(sub.id, sub.shard[i], i)
}

// check holds every receipt to the truth.
func (m *receiptModel) check() {
	m.t.Helper()
	for _, sub := range m.subs {
		var all bitset
		m.s.mu.Lock()
		for _, bits := range m.s.written[sub.id] {
			all.join(bits)
		}
		m.s.mu.Unlock()
		dead := m.dead[sub.id]
		finished := all.count() + dead.count()
		for i, w := range sub.watch {
			r, err := w.Receipt()
			if err != nil {
				continue // it is not known there yet
			}
			if r.Written > all.count() || r.Dead > dead.count() || r.Done && (r.Pending > 0 || finished < sub.count) || r.Written+r.Dead+r.Pending != sub.count {
				m.t.Fatalf("%s has %d written and %d dead of %d, its receipt says %+v", sub.id, all.count(), dead.count(), sub.count, r)
			}
			if i == 0 {
				if r.Written < sub.shown.Written || sub.shown.Done && !r.Done {
					m.t.Fatalf("the receipt of %s went back from %+v to %+v", sub.id, sub.shown, r)
				}
				sub.shown = r
			}
		}
		if p := sub.wait.Progress(); p.Written > all.count() || p.Done && finished < sub.count || p.Done != (sub.told.Load() > 0) {
			m.t.Fatalf("%s has %d of %d, the wait says %+v, told %d times", sub.id, finished, sub.count, p, sub.told.Load())
		}
	}
}
