package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"async-data-processor/broker"
)

// errWorkers: what a node answers are not the workers that it was asked for.
var errWorkers = errors.New("the workers in an answer are not those of the question")

// workersPage is a page of the workers of all nodes, while they answer.
type workersPage struct {
	query workersQuestion
	after place
	nodes *System
	rows  []workerRow
	cut   *place // what is behind it is not known of all nodes; nil for nothing
}

type workerRow struct {
	WorkerView
	place place
}

// Page asks all nodes for a page of their workers. It takes up to a second while one
// does not answer. An error says that the query is wrong.
func (l *Workers) Page(q WorkerQuery) (WorkersAnswer, error) {
	n := l.node
	p := workersPage{query: workersQuestion{broker.BusVersion, q}, after: place{shard: -1}}
	if q.After != "" {
		var err error
		if p.after, err = placeOf(q.After); err != nil {
			return WorkersAnswer{}, fmt.Errorf("after: %w", err)
		}
	}
	n.mu.Lock()
	p.nodes = &System{Node: n.id, AsOf: stamp(time.Now()), Nodes: n.members.views(), Away: n.members.away(time.Now())}
	n.mu.Unlock()
	p.nodes.Nodes = append(p.nodes.Nodes, NodeView{Node: n.id, State: NodeUnknown})
	question := broker.Body(p.query)
	_ = p.take(l.answer(question)) // it is this node's own
	if p.nodes.waits() {
		askAll(n.cfg.Bus, workersTopic, question, func(answer []byte) bool {
			n.cfg.Skips.Add(p.take(answer))
			return p.nodes.waits()
		})
	}
	return p.answer(), nil
}

// maxWorkers is how many workers All returns.
const maxWorkers = 4096

// All asks for the workers that live, page by page.
func (l *Workers) All() WorkersAnswer {
	all, _ := l.Page(WorkerQuery{Limit: MaxPage}) // the query is right
	for all.Next != "" && all.Complete && len(all.Workers) < maxWorkers {
		page, _ := l.Page(WorkerQuery{Limit: min(MaxPage, maxWorkers-len(all.Workers)), After: all.Next})
		all.Workers, all.Next, all.Complete = append(all.Workers, page.Workers...), page.Next, page.Complete
	}
	return all
}

// take takes what a node answers. Nothing of it is trusted.
func (p *workersPage) take(answer []byte) error {
	var a workersPart
	if err := broker.ReadBody(answer, &a); err != nil {
		return err
	}
	i := slices.IndexFunc(p.nodes.Nodes, func(v NodeView) bool { return v.Node == a.Node && v.State == NodeUnknown })
	if i < 0 {
		return nil // it has answered, or is not known
	}
	if len(a.Workers) > p.query.Limit || a.More && len(a.Workers) == 0 {
		return errWorkers
	}
	last, rows := p.after, make([]workerRow, 0, len(a.Workers))
	for _, w := range a.Workers {
		key := a.Node + "/" + w.Worker
		at, err := placeOf(key)
		if err != nil || at.shard != w.Shard || at.compare(last) <= 0 || p.query.Shard != nil && *p.query.Shard != w.Shard {
			return errWorkers
		}
		last = at
		rows = append(rows, workerRow{WorkerView{key, a.Node, a.AsOf, w}, at})
	}
	if a.More && (p.cut == nil || last.compare(*p.cut) < 0) {
		p.cut = &last
	}
	p.rows = append(p.rows, rows...)
	p.nodes.Nodes[i].State = NodeHere
	return nil
}

func (p *workersPage) answer() WorkersAnswer {
	rows := p.rows
	slices.SortFunc(rows, func(a, b workerRow) int { return a.place.compare(b.place) })
	more := p.cut != nil
	if more {
		rows = slices.DeleteFunc(rows, func(r workerRow) bool { return r.place.compare(*p.cut) > 0 })
	}
	if len(rows) > p.query.Limit {
		rows, more = rows[:p.query.Limit], true
	}
	a := WorkersAnswer{Head: p.nodes.Head(), Workers: make([]WorkerView, len(rows))}
	for i := range rows {
		a.Workers[i] = rows[i].WorkerView
	}
	if more && len(rows) > 0 {
		a.Next = rows[len(rows)-1].Key
	}
	return a
}

// askAll asks all nodes, as long as take returns true and the time is not up.
func askAll(bus broker.Bus, topic string, question []byte, take func(answer []byte) (more bool)) {
	ctx, cancel := context.WithTimeout(context.Background(), broker.AskTimeout)
	defer cancel()
	room := maxGathered
	// Without the bus, the others are unknown.
	_ = bus.Ask(ctx, topic, question, func(answer []byte) bool {
		if room -= len(answer); room < 0 {
			return false
		}
		return take(answer)
	})
}
