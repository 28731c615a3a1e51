package control

import (
	"slices"
	"time"
)

const (
	// takeAfter is how long a shard may be without an owner before a node takes it that
	// is not meant to.
	takeAfter = 10 * time.Second
	// keepMax bounds how long such a node keeps a shard whose meant owner takes it over
	// again and again, and does not write it.
	keepMax = 10 * time.Minute
)

// Owner owns the shards that it is told to: a consumer.Set. Its methods do not wait.
type Owner interface {
	// Start has the shard owned, once no other process owns it.
	Start(shard int)
	// Stop has what is received of the shard finished, and the shard given up.
	Stop(shard int)
}

// share decides which shards this node's Owner starts and stops. It is a pure state
// machine: its time is what it is told. Only one owner at a time writes a shard,
// whatever it decides: the lock of the shard's folder and the broker see to that.
//
//   - What is meant for this node is started.
//   - What this node runs for another one is stopped only when that one waits for it.
//     So two nodes that disagree keep what they have.
//   - What no node runs for takeAfter is started, whoever is meant to own it.
//   - A node that cannot write, and does not hear of the others, gives up what another
//     process waits for, until it can write or hear again.
type share struct {
	self   string
	owner  Owner
	shards []sharedShard

	// The owners that were meant last, and from which nodes that was computed.
	nodes []string
	meant []int
}

type sharedShard struct {
	started bool
	// taking tells that it was started because no node ran it, and does not run yet: it
	// waits for the folder, or opens it, which takes a while.
	taking bool
	// owned is when a node was last seen to run it.
	owned time.Time
	// given is how often this node has given it to the one that is meant, since another
	// one was last seen to run it. keep is until when it keeps what it has taken after
	// that, so that the two do not pass it on for ever.
	given int
	keep  time.Time
	// yielded tells that it was given up to a process that this node does not hear.
	yielded bool
}

// newShare returns the share of a node whose Owner has started all shards.
func newShare(now time.Time, self string, shards int, owner Owner) *share {
	s := &share{self: self, owner: owner, shards: make([]sharedShard, shards)}
	for n := range s.shards {
		s.shards[n] = sharedShard{started: true, owned: now}
	}
	return s
}

// step compares what this node has with what it should. It returns the number of nodes
// that share the shards, and how many are meant for this one.
func (s *share) step(now time.Time, own Consumer, m *members) (nodes, mine int) {
	s.assign(now, own, m)
	others := m.here()
	running := make([]bool, len(s.shards))
	consumers := make(map[string]*Consumer, len(others))
	for _, b := range others {
		if b.Consumer == nil {
			continue
		}
		consumers[b.Node] = b.Consumer
		for _, n := range b.Consumer.Runs {
			if int(n) < len(running) {
				running[n] = true
			}
		}
	}
	blind := !own.Works && m.away(now)
	for n := range s.shards {
		s.shards[n].yielded = blind && (s.shards[n].yielded || own.sought.Has(n))
		meant := s.nodes[s.meant[n]]
		if meant == s.self {
			mine++
		}
		has := meant != s.self && consumers[meant] != nil && consumers[meant].Has(n)
		s.decide(now, n, meant, own.Runs.Has(n), running[n], has)
	}
	return len(s.nodes), mine
}

// decide starts or stops a shard. runs tells that this node runs it, running that
// another one does, has that the one which is meant to runs it or waits for it.
func (s *share) decide(now time.Time, n int, meant string, runs, running, has bool) {
	sh := &s.shards[n]
	if runs || running {
		sh.owned = now
	}
	if running && !runs {
		sh.given = 0
	}
	var wanted bool
	switch {
	case sh.yielded:
		wanted = false
	case meant == s.self:
		wanted = true
	case !sh.started:
		wanted = now.Sub(sh.owned) >= takeAfter
		sh.taking = wanted
		if wanted && sh.given > 0 {
			sh.keep = now.Add(min(takeAfter<<(sh.given-1), keepMax))
		}
	case runs:
		wanted = !has || now.Before(sh.keep)
		if !wanted {
			sh.given = min(sh.given+1, 8)
		}
	default:
		wanted = !running && (!has || sh.taking)
	}
	if meant == s.self || runs || !wanted {
		sh.taking = false
	}
	if wanted == sh.started {
		return
	}
	sh.started = wanted
	if wanted {
		s.owner.Start(n)
	} else {
		sh.owned = now // it gets the whole time to find its owner
		s.owner.Stop(n)
	}
}

// assign computes who is meant to own each shard, if that may have changed.
func (s *share) assign(now time.Time, own Consumer, m *members) {
	nodes, others := m.owners(now, len(s.shards))
	if own.Works {
		nodes = append(nodes, s.self)
	} else {
		others = append(others, s.self)
	}
	if len(nodes) == 0 {
		nodes = others
	}
	slices.Sort(nodes)
	if !slices.Equal(nodes, s.nodes) {
		s.nodes, s.meant = nodes, assign(nodes, len(s.shards))
	}
}
