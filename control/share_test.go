package control

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// world is consumers that share shards over a bus that loses, delays and reorders what
// they tell. Its clock is its own.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	now    time.Time
	shards int
	folder bool // all write to one folder; else each has one, and the broker alone decides
	nodes  []*simulated
	onWay  []letter
	lose   float64       // the share of beats that is lost
	late   time.Duration // how late they may be
	deaf   func(from, to *simulated) bool
	active []*simulated // by shard: who writes it; nil if none does
	freed  []time.Time  // since when none does
	moves  int
	gap    time.Duration // the longest time that none did
}

type letter struct {
	to *simulated
	at time.Time
	b  Beat
}

// simulated is a node.
type simulated struct {
	w        *world
	id       string
	seq      uint64
	members  *members
	share    *share
	assigned []bool
	works    bool
	dead     bool // killed
	hangs    bool // its consumer starts nothing
	draining bool
	toldAt   time.Time
	told     Consumer
}

func newWorld(t *testing.T, seed uint64, shards int, folder bool) *world {
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: start, shards: shards, folder: folder,
		active: make([]*simulated, shards), freed: make([]time.Time, shards),
		deaf: func(_, _ *simulated) bool { return false },
	}
	for n := range w.freed {
		w.freed[n] = w.now
	}
	return w
}

// join adds nodes that start now.
func (w *world) join(count int) {
	for range count {
		id := fmt.Sprintf("n%d-%06X", len(w.nodes), w.rng.IntN(1<<24))
		s := &simulated{w: w, id: id, members: newMembers(id), works: true, assigned: make([]bool, w.shards)}
		s.share = newShare(w.now, id, w.shards, s)
		for n := range s.assigned {
			s.assigned[n] = true
		}
		w.nodes = append(w.nodes, s)
		s.tell(Hello)
	}
}

func (s *simulated) Start(shard int) { s.assigned[shard] = true }
func (s *simulated) Stop(shard int)  { s.assigned[shard] = false }

// has is what the node says it has.
func (s *simulated) has() Consumer {
	c := Consumer{Shards: s.w.shards, Works: s.works}
	for n, assigned := range s.assigned {
		switch writes := s.w.active[n] == s; {
		case writes, assigned && !s.w.folder && !s.hangs:
			c.Runs.Add(n)
		case assigned && !s.hangs:
			c.Waits.Add(n)
		}
	}
	return c
}

func (s *simulated) tell(kind Kind) {
	s.seq++
	c := s.has()
	s.told, s.toldAt = c, s.w.now
	for _, to := range s.w.nodes {
		if to == s || s.w.rng.Float64() < s.w.lose || s.w.deaf(s, to) {
			continue
		}
		at := s.w.now.Add(20 * time.Millisecond)
		if s.w.late > 0 {
			at = at.Add(time.Duration(s.w.rng.Int64N(int64(s.w.late))))
		}
		s.w.onWay = append(s.w.onWay, letter{to, at, Beat{V: 1, Node: s.id, Seq: s.seq, Kind: kind, Draining: s.draining, Consumer: &c}})
	}
}

// pass lets the time pass, in steps of 100 ms.
func (w *world) pass(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(100 * time.Millisecond)
		w.onWay = slices.DeleteFunc(w.onWay, func(l letter) bool {
			if l.at.After(w.now) {
				return false
			}
			if !l.to.dead && l.to.members.heard(w.now, l.b) {
				l.to.toldAt = time.Time{} // it answers soon
			}
			return true
		})
		for _, s := range w.nodes {
			if s.dead {
				continue
			}
			s.members.pass(w.now)
			if !s.draining {
				s.share.step(w.now, s.has(), s.members)
			}
			if c := s.has(); w.now.Sub(s.toldAt) >= beatInterval || !c.equal(&s.told) {
				s.tell(Still)
			}
		}
		w.settle()
	}
}

// settle has each shard written by one node of those that want it.
func (w *world) settle() {
	for n, s := range w.active {
		if s != nil && (s.dead || s.hangs || !s.assigned[n]) {
			w.active[n], w.freed[n] = nil, w.now
			continue
		}
		if s != nil {
			continue
		}
		gap := w.now.Sub(w.freed[n])
		w.gap = max(w.gap, gap)
		if gap < 200*time.Millisecond { // a waiting one looks that often
			continue
		}
		for _, i := range w.rng.Perm(len(w.nodes)) {
			if s := w.nodes[i]; !s.dead && !s.hangs && s.assigned[n] {
				w.active[n] = s
				w.moves++
				break
			}
		}
	}
}

// checkShared fails unless every shard is written, by no node more than its part.
func (w *world) checkShared() {
	w.t.Helper()
	loads, alive := make(map[*simulated]int), 0
	for _, s := range w.nodes {
		if !s.dead && !s.draining {
			alive++
		}
	}
	for n, s := range w.active {
		if s == nil {
			w.t.Fatalf("no node writes shard %d", n)
		}
		loads[s]++
	}
	for s, load := range loads {
		if load > (w.shards+alive-1)/alive {
			w.t.Errorf("%s writes %d of %d shards, %d nodes share them", s.id, load, w.shards, alive)
		}
	}
}

// checkMoves fails if more shards have moved since the last call.
func (w *world) checkMoves(most int) {
	w.t.Helper()
	if w.moves > most {
		w.t.Errorf("%d shards have moved, want at most %d", w.moves, most)
	}
	w.moves, w.gap = 0, 0
}

