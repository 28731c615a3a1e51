package pipeline

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"async-data-processor/dashboard"
	"async-data-processor/jobs"
	"async-data-processor/jobs/store"
)

// maxRuns is how many of the newest runs a stream tells of.
const maxRuns = 100

// What streams tell of jobs comes from the engine, which may be another process, and from
// its database. All parts of the feed wait for a look, so none waits long for that.
const (
	jobsAge   = time.Second            // how old an answer may be
	jobsAway  = 5 * time.Second        // when to ask again after none
	jobsWait  = 200 * time.Millisecond // how long a look waits for an answer
	jobsLimit = 2 * time.Second        // how long an answer may take
)

// jobsParts are what the feed tells of jobs. service returns who answers now.
func jobsParts(service func() jobs.Service) []dashboard.Part {
	part := func(name string, ask func(context.Context) (dashboard.State, error)) dashboard.Part {
		return dashboard.Part{Name: name, Form: dashboard.Rows, Look: (&jobsPart{ask: ask}).look}
	}
	return []dashboard.Part{
		part("jobs", func(ctx context.Context) (dashboard.State, error) {
			a, err := service().Jobs(ctx, jobs.JobsQuery{Limit: store.MaxList})
			return toldJobs(a.Head, a.Jobs, a.Next, func(j *jobs.JobView) any { return j.Name }), err
		}),
		part("runs", func(ctx context.Context) (dashboard.State, error) {
			a, err := service().Runs(ctx, store.Filter{Limit: maxRuns})
			return toldJobs(a.Head, a.Runs, a.Next, func(r *jobs.RunView) any { return r.ID }), err
		}),
		part("runners", func(ctx context.Context) (dashboard.State, error) {
			a, err := service().Runners(ctx)
			return toldJobs(a.Head, a.Runners, "", func(r *jobs.RunnerView) any { return r.ID }), err
		}),
	}
}

// toldJobs is what jobs tells, for a stream.
func toldJobs[R any](h jobs.Head, rows []R, next string, key func(*R) any) dashboard.State {
	s := dashboard.State{AsOf: h.AsOf, Node: h.Node, Complete: h.Complete, More: next != "", Rows: make([]dashboard.Row, len(rows))}
	for i := range rows {
		name, _ := json.Marshal(key(&rows[i])) // a text or a number
		text, _ := json.Marshal(&rows[i])      // as HTTP tells it
		s.Rows[i] = dashboard.Row{Key: string(name), News: text, Text: func() []byte { return text }}
	}
	return s
}

// jobsPart is a part of the feed that tells of jobs.
type jobsPart struct {
	ask func(context.Context) (dashboard.State, error)

	mu     sync.Mutex      // guards what follows
	latest dashboard.State // not Complete, if the last question has no answer
	asking bool
	next   time.Time // when to ask again
}

// look returns the latest answer. It asks for a new one, if that is due, and waits for it for
// at most jobsWait.
func (p *jobsPart) look() dashboard.State {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.asking && !time.Now().Before(p.next) {
		p.asking = true
		answered := make(chan struct{})
		go p.renew(answered)
		p.mu.Unlock()
		select {
		case <-answered:
		case <-time.After(jobsWait):
		}
		p.mu.Lock()
	}
	if p.latest.AsOf.IsZero() {
		p.latest.AsOf = time.Now()
	}
	return p.latest
}

// renew asks, and keeps the answer. Without one it keeps the rows of before.
func (p *jobsPart) renew(answered chan<- struct{}) {
	defer close(answered)
	ctx, cancel := context.WithTimeout(context.Background(), jobsLimit)
	defer cancel()
	s, err := p.ask(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asking, p.next = false, time.Now().Add(jobsAge)
	if err != nil {
		p.latest.Complete, p.next = false, time.Now().Add(jobsAway)
		return
	}
	p.latest = s
}
