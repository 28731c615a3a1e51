package jobs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"time"

	"async-data-processor/broker"
	"async-data-processor/jobs/store"
)

// askTopic is where nodes ask engines.
const askTopic = "jobs.ask"

const (
	// maxReply bounds an answer, in bytes. Lists are shortened to fit.
	maxReply = broker.MaxBusBody - 8<<10
	// maxNodeName bounds the name of a node in an answer, in bytes.
	maxNodeName = 256
)

// question is what a node asks engines on the bus.
type question struct {
	V    int    `json:"v"`
	Node string `json:"node"`
	// To is the engine that is asked; empty for all. A change is asked of one.
	To string          `json:"to,omitempty"`
	Do string          `json:"do"`
	Of json.RawMessage `json:"of,omitempty"` // depends on Do
}

// What a question asks for: what a method of Service does, or whether there is an engine.
const (
	doEngine  = "engine"
	doJobs    = "jobs"
	doRuns    = "runs"
	doRun     = "run"
	doStart   = "start"
	doCancel  = "cancel"
	doRetry   = "retry"
	doLog     = "log"
	doRunners = "runners" // of this engine
)

// reply is the answer of an engine.
type reply struct {
	V    int    `json:"v"`
	Node string `json:"node"`
	// Kind is that of a refusal, and Why its text; both are empty if Body is there.
	Kind string          `json:"kind,omitempty"`
	Why  string          `json:"why,omitempty"`
	Body json.RawMessage `json:"body,omitempty"` // depends on what was asked
}

// answer answers another node; nil if the question is not for this engine.
func (l *Local) answer(ctx context.Context, body []byte) []byte {
	var q question
	if err := broker.ReadBody(body, &q); err != nil {
		l.cfg.Skips.Add(err)
		return nil
	}
	node := l.cfg.Node()
	if q.Node == node || q.To != "" && q.To != node {
		return nil
	}
	r := reply{V: broker.BusVersion, Node: node}
	result, err := l.do(ctx, &q)
	if err == nil {
		r.Body, err = fitting(result)
	}
	if err != nil {
		r.Kind, r.Why = kindOf(err)
	}
	return broker.Body(r)
}

func kindOf(err error) (kind, why string) {
	for _, r := range refusals {
		if errors.Is(err, r.Is) {
			return r.Kind, broker.Clip(err.Error(), maxShownWhy)
		}
	}
	return "state-database-away", ErrAway.Error()
}

// do does what a question asks for.
func (l *Local) do(ctx context.Context, q *question) (any, error) {
	switch q.Do {
	case doEngine:
		return struct{}{}, nil
	case doRunners:
		return &runnersTold{l.cfg.Engine.Runners()}, nil
	case doJobs:
		return asked(q, func(of JobsQuery) (JobsPage, error) { return l.Jobs(ctx, of) })
	case doRuns:
		return asked(q, func(of store.Filter) (RunsPage, error) { return l.Runs(ctx, of) })
	case doRun:
		return asked(q, func(of int64) (RunDetail, error) { return l.Run(ctx, of) })
	case doLog:
		return asked(q, func(of LogQuery) (store.LogPart, error) { return l.Log(ctx, of) })
	case doStart, doCancel, doRetry:
		if q.To == "" { // several engines would do it
			return nil, invalid("a change is asked of one engine")
		}
	}
	switch q.Do {
	case doStart:
		return asked(q, func(of Order) (RunView, error) { return l.Start(ctx, of) })
	case doCancel:
		return asked(q, func(of Change) (RunView, error) { return l.Cancel(ctx, of) })
	case doRetry:
		return asked(q, func(of Change) (RunView, error) { return l.Retry(ctx, of) })
	}
	return nil, invalid("this engine does not know %q", broker.Clip(q.Do, maxShownName))
}

// asked reads what a question is of, and returns a pointer to what f returns of it.
func asked[Q, A any](q *question, f func(Q) (A, error)) (any, error) {
	var of Q
	if err := json.Unmarshal(q.Of, &of); err != nil {
		return nil, invalid("the question cannot be read")
	}
	a, err := f(of)
	return &a, err
}

// shortened is what can be made shorter to fit into an answer.
type shortened interface {
	// shorten leaves a quarter out, or returns false if there is nothing to leave out.
	shorten() bool
}

// fitting returns the text of a result, which it shortens to fit into an answer.
func fitting(result any) ([]byte, error) {
	for {
		text := broker.Body(result)
		if len(text) <= maxReply {
			return text, nil
		}
		if s, ok := result.(shortened); !ok || !s.shorten() {
			return nil, away{errors.New("the answer is too long for the bus")}
		}
	}
}

func (p *RunsPage) shorten() bool {
	if len(p.Runs) < 2 {
		return false
	}
	p.Runs = p.Runs[:len(p.Runs)*3/4]
	p.Next = strconv.FormatInt(p.Runs[len(p.Runs)-1].ID, 10)
	return true
}

func (p *JobsPage) shorten() bool {
	if len(p.Jobs) < 2 {
		return false
	}
	p.Jobs = p.Jobs[:len(p.Jobs)*3/4]
	p.Next = p.Jobs[len(p.Jobs)-1].Name
	return true
}

func (d *RunDetail) shorten() bool {
	if len(d.History) == 0 {
		return false
	}
	d.History = d.History[(len(d.History)+3)/4:]
	return true
}

// runnersTold are the runners of one engine.
type runnersTold struct {
	Runners []RunnerView `json:"runners"`
}

func (t *runnersTold) shorten() bool {
	if len(t.Runners) == 0 {
		return false
	}
	t.Runners = t.Runners[:len(t.Runners)*3/4]
	return true
}

// gatherRunners asks the other engines for their runners, until each of those that are
// known has answered. It returns how many have, and whether that is all.
func gatherRunners(ctx context.Context, bus broker.Bus, node string, known int) (all []RunnerView, answered int, complete bool) {
	if known == 0 {
		return nil, 0, true
	}
	heard := map[string]bool{node: true}
	err := askEngines(ctx, bus, question{Node: node, Do: doRunners}, broker.AskTimeout, func(r *reply) bool {
		var t runnersTold
		if heard[r.Node] || r.Kind != "" || json.Unmarshal(r.Body, &t) != nil || len(heard) > maxEngines {
			return true
		}
		heard[r.Node] = true
		for _, one := range t.Runners {
			one.Engine = r.Node
			all = append(all, one)
		}
		return len(heard) <= known
	})
	return all, len(heard) - 1, err == nil && len(heard) > known
}

// maxEngines bounds the engines whose answers are gathered.
const maxEngines = 64

func sortRunners(all []RunnerView) []RunnerView {
	slices.SortFunc(all, func(a, b RunnerView) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Engine, b.Engine)) })
	for i := range all { // lists in JSON are never null
		all[i].Labels, all[i].Runs = append([]string{}, all[i].Labels...), append([]int64{}, all[i].Runs...)
	}
	return append([]RunnerView{}, all...)
}

// askEngines asks, and calls take with each answer that can be read, until that returns
// false or the time is over.
func askEngines(ctx context.Context, bus broker.Bus, q question, within time.Duration, take func(*reply) (more bool)) error {
	q.V = broker.BusVersion
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return bus.Ask(ctx, askTopic, broker.Body(q), func(answer []byte) bool {
		var r reply
		if broker.ReadBody(answer, &r) != nil || r.Node == "" || len(r.Node) > maxNodeName {
			return true
		}
		return take(&r)
	})
}
