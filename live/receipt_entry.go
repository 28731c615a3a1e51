package live

import (
	"slices"
	"time"

	"async-data-processor/broker"
)

const (
	// silentAfter is how long an owner is waited for before its shard is unknown.
	silentAfter = time.Second
	// heardWithin is how long ago an owner may have been heard that was asked every
	// tellAgain.
	heardWithin = tellAgain + silentAfter + silentAfter/4
	// firstTime is before the oldest id that has a count. The id that is made of an
	// Idempotency-Key has no time, and only one of 5,000 looks as if it had one since.
	firstTime = 1767225600 * time.Second // 2026-01-01, after 1970
	// clockAhead is by how much the clock of a server may be ahead of this one.
	clockAhead = time.Hour
)

// entry is what this node knows of a submission that is watched here. What is written
// stays written. What is dead may be replayed, so a later look replaces it.
type entry struct {
	id      string
	count   int
	created time.Time
	toldAt  time.Time // of the interest; zero if that is still to be told
	shards  bitset    // that have its messages; nil if that is not known
	seek    bool      // ask servers whether they remember it
	urgent  bool      // look for its dead letters at once

	accepted time.Time       // zero if that is not known
	servers  map[string]bool // that have answered whether they remember it
	covered  bitset          // shards whose owner has answered
	all      bitset          // written, in any shard
	written  map[int]*shardWritten
	dead     deadSets // some of them may be written, too
	deadAsOf time.Time

	ready   bool // what is not known by now is not known at all
	failure error
	done    bool
	doneAt  time.Time
	silent  int // shards whose owner is silent
	watches []*Watch
	// pauseChanges is how many of shardsKnown its watches were told.
	pauseChanges uint64
}

type shardWritten struct {
	count      int
	last, till time.Time
}

// deadSets are dead letters by shard and reason.
type deadSets []deadSet

type deadSet struct {
	shard  int // -1 if that is not known
	reason string
	bits   bitset
	at     time.Time // when that was learned
	when   time.Time // when the last of them became one
}

// set returns the set for a shard and a reason.
func (d *deadSets) set(shard int, reason string, at time.Time) *deadSet {
	same := func(s deadSet) bool { return s.shard == shard && s.reason == reason }
	i := slices.IndexFunc(*d, same)
	if i < 0 && len(*d) >= maxReasons {
		reason = "several reasons"
		i = slices.IndexFunc(*d, same)
	}
	if i < 0 {
		*d = append(*d, deadSet{shard: shard, reason: reason})
		i = len(*d) - 1
	}
	(*d)[i].at, (*d)[i].when = at, later((*d)[i].when, at)
	return &(*d)[i]
}

func (d *deadSets) add(shard int, reason string, index int, at time.Time) {
	d.set(shard, reason, at).bits.add(index)
}

func (d deadSets) bits() (all bitset) {
	for _, s := range d {
		all.join(s.bits)
	}
	return all
}

// needed are the shards that may have its messages.
func (e *entry) needed(shards int) bitset {
	if e.shards != nil {
		return e.shards
	}
	return upTo(shards)
}

// learn takes what a node knows, and tells whether something is new. What is out of
// bounds is left out, and counts as broken.
func (e *entry) learn(a *answer, owns bitset, st *idState, now time.Time) (changed, broken bool) {
	before := e.covered.count()
	e.covered.join(owns)
	changed = e.covered.count() != before
	for _, w := range st.Written {
		bits, err := parseBits(w.Bits, e.count)
		if err != nil || len(bits) == 0 || w.Shard < 0 || w.Shard >= maxShards || !isMillis(w.First) || !isMillis(w.Last) || !isMillis(w.Until) {
			broken = true
			continue
		}
		changed = e.all.join(bits) || changed
		if e.written == nil {
			e.written = make(map[int]*shardWritten)
		}
		known := e.written[w.Shard]
		if known == nil {
			known = new(shardWritten)
			e.written[w.Shard] = known
		}
		if n := bits.count(); n > known.count {
			known.count, changed = n, true
		}
		known.last, known.till = time.UnixMilli(w.Last), time.UnixMilli(w.Until)
	}
	for _, d := range st.Dead {
		bits, err := parseBits(d.Bits, e.count)
		if err != nil || d.Shard < -1 || d.Shard >= maxShards {
			broken = true
			continue
		}
		set := e.dead.set(d.Shard, broker.Clip(d.Reason, maxReason), now)
		changed = set.bits.join(bits) || changed
	}
	if st.Sought && e.seek {
		if e.servers == nil {
			e.servers = make(map[string]bool)
		}
		if len(e.servers) < maxServers {
			e.servers[a.Node] = true
		}
		if st.Accepted > 0 && isMillis(st.Accepted) {
			at := time.UnixMilli(st.Accepted)
			if e.accepted.IsZero() || at.Before(e.accepted) {
				e.accepted, changed = at, true
			}
			if shards, err := parseBits(st.Shards, maxShards); err == nil && e.shards == nil && shards != nil {
				e.shards, changed = shards, true
			}
		}
	}
	return changed, broken
}

// maxServers bounds whose answers are remembered.
const maxServers = 1000

// found takes what a look at the dead-letter queue has found. What was told since the
// look began stays, and if the look did not see all, so does what was known before.
func (e *entry) found(l *look) (changed bool) {
	if e.done || !l.began.After(e.deadAsOf) {
		return false
	}
	e.deadAsOf = l.began
	before := e.dead.bits()
	if l.whole {
		e.dead = slices.DeleteFunc(e.dead, func(d deadSet) bool { return d.at.Before(l.began) })
	}
	for _, d := range l.dead[e.id] {
		set := e.dead.set(d.shard, d.reason, l.began)
		set.bits.join(d.bits)
		set.when = d.when
	}
	return !slices.Equal(e.dead.bits(), before)
}

// acceptedAt is when it was accepted, zero if that is not known: as a server remembers,
// else by its id.
func (e *entry) acceptedAt(now time.Time) time.Time {
	if !e.accepted.IsZero() {
		return e.accepted
	}
	return timeOf(e.id, now)
}
