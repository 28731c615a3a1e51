package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"async-data-processor/broker"
	"async-data-processor/event"
)

const (
	// gatherAge is how old a gathered System may be: a thousand requests cost one
	// question to the others.
	gatherAge = 500 * time.Millisecond
	// maxGathered bounds the answers of all nodes together, in bytes, and maxItems their
	// shards: a short text can stand for many.
	maxGathered = 32 << 20
	maxItems    = 50_000
	// depthAge is how old the depths of the queues may be. RabbitMQ logs an error for
	// each look beyond the last queue.
	depthAge = 5 * time.Second
	// depthTimeout bounds a look.
	depthTimeout = time.Second
)

// States of a node in a System.
const (
	NodeHere     = "here"
	NodeDraining = "draining"
	NodeUnknown  = "unknown" // it is there, and does not answer; or the bus is away
	NodeGone     = "gone"
)

// System is all nodes at a moment, as one of them sees it.
type System struct {
	AsOf   time.Time
	Node   string // that gathered it
	Nodes  []NodeView
	Shards []ShardView
	// Away tells that the bus is away, so nothing is known of other nodes.
	Away bool
	// Queues tells whether the depths of the queues are known, and as of when.
	Queues     bool
	QueuesAsOf time.Time
}

// States of the intake of a server, which is unknown if its node is.
const (
	IntakeOpen   = "open"
	IntakePaused = "paused"
)

// NodeView is a node of a System.
type NodeView struct {
	Node  string `json:"node"`
	State string `json:"state"`
	// AsOf is when it told what follows, on its own clock; when it was last heard, on
	// the clock of the node that was asked, if it does not answer.
	AsOf    time.Time `json:"as_of"`
	Info    Info      `json:"info"`
	Checks  []Check   `json:"checks,omitempty"`
	Mine    *int      `json:"mine"`
	Totals  *Totals   `json:"totals"`
	Disk    *Disk     `json:"disk,omitempty"`
	Skipped *Skipped  `json:"skipped"`
	// Accepted is of a server that answers: how many messages, since it started.
	Accepted *int64 `json:"accepted"`
	// Intake is of a server that answers: open or paused, and then why.
	Intake      string  `json:"intake,omitempty"`
	IntakePause *Pause  `json:"intake_pause,omitempty"`
	LeftOut     LeftOut `json:"left_out,omitzero"`

	part *Part // nil if it does not answer
}

// States of a shard in a System, beside those that its owner tells.
const (
	ShardUnowned event.ShardState = "unowned"
	ShardUnknown event.ShardState = "unknown" // its owner does not answer
)

// ShardView is a shard of a System.
type ShardView struct {
	Shard int              `json:"shard"`
	State event.ShardState `json:"state"`
	// Owner is the node that runs it, Waiting are those that would.
	Owner   string   `json:"owner,omitempty"`
	Waiting []string `json:"waiting,omitempty"`
	// Queued is how many envelopes wait at the broker; nil if that is not known.
	Queued *int `json:"queued"`
	// Part is what its owner tells, as of AsOf; nil if there is none, or it is silent.
	AsOf *time.Time `json:"as_of"`
	Part *ShardPart `json:"part"`
}

// gathering is the System that was gathered last.
type gathering struct {
	mu     sync.Mutex // held while one is gathered
	last   *System
	at     time.Time
	depths []broker.Backlog
	known  bool
	looked time.Time
}

// System asks all nodes. It takes up to a second while one does not answer. It may be
// called concurrently: all get the same System, which they must not change.
func (n *Node) System() *System { return n.SystemWithin(gatherAge) }

// SystemWithin is System whose answer is not older than age.
func (n *Node) SystemWithin(age time.Duration) *System {
	g := &n.gathered
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last == nil || time.Since(g.at) >= age {
		g.last = n.gather(g)
		g.at = time.Now()
	}
	return g.last
}

func (n *Node) gather(g *gathering) *System {
	var looking sync.WaitGroup
	if time.Since(g.looked) >= depthAge || !g.known {
		looking.Go(func() { n.lookAtQueues(g) })
	}
	n.mu.Lock()
	s := &System{Node: n.id, AsOf: stamp(time.Now()), Nodes: n.members.views(), Away: n.members.away(time.Now())}
	n.mu.Unlock()
	var own Part
	_ = json.Unmarshal(n.answer(nil), &own) // it is this node's own
	s.Nodes = append(s.Nodes, NodeView{Node: n.id, State: NodeHere, Info: n.cfg.Info})
	s.answered(&own)
	items := maxItems
	if s.waits() {
		question := broker.Body(map[string]any{"v": broker.BusVersion, "node": n.id})
		askAll(n.cfg.Bus, snapshotTopic, question, func(answer []byte) bool {
			var p Part
			err := broker.ReadBody(answer, &p)
			if items -= len(p.Shards); err == nil && (items < 0 || len(p.Checks) > maxChecks) {
				err = errTooMany
			}
			switch {
			case err != nil:
				n.cfg.Skips.Add(err)
			case p.Node != n.id:
				s.answered(&p)
			}
			return items >= 0 && s.waits()
		})
	}
	looking.Wait()
	slices.SortFunc(s.Nodes, func(a, b NodeView) int { return cmp.Compare(a.Node, b.Node) })
	s.Queues, s.QueuesAsOf = g.known, stamp(g.looked)
	s.Shards = s.shardViews(n.cfg.Shards, g.depths, n.runs())
	return s
}

