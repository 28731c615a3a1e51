package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
	"async-data-processor/message"
)

const (
	// clientTimeout bounds what a client waits for the state database.
	clientTimeout = 5 * time.Second
	// maxQueuedRuns is how many runs of a job may wait before clients can create no more.
	maxQueuedRuns = 10_000
	// whyAge is how old the numbers may be that tell what a run waits for.
	whyAge = time.Second
)

// RunStore is the view of a store.Store of a Local.
type RunStore interface {
	Create(ctx context.Context, n store.New) (r store.Run, created bool, err error)
	Cancel(ctx context.Context, id int64, by, why string) (store.Run, error)
	Retry(ctx context.Context, id int64, by, why string) (store.Run, error)
	Run(ctx context.Context, id int64) (store.Run, error)
	Runs(ctx context.Context, f store.Filter) ([]store.Run, error)
	Attempts(ctx context.Context, id int64) ([]store.Attempt, error)
	Log(ctx context.Context, id int64, attempt int, offset int64, limit int) (store.LogPart, error)
	Counts(ctx context.Context) (store.Counts, error)
	Audit(ctx context.Context, a store.Audited) error
}

// Director is the view of an Engine of a Local. Its methods do not block.
type Director interface {
	Definitions() []frame.Definition
	Definition(name string) (frame.Definition, bool)
	// Runners are those that are connected here.
	Runners() []RunnerView
	// Changed has the engine act on runs that were created or changed.
	Changed(runs ...store.Run)
}

// LocalConfig sets up a Local.
type LocalConfig struct {
	Store  RunStore
	Engine Director
	// Bus reaches the other nodes.
	Bus broker.Bus
	// Skips counts what on the bus cannot be used; nil counts nothing.
	Skips *broker.Skips
	// Node is the name of this one, and Engines those of the other engines that are there.
	Node    func() string
	Engines func() []string
	// ReadOnly refuses every change.
	ReadOnly bool
	// Events is told of a change, before it is acted on.
	Events event.Sink
}

// Local is the Service of an engine's process. It answers the other nodes, too.
type Local struct {
	cfg LocalConfig

	mu      sync.Mutex // guards what follows
	counted time.Time  // when the counts were asked for
	counts  store.Counts
}

// NewLocal returns a Local, which answers other nodes while Answer runs.
func NewLocal(cfg LocalConfig) *Local { return &Local{cfg: cfg} }

// Answer answers other nodes until ctx ends.
func (l *Local) Answer(ctx context.Context) {
	defer l.cfg.Bus.Answer(askTopic, func(body []byte) []byte { return l.answer(ctx, body) })()
	<-ctx.Done()
}

func (l *Local) head(complete bool) Head {
	return Head{time.Now().UTC().Truncate(time.Millisecond), l.cfg.Node(), complete}
}

// told returns the error of the store as a client hears it.
func told(err error) error {
	switch {
	case errors.Is(err, store.ErrInvalid):
		return refusal{ErrInvalid, err.Error()}
	case store.Away(err), errors.Is(err, store.ErrNewer):
		return away{err}
	}
	return err
}

// away is an error of the state database. Its cause is for the log: it may hold what is
// no client's business.
type away struct{ cause error }

func (a away) Error() string        { return ErrAway.Error() }
func (a away) Is(target error) bool { return target == ErrAway }
func (a away) Unwrap() error        { return a.cause }

// Jobs implements Service.
func (l *Local) Jobs(ctx context.Context, q JobsQuery) (JobsPage, error) {
	if q.Limit < 1 || q.Limit > store.MaxList {
		return JobsPage{}, invalid("limit is 1 to %d", store.MaxList)
	}
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	counts, err := l.Counts(ctx, 0)
	if err != nil {
		return JobsPage{}, err
	}
	page := JobsPage{Head: l.head(true), Jobs: []JobView{}}
	defined := slices.SortedFunc(slices.Values(l.cfg.Engine.Definitions()), func(a, b frame.Definition) int { return strings.Compare(a.Name, b.Name) })
	for i := range defined {
		d := &defined[i]
		if d.Name <= q.After {
			continue
		}
		if len(page.Jobs) == q.Limit {
			page.Next = page.Jobs[q.Limit-1].Name
			break
		}
		job := jobOf(d, counts[d.Name])
		if len(job.Counts) > 0 {
			last, err := l.cfg.Store.Runs(ctx, store.Filter{Job: d.Name, Limit: 1})
			if err != nil {
				return JobsPage{}, told(err)
			}
			for _, r := range last {
				v := l.listed(ctx, r)
				job.Last = &v
			}
		}
		page.Jobs = append(page.Jobs, job)
	}
	return page, nil
}

// Runs implements Service.
func (l *Local) Runs(ctx context.Context, f store.Filter) (RunsPage, error) {
	if f.Limit < 1 || f.Limit > store.MaxList || f.Before < 0 {
		return RunsPage{}, invalid("limit is 1 to %d, and before the id of a run", store.MaxList)
	}
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	runs, err := l.cfg.Store.Runs(ctx, f)
	if err != nil {
		return RunsPage{}, told(err)
	}
	page := RunsPage{Head: l.head(true), Runs: make([]RunView, len(runs))}
	for i, r := range runs {
		page.Runs[i] = l.listed(ctx, r)
	}
	if len(runs) == f.Limit { // there may be others
		page.Next = strconv.FormatInt(runs[len(runs)-1].ID, 10)
	}
	return page, nil
}

