package live

import (
	"slices"
	"time"

	"async-data-processor/message"
)

// timeOf is when a submission was accepted, by its id; zero if that has no time that may
// be right.
func timeOf(id string, now time.Time) time.Time {
	at, ok := message.TimeOf(id)
	if !ok || at.Before(time.Unix(0, 0).Add(firstTime)) || at.After(now.Add(clockAhead)) {
		return time.Time{}
	}
	return at
}

// shardsKnown is what this node has heard of shards from their owners, whatever they were
// asked.
type shardsKnown struct {
	number int
	heard  [maxShards]time.Time
	// since is since when a shard remembers all, zero if it has forgotten nothing.
	since [maxShards]time.Time
	// pauses are those of paused shards, and pauseChanges counts their changes.
	pauses       map[int]Pause
	pauseChanges uint64
}

func (s *shardsKnown) answered(owns bitset, forgot []shardMemory, now time.Time) {
	for n := range owns.all() {
		s.heard[n], s.since[n] = now, time.Time{}
	}
	for _, m := range forgot {
		if owns.has(m.Shard) {
			s.since[m.Shard] = time.UnixMilli(m.Since)
		}
	}
}

// unknown returns the shards that may have pending messages of the submission, and whose
// owner is silent.
func (e *entry) unknown(s *shardsKnown, now time.Time) (silent []int) {
	if e.all.count() == e.count {
		return nil
	}
	for n := range e.needed(s.number).all() {
		switch {
		case !e.covered.has(n):
			if now.Sub(e.created) < silentAfter {
				continue
			}
		case now.Sub(later(s.heard[n], e.created)) < heardWithin:
			continue
		}
		silent = append(silent, n)
	}
	return silent
}

// complete tells whether every shard that may have its messages has answered of late.
func (e *entry) complete(s *shardsKnown, now time.Time) bool {
	for n := range e.needed(s.number).all() {
		if !e.covered.has(n) || now.Sub(later(s.heard[n], e.created)) >= heardWithin {
			return false
		}
	}
	return true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// judge decides whether it is ready, and done. servers have to answer whether they
// remember it, looked tells that the dead letters are known.
func (e *entry) judge(s *shardsKnown, servers []string, looked bool, now time.Time) (changed bool) {
	was := [2]bool{e.ready, e.done}
	missing := upTo(e.count).without(e.all).without(e.dead.bits()).count()
	switch {
	case e.done:
	case e.all.count() == e.count:
		e.finish()
	case missing == 0 && e.complete(s, now): // a dead one may be written where its owner is silent
		e.finish()
	}
	if !e.ready && (e.done || now.Sub(e.created) >= silentAfter ||
		e.complete(s, now) && e.sought(servers) && (looked || !e.urgent)) {
		e.ready = true
		e.failure = e.fail(s, now)
	} else if e.failure != nil && (e.any() || !e.accepted.IsZero()) {
		// What was learned since may say that it is known. It may be forgotten all the same.
		if failure := e.fail(s, now); failure != e.failure {
			e.failure, changed = failure, true
		}
	}
	return changed || was != [2]bool{e.ready, e.done}
}

// finish notes that no message is pending. mu of the Receipts is held.
func (e *entry) finish() {
	e.done, e.failure = true, nil
	for _, w := range e.written {
		e.doneAt = later(e.doneAt, w.last)
	}
	for _, d := range e.dead {
		if d.bits.without(e.all).count() > 0 {
			e.doneAt = later(e.doneAt, d.when)
		}
	}
}

// any tells whether something is known of its messages.
func (e *entry) any() bool { return len(e.all) > 0 || len(e.dead) > 0 }

// sought tells whether it is known whether servers remember it.
func (e *entry) sought(servers []string) bool {
	if !e.seek || e.any() || !e.accepted.IsZero() {
		return true
	}
	if servers == nil {
		return false // they are not known; some may answer within a second
	}
	for _, node := range servers {
		if !e.servers[node] {
			return false
		}
	}
	return true
}

// fail is why there is no receipt, nil if there is one.
func (e *entry) fail(s *shardsKnown, now time.Time) error {
	if e.done {
		return nil
	}
	at := e.acceptedAt(now)
	for n := range e.needed(s.number).all() {
		if since := s.since[n]; !at.IsZero() && !since.IsZero() && at.Before(since) {
			return ErrForgotten
		}
	}
	if !e.any() && e.accepted.IsZero() && len(e.unknown(s, now)) == 0 {
		return ErrNotKnown
	}
	return nil
}

// receipt is what is known now.
func (e *entry) receipt(s *shardsKnown, now time.Time) Receipt {
	dead := e.dead.bits().without(e.all)
	r := Receipt{
		ID: e.id, Accepted: e.count, Written: e.all.count(), Dead: dead.count(), Done: e.done,
		Shards: make(map[int]ShardReceipt), AcceptedAt: stamp(e.acceptedAt(now)), AsOf: stamp(now), Indexes: new(Indexes),
	}
	for n, w := range e.written {
		r.Shards[n] = ShardReceipt{Written: w.count}
		if r.RememberedUntil.IsZero() || w.till.Before(r.RememberedUntil) {
			r.RememberedUntil = stamp(w.till)
		}
	}
	counted := slices.Clone(e.all)
	for _, d := range e.dead {
		bits := d.bits.without(counted)
		n := bits.count()
		if n == 0 {
			continue
		}
		counted.join(bits)
		if d.shard >= 0 {
			sh := r.Shards[d.shard]
			sh.Dead += n
			r.Shards[d.shard] = sh
		}
		r.Indexes.Dead = append(r.Indexes.Dead, DeadIndexes{bits.String(), d.reason})
	}
	r.Pending = r.Accepted - r.Written - r.Dead
	r.Indexes.Pending = upTo(e.count).without(e.all).without(dead).String()
	if e.done {
		r.DoneAt = stamp(e.doneAt)
	} else {
		r.Unknown = e.unknown(s, now)
		r.Paused = e.paused(s, r.Unknown, now)
	}
	r.State = stateOf(&r, e.accepted.IsZero())
	return r
}

func stateOf(r *Receipt, unheard bool) State {
	switch {
	case r.Done && r.Dead > 0:
		return DeadLetters
	case r.Done:
		return Written
	case r.Written+r.Dead > 0:
		return Writing
	case len(r.Unknown) > 0 && unheard:
		return Unknown
	}
	return Queued
}

// stamp is a time as it is told: UTC, in milliseconds.
func stamp(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Truncate(time.Millisecond)
}
