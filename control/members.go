package control

import (
	"maps"
	"slices"
	"time"
)

// Times of the membership. They are measured on this node's own clock.
const (
	// beatInterval is how often a node tells that it is there.
	beatInterval = 2 * time.Second
	// goneAfter is how long a node may be silent: three beats.
	goneAfter = 3 * beatInterval
	// standMin is how long a change for the better has to last before the node gets
	// shards: that it is there, and that its output works. It doubles each time it did
	// not last for steadyAfter, up to standMax.
	standMin = time.Second
	standMax = time.Minute
	// steadyAfter is how long a node is well before earlier changes are forgotten.
	steadyAfter = 10 * time.Minute
	// awayAfter is how long this node does not hear its own beats before the bus counts as
	// away. It is less than any other node is silent when that counts as gone.
	awayAfter = beatInterval * 3 / 2
	// forgetAfter is how long a node that is gone is remembered.
	forgetAfter = 10 * time.Minute
)

// maxMembers bounds how many nodes are remembered.
const maxMembers = 1000

// members is what a node knows of the others. It is a pure state machine: its time is
// what it is told.
type members struct {
	self string
	all  map[string]*member
	// refused counts beats of nodes for which there was no room, and those that said
	// they were this node.
	refused int
	// bus is when this node heard its own beat last, and back when it did so for the first
	// time after the bus was away.
	bus, back time.Time
}

// member is another node.
type member struct {
	beat  Beat
	heard time.Time // when that came
	here  bool      // false once it was silent for too long, or has said goodbye
	// lost tells that it became silent because the bus is away: nothing is known of it. It
	// does not matter to who owns which shard: without the bus the node owns none as well.
	lost bool
	// fit tells that it can own shards, since then. stand is how long that has to last
	// before it counts.
	fit   bool
	since time.Time
	stand time.Duration
}

func newMembers(self string) *members {
	return &members{self: self, all: make(map[string]*member)}
}

// heard takes a beat of another node, and returns whether the node has come just now. A
// beat that is older than the last one changes nothing.
func (m *members) heard(now time.Time, b Beat) (came bool) {
	if b.Node == m.self {
		m.refused++
		return false
	}
	known := m.all[b.Node]
	switch {
	case known == nil && b.Kind == Goodbye:
		return false
	case known == nil:
		if !m.makeRoom() {
			m.refused++
			return false
		}
		known = &member{stand: standMin / 2} // doubled below
		m.all[b.Node] = known
	case b.Seq <= known.beat.Seq && now.Sub(known.heard) < goneAfter:
		return false // late, or twice
	case !known.here && known.beat.Kind == Goodbye:
		return false // its name is never used again
	}
	came = !known.here && b.Kind != Goodbye
	known.beat, known.heard, known.here, known.lost = b, now, b.Kind != Goodbye, false
	known.judge(now)
	return came
}

// heardSelf takes a beat of this node itself.
func (m *members) heardSelf(now time.Time) {
	if m.away(now) {
		m.back = now
	}
	m.bus = now
}

// away tells whether the bus is away.
func (m *members) away(now time.Time) bool { return now.Sub(m.bus) >= awayAfter }

// judge notes whether the node can own shards.
func (k *member) judge(now time.Time) {
	c := k.beat.Consumer
	fit := k.here && c != nil && c.Works && !k.beat.Draining
	if fit == k.fit {
		return
	}
	if fit {
		k.stand = min(2*k.stand, standMax)
	} else if now.Sub(k.since) >= steadyAfter {
		k.stand = standMin / 2
	}
	k.fit, k.since = fit, now
}

// makeRoom returns whether there is room for another node. It forgets the one that has
// been gone for longest, never one that is here.
func (m *members) makeRoom() bool {
	if len(m.all) < maxMembers {
		return true
	}
	oldest := ""
	for name, k := range m.all {
		if !k.here && (oldest == "" || k.heard.Before(m.all[oldest].heard)) {
			oldest = name
		}
	}
	delete(m.all, oldest)
	return oldest != ""
}

// pass lets the time pass. It returns the nodes that are known to be gone now: they are
// silent, and the bus is there.
func (m *members) pass(now time.Time) (gone []string) {
	away := m.away(now)
	for name, k := range m.all {
		silent := now.Sub(k.heard)
		switch {
		case k.here && silent >= goneAfter:
			k.here, k.lost = false, away
			k.judge(now)
			if !away {
				gone = append(gone, name)
			}
		case k.lost:
			if !away && now.Sub(m.back) >= goneAfter {
				k.lost = false
				gone = append(gone, name)
			}
		case !k.here && silent >= forgetAfter:
			delete(m.all, name)
		}
	}
	slices.Sort(gone)
	return gone
}

// owners returns the nodes that may own shards of a consumer with so many, itself not
// among them: those whose output works, or all that are here if there are none.
func (m *members) owners(now time.Time, shards int) (fit, others []string) {
	for name, k := range m.all {
		c := k.beat.Consumer
		if !k.here || c == nil || c.Shards != shards || k.beat.Draining {
			continue
		}
		if k.fit && now.Sub(k.since) >= k.stand {
			fit = append(fit, name)
		} else if !c.Works {
			others = append(others, name)
		}
	}
	return fit, others
}

// here returns the beats of the nodes that are here, in the order of their names.
func (m *members) here() (beats []Beat) {
	for _, name := range slices.Sorted(maps.Keys(m.all)) {
		if k := m.all[name]; k.here {
			beats = append(beats, k.beat)
		}
	}
	return beats
}