// errTooMany: what a node answers would take too much memory.
var errTooMany = errors.New("too many checks or shards in an answer")

// lookAtQueues asks the broker for the depths of the queues.
func (n *Node) lookAtQueues(g *gathering) {
	ctx, cancel := context.WithTimeout(context.Background(), depthTimeout)
	defer cancel()
	depths, err := n.cfg.Backlogs(ctx, 0)
	g.depths, g.known, g.looked = depths, err == nil, time.Now()
}

// runs returns which nodes have said in a beat that they run a shard.
func (n *Node) runs() map[int]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	runs := make(map[int]string)
	for _, k := range n.members.all {
		if c := k.beat.Consumer; c != nil && (k.here || k.lost) {
			for _, shard := range c.Runs {
				runs[int(shard)] = k.beat.Node
			}
		}
	}
	return runs
}

// views returns the nodes that are known, none of which has answered.
func (m *members) views() (views []NodeView) {
	for name, k := range m.all {
		state := NodeUnknown
		if !k.here && !k.lost {
			state = NodeGone
		}
		views = append(views, NodeView{Node: name, State: state, AsOf: stamp(k.heard), Info: k.beat.Info})
	}
	return views
}

// waits tells whether a node that is there has not answered yet.
func (s *System) waits() bool {
	return slices.ContainsFunc(s.Nodes, func(v NodeView) bool { return v.State == NodeUnknown })
}

// answered takes the part of a node that is known. Others say hello first.
func (s *System) answered(p *Part) {
	i := slices.IndexFunc(s.Nodes, func(v NodeView) bool { return v.Node == p.Node })
	if i < 0 || s.Nodes[i].part != nil || s.Nodes[i].State == NodeGone {
		return
	}
	v := &s.Nodes[i]
	v.State = NodeHere
	if p.Draining {
		v.State = NodeDraining
	}
	v.AsOf, v.Checks, v.Mine, v.Totals, v.Disk, v.Skipped, v.LeftOut = p.AsOf, p.Checks, &p.Mine, &p.Totals, p.Disk, &p.Skipped, p.LeftOut
	v.Intake, v.IntakePause, v.Accepted = p.Intake, p.IntakePause, p.Accepted
	v.part = p
}

// shardViews returns the shards below the number, and those above it that a node or the
// broker has told of. claimed is who has said to run one.
func (s *System) shardViews(number int, depths []broker.Backlog, claimed map[int]string) []ShardView {
	found := make(map[int]*ShardView)
	at := func(n int) *ShardView {
		if found[n] == nil {
			found[n] = &ShardView{Shard: n, State: ShardUnowned}
		}
		return found[n]
	}
	for n := range number {
		at(n)
	}
	for _, d := range depths {
		if s.Queues && d.Shard < maxShards {
			at(d.Shard).Queued = &d.Envelopes
		}
	}
	for i := range s.Nodes {
		v := &s.Nodes[i]
		if v.part == nil {
			continue
		}
		for j := range v.part.Shards {
			p := &v.part.Shards[j]
			if p.Shard < 0 || p.Shard >= maxShards {
				continue
			}
			sh := at(p.Shard)
			if !Runs(p.State) || sh.Owner != "" {
				sh.Waiting = append(sh.Waiting, v.Node)
				continue
			}
			sh.Owner, sh.State, sh.AsOf, sh.Part = v.Node, p.State, &v.AsOf, p
		}
	}
	for n, node := range claimed {
		i := slices.IndexFunc(s.Nodes, func(v NodeView) bool { return v.Node == node })
		if sh := at(n); sh.Owner == "" && i >= 0 && s.Nodes[i].State == NodeUnknown {
			sh.Owner, sh.State = node, ShardUnknown
		}
	}
	views := make([]ShardView, 0, len(found))
	for _, v := range found {
		views = append(views, *v)
	}
	slices.SortFunc(views, func(a, b ShardView) int { return cmp.Compare(a.Shard, b.Shard) })
	return views
}
