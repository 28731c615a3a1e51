package jobs

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"time"

	"async-data-processor/broker"
	"async-data-processor/jobs/store"
)

const (
	// findTimeout is how long an engine is waited for that no beat has told of.
	findTimeout = 250 * time.Millisecond
	// missTime is how long it is taken for granted then that there is none.
	missTime = 2 * time.Second
	// answerTimeout is how long an engine that is there has for its answer.
	answerTimeout = clientTimeout + broker.AskTimeout
	// maxShownWhy bounds the text of a refusal, in bytes.
	maxShownWhy = 4096
)

// RemoteConfig sets up a Remote.
type RemoteConfig struct {
	Bus broker.Bus
	// Node is the name of this node, and Engines those of the engines that are there.
	Node    func() string
	Engines func() []string
	// ReadOnly refuses every change.
	ReadOnly bool
}

// Remote is the Service of a process that is no engine: it asks one over the bus, so that
// several do not do the same. For their runners it asks all.
type Remote struct {
	cfg    RemoteConfig
	missed atomic.Int64 // when no engine has answered last, in ns since 1970
}

// NewRemote returns a Remote.
func NewRemote(cfg RemoteConfig) *Remote { return &Remote{cfg: cfg} }

// Jobs implements Service.
func (r *Remote) Jobs(ctx context.Context, q JobsQuery) (JobsPage, error) {
	return readOf[JobsPage](ctx, r, doJobs, q)
}

// Runs implements Service.
func (r *Remote) Runs(ctx context.Context, f store.Filter) (RunsPage, error) {
	return readOf[RunsPage](ctx, r, doRuns, f)
}

// Run implements Service.
func (r *Remote) Run(ctx context.Context, id int64) (RunDetail, error) {
	return readOf[RunDetail](ctx, r, doRun, id)
}

// Log implements Service.
func (r *Remote) Log(ctx context.Context, q LogQuery) (store.LogPart, error) {
	if err := q.check(); err != nil {
		return store.LogPart{}, err
	}
	return readOf[store.LogPart](ctx, r, doLog, q)
}

// Start implements Service.
func (r *Remote) Start(ctx context.Context, o Order) (RunView, error) {
	if err := o.check(); err != nil {
		return RunView{}, err
	}
	return r.change(ctx, doStart, o)
}

// Cancel implements Service.
func (r *Remote) Cancel(ctx context.Context, c Change) (RunView, error) {
	return r.change(ctx, doCancel, c)
}

// Retry implements Service.
func (r *Remote) Retry(ctx context.Context, c Change) (RunView, error) {
	return r.change(ctx, doRetry, c)
}

// Runners implements Service.
func (r *Remote) Runners(ctx context.Context) (RunnersPage, error) {
	began := time.Now()
	if _, err := r.find(ctx); err != nil {
		return RunnersPage{}, err
	}
	all, answered, complete := gatherRunners(ctx, r.cfg.Bus, r.cfg.Node(), max(1, len(r.cfg.Engines())))
	if answered == 0 {
		return RunnersPage{}, ErrNoEngine
	}
	return RunnersPage{Head{began.UTC().Truncate(time.Millisecond), r.cfg.Node(), complete}, sortRunners(all)}, nil
}

// readOf asks an engine for what it knows.
func readOf[A any](ctx context.Context, r *Remote, do string, of any) (A, error) {
	return askOne[A](ctx, r, do, of, ErrNoEngine)
}

// change asks an engine for a change. It may have made it, though it does not answer.
func (r *Remote) change(ctx context.Context, do string, of any) (RunView, error) {
	if r.cfg.ReadOnly {
		return RunView{}, ErrReadOnly
	}
	return askOne[RunView](ctx, r, do, of, ErrUnknown)
}

// askOne finds an engine, and asks it. silent is the error if that one gives no answer then,
// or none that can be read.
func askOne[A any](ctx context.Context, r *Remote, do string, of any, silent error) (a A, err error) {
	found, err := r.find(ctx)
	if err != nil {
		return a, err
	}
	got, err := r.ask(ctx, question{Do: do, To: found}, answerTimeout, of)
	if err == ErrNoEngine || err == nil && json.Unmarshal(got.Body, &a) != nil {
		err = silent
	}
	return a, err
}

// find returns the engine that answers first.
func (r *Remote) find(ctx context.Context) (node string, err error) {
	found, err := r.ask(ctx, question{Do: doEngine}, broker.AskTimeout, nil)
	if err != nil {
		return "", err
	}
	return found.Node, nil
}

// ask returns the first answer. ErrNoEngine itself says that there was none.
func (r *Remote) ask(ctx context.Context, q question, within time.Duration, of any) (*reply, error) {
	if len(r.cfg.Engines()) == 0 && q.To == "" {
		if time.Since(time.Unix(0, r.missed.Load())) < missTime {
			return nil, ErrNoEngine
		}
		within = findTimeout
	}
	q.Of, q.Node = broker.Body(of), r.cfg.Node()
	var got *reply
	// An error says that the bus is away: then no engine has answered.
	_ = askEngines(ctx, r.cfg.Bus, q, within, func(a *reply) bool {
		if q.To != "" && a.Node != q.To || a.Kind == "" && len(a.Body) == 0 {
			return true
		}
		got = a
		return false
	})
	switch {
	case got == nil && ctx.Err() != nil:
		return nil, ctx.Err()
	case got == nil:
		if q.To == "" {
			r.missed.Store(time.Now().UnixNano())
		}
		return nil, ErrNoEngine
	case got.Kind != "":
		return nil, refused(got)
	}
	return got, nil
}

// refused is the error of a refusal that an engine has told.
func refused(got *reply) error {
	for _, r := range refusals {
		if r.Kind == got.Kind {
			return refusal{r.Is, broker.Clip(got.Why, maxShownWhy)}
		}
	}
	return ErrUnknown
}