// Run implements Service.
func (l *Local) Run(ctx context.Context, id int64) (RunDetail, error) {
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	r, err := l.cfg.Store.Run(ctx, id)
	if err != nil {
		return RunDetail{}, told(err)
	}
	attempts, err := l.cfg.Store.Attempts(ctx, id)
	if err != nil {
		return RunDetail{}, told(err)
	}
	return RunDetail{l.view(ctx, &r), historyOf(attempts)}, nil
}

// listed is what clients see of a run in a list.
func (l *Local) listed(ctx context.Context, r store.Run) RunView {
	v := l.view(ctx, &r)
	if len(v.Args) > maxListedArgs {
		v.Args = nil
	}
	return v
}

func (l *Local) view(ctx context.Context, r *store.Run) RunView {
	v := viewOf(*r)
	v.Why = l.why(ctx, r)
	return v
}

// Start implements Service.
func (l *Local) Start(ctx context.Context, o Order) (RunView, error) {
	if l.cfg.ReadOnly {
		return RunView{}, ErrReadOnly
	}
	if err := o.check(); err != nil {
		return RunView{}, err
	}
	d, defined := l.cfg.Engine.Definition(o.Job)
	if !defined {
		return RunView{}, noJob(o.Job, l.cfg.Engine.Definitions())
	}
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	counts, err := l.Counts(ctx, whyAge)
	if err != nil {
		return RunView{}, err
	}
	if n := counts[d.Name][store.Queued]; n >= maxQueuedRuns {
		return RunView{}, refusal{ErrBusy, fmt.Sprintf("%d runs of %s wait already, %d may", n, d.Name, maxQueuedRuns)}
	}
	n := store.New{Job: d.Name, Key: o.Key, By: o.By, Args: o.Args, Attempts: d.Attempts, Backoff: time.Duration(d.Backoff)}
	if n.Key != "" {
		n.Key = clientKey + n.Key
	}
	r, err := l.audit(ctx, store.Audited{Who: o.By, From: o.From, What: "run job:" + d.Name}, func() (store.Run, error) {
		r, _, err := l.cfg.Store.Create(ctx, n)
		return r, err
	})
	if err != nil {
		return RunView{}, err
	}
	return l.view(ctx, &r), nil
}

// Cancel implements Service.
func (l *Local) Cancel(ctx context.Context, c Change) (RunView, error) {
	return l.change(ctx, "cancel", c, l.cfg.Store.Cancel)
}

// Retry implements Service.
func (l *Local) Retry(ctx context.Context, c Change) (RunView, error) {
	return l.change(ctx, "retry", c, l.cfg.Store.Retry)
}

// change audits a change of a run that is there, and then makes it.
func (l *Local) change(ctx context.Context, verb string, c Change,
	do func(ctx context.Context, id int64, by, why string) (store.Run, error),
) (RunView, error) {
	if l.cfg.ReadOnly {
		return RunView{}, ErrReadOnly
	}
	if err := c.check(); err != nil {
		return RunView{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	if _, err := l.cfg.Store.Run(ctx, c.Run); err != nil {
		return RunView{}, told(err)
	}
	a := store.Audited{Who: c.By, From: c.From, What: verb + " run:" + strconv.FormatInt(c.Run, 10), Why: c.Reason}
	r, err := l.audit(ctx, a, func() (store.Run, error) { return do(ctx, c.Run, c.By, c.Reason) })
	if err != nil {
		return RunView{}, err
	}
	return l.view(ctx, &r), nil
}

// audit records a change in the database and in the log; without that nothing is changed.
// Then it makes the change, and records what came of it.
func (l *Local) audit(ctx context.Context, a store.Audited, do func() (store.Run, error)) (store.Run, error) {
	a.ID = message.NewID()
	verb, target, _ := strings.Cut(a.What, " ")
	l.cfg.Events.Send(event.CommandTaken{ID: a.ID, Verb: verb, Target: target, By: a.Who, From: a.From, Reason: a.Why})
	if err := l.cfg.Store.Audit(ctx, a); err != nil {
		return store.Run{}, told(err)
	}
	r, err := do()
	if a.Outcome = fmt.Sprintf("run %d is %s", r.ID, r.State); err != nil {
		a.Outcome = err.Error()
	}
	_ = l.cfg.Store.Audit(ctx, a) // without it the outcome is not known, and the run tells it
	if err != nil {
		return store.Run{}, told(err)
	}
	l.cfg.Engine.Changed(r)
	return r, nil
}

// Log implements Service.
func (l *Local) Log(ctx context.Context, q LogQuery) (store.LogPart, error) {
	if err := q.check(); err != nil {
		return store.LogPart{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	part, err := l.cfg.Store.Log(ctx, q.Run, q.Attempt, q.Offset, q.Limit)
	return part, told(err)
}

// Runners implements Service.
func (l *Local) Runners(ctx context.Context) (RunnersPage, error) {
	all := l.cfg.Engine.Runners()
	others, _, complete := gatherRunners(ctx, l.cfg.Bus, l.cfg.Node(), len(l.cfg.Engines()))
	all = append(slices.Clone(all), others...)
	return RunnersPage{l.head(complete), sortRunners(all)}, nil
}

// Counts returns how many runs there are. They are at most that old.
func (l *Local) Counts(ctx context.Context, age time.Duration) (store.Counts, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts != nil && time.Since(l.counted) < age {
		return l.counts, nil
	}
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	began := time.Now()
	counts, err := l.cfg.Store.Counts(ctx)
	if err != nil {
		l.counts = nil
		return nil, told(err)
	}
	if counts == nil {
		counts = store.Counts{}
	}
	l.counts, l.counted = counts, began
	return counts, nil
}
