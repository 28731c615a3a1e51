package control

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"time"
)

// answers are what GET shows of the whole system, by path.
var answers = map[string]func(*System) any{
	"/api/v1/overview": func(s *System) any { return s.overview() },
	"/api/v1/nodes":    func(s *System) any { return NodesAnswer{s.head(), s.Nodes} },
	"/api/v1/shards":   func(s *System) any { return s.shards() },
	"/api/v1/workers":  func(s *System) any { return s.workers() },
}

// Paths are what ServeHTTP answers.
var Paths = slices.Sorted(maps.Keys(answers))

// ServeHTTP implements http.Handler for GET of Paths, with JSON. It shows the inside of
// the processes.
func (n *Node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	show := answers[r.URL.Path]
	if show == nil {
		http.NotFound(w, r)
		return
	}
	text, err := json.Marshal(show(n.System()))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(text, '\n')) // the client may be gone
}

// Head begins each answer.
type Head struct {
	// AsOf is when Node began to ask the others.
	AsOf time.Time `json:"as_of"`
	Node string    `json:"node"`
	// Complete tells that every node has answered. Else what they own is unknown, and
	// sums are without it.
	Complete bool `json:"complete"`
}

func (s *System) head() Head { return Head{s.AsOf, s.Node, !s.waits()} }

// NodesAnswer is the answer of /api/v1/nodes.
type NodesAnswer struct {
	Head
	Nodes []NodeView `json:"nodes"`
}

// ShardsAnswer is the answer of /api/v1/shards.
type ShardsAnswer struct {
	Head
	// QueuesAsOf is when the broker was asked for the depths of the queues; nil if they
	// are not known.
	QueuesAsOf *time.Time  `json:"queues_as_of"`
	Shards     []ShardView `json:"shards"`
}

func (s *System) shards() ShardsAnswer {
	a := ShardsAnswer{Head: s.head(), Shards: s.Shards}
	if s.Queues {
		a.QueuesAsOf = &s.QueuesAsOf
	}
	return a
}

// WorkerView is a worker of a node.
type WorkerView struct {
	Node string    `json:"node"`
	AsOf time.Time `json:"as_of"`
	WorkerPart
}

// WorkersAnswer is the answer of /api/v1/workers.
type WorkersAnswer struct {
	Head
	Workers []WorkerView `json:"workers"`
	LeftOut int          `json:"left_out"`
}

func (s *System) workers() WorkersAnswer {
	a := WorkersAnswer{Head: s.head(), Workers: []WorkerView{}}
	for _, v := range s.Nodes {
		if v.part == nil {
			continue
		}
		for _, w := range v.part.Workers {
			a.Workers = append(a.Workers, WorkerView{v.Node, v.AsOf, w})
		}
		a.LeftOut += v.LeftOut.Workers
	}
	return a
}

// Overview is the answer of /api/v1/overview.
type Overview struct {
	Head
	// Nodes and Shards count those in each state.
	Nodes  map[string]int `json:"nodes"`
	Shards map[string]int `json:"shards"`
	// Queued is how many envelopes wait at the broker; nil if that is not known.
	Queued *int `json:"queued"`
	// InHand, Held, Workers and Totals are sums over the nodes that have answered.
	InHand  int `json:"in_hand"`
	Held    int `json:"held"`
	Workers int `json:"workers"`
	Totals
	Disks []NodeDisk `json:"disks"`
	// NotReady are the checks that fail.
	NotReady []NodeCheck `json:"not_ready"`
}

// NodeDisk is the disk of a node's output.
type NodeDisk struct {
	Node string `json:"node"`
	Disk
}

// NodeCheck is a check of a node.
type NodeCheck struct {
	Node string `json:"node"`
	Check
}

func (s *System) overview() Overview {
	o := Overview{
		Head: s.head(), Nodes: make(map[string]int), Shards: make(map[string]int),
		Disks: []NodeDisk{}, NotReady: []NodeCheck{},
	}
	if s.Queues {
		o.Queued = new(int)
	}
	for _, v := range s.Shards {
		o.Shards[string(v.State)]++
		if v.Queued != nil {
			*o.Queued += *v.Queued
		}
	}
	for _, v := range s.Nodes {
		o.Nodes[v.State]++
		if v.part == nil {
			continue
		}
		o.add(&v)
	}
	return o
}

// add counts what a node has told.
func (o *Overview) add(v *NodeView) {
	for _, sh := range v.part.Shards {
		o.InHand += sh.InHand
		o.Held += sh.Held
		o.Workers += sh.Workers
	}
	o.Totals.Add(*v.Totals)
	if v.Disk != nil {
		o.Disks = append(o.Disks, NodeDisk{v.Node, *v.Disk})
	}
	for _, c := range v.Checks {
		if !c.OK {
			o.NotReady = append(o.NotReady, NodeCheck{v.Node, c})
		}
	}
}