// everyWorld runs a scenario in so many worlds with one folder, and with one each.
func everyWorld(t *testing.T, worlds uint64, scenario func(*world)) {
	for seed := range worlds {
		for _, folder := range []bool{true, false} {
			t.Run(fmt.Sprint(seed, " one folder ", folder), func(t *testing.T) { scenario(newWorld(t, seed, 20, folder)) })
		}
	}
}

// TestShareGrows: one node has all shards at once. Those that come later get their
// part within ten seconds, and then nothing moves any more.
func TestShareGrows(t *testing.T) {
	everyWorld(t, 2, func(w *world) {
		w.join(1)
		w.pass(300 * time.Millisecond)
		w.checkShared()
		w.checkMoves(20)
		for range 3 {
			w.join(1)
			w.pass(10 * time.Second)
			w.checkShared()
			w.checkMoves(2 * 20)
			w.pass(time.Minute)
			w.checkMoves(0)
		}
	})
}

// TestShareOwnerEnds: what a node had is written again soon after its end: within ten
// seconds if it is killed, two if it says so.
func TestShareOwnerEnds(t *testing.T) {
	everyWorld(t, 2, func(w *world) {
		w.join(4)
		w.pass(time.Minute)
		w.checkMoves(80)
		w.nodes[1].dead = true
		w.pass(20 * time.Second)
		if w.gap > 8*time.Second {
			w.t.Errorf("no node has written a shard for %v", w.gap)
		}
		w.checkShared()
		w.checkMoves(40)

		s := w.nodes[2]
		s.draining = true
		s.tell(Still)
		w.pass(200 * time.Millisecond)
		for n := range s.assigned {
			s.Stop(n)
		}
		w.pass(20 * time.Second)
		if w.gap > time.Second {
			w.t.Errorf("no node has written a shard for %v", w.gap)
		}
		w.checkShared()
	})
}

// TestShareLossyBus: beats that are lost, late and out of order move hardly a shard, and
// do not leave one without an owner.
func TestShareLossyBus(t *testing.T) {
	everyWorld(t, 2, func(w *world) {
		w.join(4)
		w.pass(time.Minute)
		w.checkShared()
		w.checkMoves(80)
		w.lose, w.late = 0.3, 3*time.Second
		w.pass(5 * time.Minute)
		w.checkMoves(40) // each shard twice
		if w.gap > 2*time.Second {
			w.t.Errorf("no node has written a shard for %v", w.gap)
		}
		w.lose, w.late = 0, 0
		w.pass(3 * time.Minute)
		w.checkShared()
		w.checkMoves(40)
		w.pass(5 * time.Minute)
		w.checkMoves(0)
	})
}

// TestShareTwoOpinions: nodes that hear each other in one direction only, or not at
// all, do not swap shards. When they hear each other again they share them.
func TestShareTwoOpinions(t *testing.T) {
	for name, deaf := range map[string]func(from, to int) bool{
		"one direction": func(from, to int) bool { return from < to },
		"not at all":    func(_, _ int) bool { return true },
		"two groups":    func(from, to int) bool { return from%2 != to%2 },
		"a ring":        func(from, to int) bool { return to != (from+1)%4 },
	} {
		t.Run(name, func(t *testing.T) {
			everyWorld(t, 1, func(w *world) {
				w.join(4)
				w.pass(time.Minute)
				w.checkMoves(80)
				w.deaf = func(from, to *simulated) bool { return deaf(slices.Index(w.nodes, from), slices.Index(w.nodes, to)) }
				for _, d := range []time.Duration{10 * time.Second, 5 * time.Minute} {
					w.pass(d)
					w.checkMoves(20)
				}
				w.deaf = func(_, _ *simulated) bool { return false }
				w.pass(time.Minute)
				w.checkShared()
				w.checkMoves(40)
				w.pass(5 * time.Minute)
				w.checkMoves(0)
			})
		})
	}
}

// TestShareHang: what a node is meant to own and does not start is taken by another
// after ten seconds, and given back when it does.
func TestShareHang(t *testing.T) {
	everyWorld(t, 2, func(w *world) {
		w.join(3)
		w.pass(time.Minute)
		w.nodes[0].hangs = true
		w.pass(15 * time.Second)
		for n, s := range w.active {
			if s == nil {
				w.t.Errorf("no node has taken shard %d", n)
			}
		}
		w.checkMoves(80)
		w.pass(5 * time.Minute)
		w.checkMoves(0)
		w.nodes[0].hangs = false
		w.pass(2 * time.Minute)
		w.checkShared()
	})
}

// TestShareOutputFails: a node whose output takes nothing has its shards taken; if none
// works, all keep what they have.
func TestShareOutputFails(t *testing.T) {
	everyWorld(t, 2, func(w *world) {
		w.join(3)
		w.pass(time.Minute)
		w.nodes[0].works = false
		w.pass(10 * time.Second)
		for n, s := range w.active {
			if s == w.nodes[0] {
				w.t.Errorf("the node that cannot write still has shard %d", n)
			}
		}
		w.nodes[0].works = true
		w.pass(time.Minute)
		w.checkShared()
		w.checkMoves(80)
		for _, s := range w.nodes {
			s.works = false
		}
		w.pass(time.Minute)
		w.checkShared()
		w.checkMoves(20)
	})
}
