package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"async-data-processor/problem"
)

// lists are what GET shows of the whole system, by path: which parameters there are beside
// those of a page, and the answer.
var lists = map[string]struct {
	parameters []string
	show       func(*Node, *listQuery) (any, error)
}{
	"/api/v1/overview": {nil, func(n *Node, _ *listQuery) (any, error) { return n.System().overview(), nil }},
	"/api/v1/nodes":    {ofPage, func(n *Node, q *listQuery) (any, error) { return n.System().nodesPage(q), nil }},
	"/api/v1/shards":   {ofPage, func(n *Node, q *listQuery) (any, error) { return n.System().shardsPage(q) }},
	"/api/v1/workers":  {append([]string{"shard", "history"}, ofPage...), func(n *Node, q *listQuery) (any, error) { return n.Workers.serve(q) }},
}

// ofPage are the parameters of a page.
var ofPage = []string{"after", "limit"}

// Paths are what ServeHTTP answers.
var Paths = slices.Sorted(maps.Keys(lists))

// errBusy: more requests ask for workers than may.
var errBusy = errors.New("other requests ask the nodes for their workers")

// ServeHTTP implements http.Handler for GET of Paths, with JSON. It shows the inside of
// the processes.
func (n *Node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	list, found := lists[r.URL.Path]
	if !found {
		http.NotFound(w, r)
		return
	}
	q, err := readQuery(r, list.parameters)
	var answer any
	if err == nil {
		answer, err = list.show(n, q)
	}
	switch {
	case errors.Is(err, errBusy):
		problem.Answer(w, http.StatusTooManyRequests, "overloaded", err.Error(), 1)
		return
	case err != nil:
		problem.BadQuery(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	problem.JSON(w, http.StatusOK, answer)
}

// listQuery says which rows of a list.
type listQuery struct {
	ctx     context.Context // of the request
	shard   *int
	history bool
	after   string
	limit   int
}

func readQuery(r *http.Request, parameters []string) (*listQuery, error) {
	given, err := problem.Query(r, parameters...)
	if err != nil {
		return nil, err
	}
	q := &listQuery{ctx: r.Context(), after: given["after"], limit: MaxPage}
	if text, there := given["limit"]; there {
		if q.limit, err = strconv.Atoi(text); err != nil || q.limit < 1 || q.limit > MaxPage {
			return nil, fmt.Errorf("limit is %.40q, want 1 to %d", text, MaxPage)
		}
	}
	if text, there := given["history"]; there {
		if q.history, err = strconv.ParseBool(text); err != nil {
			return nil, fmt.Errorf("history is %.40q, want 0 or 1", text)
		}
	}
	if text, there := given["shard"]; there {
		n, err := shardNumber("shard", text)
		if err != nil {
			return nil, err
		}
		q.shard = &n
	}
	return q, nil
}

func shardNumber(name, text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n >= maxShards {
		return 0, fmt.Errorf("%s is %.40q, want the number of a shard", name, text)
	}
	return int(n), nil
}

// Head begins each answer.
type Head struct {
	// AsOf is when Node began to ask the others.
	AsOf time.Time `json:"as_of"`
	Node string    `json:"node"`
	// Complete tells that every node has answered, and that the bus is there. Else what
	// they own is unknown, and sums are without it.
	Complete bool `json:"complete"`
}

// Head returns what each answer begins with.
func (s *System) Head() Head { return Head{s.AsOf, s.Node, !s.waits() && !s.Away} }

// NodesAnswer is the answer of /api/v1/nodes.
type NodesAnswer struct {
	Head
	Nodes []NodeView `json:"nodes"`
	// Next is the name after which there are others; empty if there are none.
	Next string `json:"next,omitempty"`
}

func (s *System) nodesPage(q *listQuery) NodesAnswer {
	begin, found := slices.BinarySearchFunc(s.Nodes, q.after, func(v NodeView, after string) int { return strings.Compare(v.Node, after) })
	if found {
		begin++
	}
	end := min(len(s.Nodes), begin+q.limit)
	a := NodesAnswer{Head: s.Head(), Nodes: s.Nodes[begin:end]}
	if end < len(s.Nodes) {
		a.Next = s.Nodes[end-1].Node
	}
	return a
}

// ShardsAnswer is the answer of /api/v1/shards.
type ShardsAnswer struct {
	Head
	// QueuesAsOf is when the broker was asked for the depths of the queues; nil if they
	// are not known.
	QueuesAsOf *time.Time  `json:"queues_as_of"`
	Shards     []ShardView `json:"shards"`
	// Next is the shard after which there are others; empty if there are none.
	Next string `json:"next,omitempty"`
}

func (s *System) shardsPage(q *listQuery) (ShardsAnswer, error) {
	after := -1
	if q.after != "" {
		var err error
		if after, err = shardNumber("after", q.after); err != nil {
			return ShardsAnswer{}, err
		}
	}
	begin, _ := slices.BinarySearchFunc(s.Shards, after+1, func(v ShardView, from int) int { return v.Shard - from })
	end := min(len(s.Shards), begin+q.limit)
	a := ShardsAnswer{Head: s.Head(), Shards: s.Shards[begin:end]}
	if end < len(s.Shards) {
		a.Next = strconv.Itoa(s.Shards[end-1].Shard)
	}
	if s.Queues {
		a.QueuesAsOf = &s.QueuesAsOf
	}
	return a, nil
}

const (
	// maxAsking is how many requests may ask the nodes for their workers at a time. Each
	// counts for askingTime at least, and waits askingWait for its turn.
	maxAsking  = 4
	askingTime = 100 * time.Millisecond
	askingWait = time.Second
)

// serve asks all nodes, at most 40 times a second.
func (l *Workers) serve(q *listQuery) (any, error) {
	select {
	case l.asking <- struct{}{}:
	case <-time.After(askingWait):
		return nil, errBusy
	case <-q.ctx.Done():
		return nil, errBusy
	}
	defer time.AfterFunc(askingTime, func() { <-l.asking })
	return l.Page(WorkerQuery{Shard: q.shard, History: q.history, After: q.after, Limit: q.limit})
}

// Overview is the answer of /api/v1/overview.
type Overview struct {
	Head
	// Nodes and Shards count those in each state.
	Nodes  map[string]int `json:"nodes"`
	Shards map[string]int `json:"shards"`
	// Intake counts the servers whose intake is open, paused or unknown.
	Intake map[string]int `json:"intake"`
	// Queued is how many envelopes wait at the broker; nil if that is not known.
	Queued *int `json:"queued"`
	// InHand, Held, Workers and Totals are sums over the nodes that have answered.
	InHand  int `json:"in_hand"`
	Held    int `json:"held"`
	Workers int `json:"workers"`
	Totals
	// Accepted is how many messages the servers have accepted since they started; nil if
	// none has answered.
	Accepted *int64 `json:"accepted"`
	// OldestAge is that of the oldest message that is in no file, in seconds: 0 if there is
	// none, nil if no shard is known to have one or none.
	OldestAge *float64   `json:"oldest_unwritten_age_s"`
	Disks     []NodeDisk `json:"disks"`
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
		Head: s.Head(), Nodes: make(map[string]int), Shards: make(map[string]int), Intake: make(map[string]int),
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
		if v.Intake != "" {
			o.Intake[v.Intake]++
		} else if v.State == NodeUnknown && slices.Contains(v.Info.Roles, ServerRole) {
			o.Intake[NodeUnknown]++
		}
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
		if sh.OldestAge != nil && (o.OldestAge == nil || *sh.OldestAge > *o.OldestAge) {
			o.OldestAge = sh.OldestAge
		}
	}
	if v.Accepted != nil {
		if o.Accepted == nil {
			o.Accepted = new(int64)
		}
		*o.Accepted += *v.Accepted
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
