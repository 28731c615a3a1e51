package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"async-data-processor/backoff"
	"async-data-processor/event"
	"async-data-processor/jobs"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
	"async-data-processor/server"
	"async-data-processor/telemetry/metrics"
)

// DefaultStateURL is the database of a process with jobs that names no other. It is in the
// folder of the process, as the store of EmbeddedURL is.
const DefaultStateURL = "sqlite:data/state.db"

// jobsRole is the role of a node that has jobs.
const jobsRole = "jobs"

// RedactStateURL returns a StateURL without its password.
func RedactStateURL(raw string) string { return store.Redact(raw) }

// stateURL is the URL of the state database; empty if the process has none.
func (c Config) stateURL(writes bool) string {
	switch {
	case c.Jobs != "" && c.StateURL == "":
		return DefaultStateURL
	case c.Jobs != "" || writes:
		return c.StateURL
	}
	return ""
}

// checkJobs is Validate for jobs.
func (c Config) checkJobs() error {
	if c.StateURL == "" {
		return nil
	}
	if err := store.Check(c.StateURL); err != nil {
		return fmt.Errorf("--state-url: %w", err)
	}
	return nil
}

// CheckJobs fails if the file of jobs cannot be read, or holds a job that cannot work here:
// one that begins on a file needs a database that the process can reach that writes the
// files. It reads the file.
func (c Config) CheckJobs(writes bool) error {
	if c.Jobs == "" {
		return nil
	}
	defined, err := jobs.LoadDefinitions(c.Jobs)
	if err != nil {
		return fmt.Errorf("--jobs: %w", err)
	}
	if writes || c.StateURL != "" {
		return nil
	}
	for _, d := range defined.All() {
		if d.On == frame.File {
			return fmt.Errorf("--jobs: the job %s begins on a file, which a message-consumer writes: name a database for both of them with --state-url", d.Name)
		}
	}
	return nil
}

// What clients see of jobs.
type (
	JobRun       = jobs.RunView
	JobRunDetail = jobs.RunDetail
	JobRunner    = jobs.RunnerView
)

// state is the database of jobs. It may be opened later than the process begins: the work
// with entries does not wait for it.
type state struct {
	url    string
	opened chan struct{} // closed when store is there
	store  *store.Store  // set before opened is closed, read-only after
	err    atomic.Pointer[error]

	mu     sync.Mutex // guards what follows
	ping   error      // what the database has answered
	pinged time.Time
}

// firstOpen is how long a start waits for the database.
const firstOpen = 2 * time.Second

// openState gives the process its database, if it has one. What cannot get better by
// itself fails at once. A database that does not answer is tried again.
func openState(ctx context.Context, p *process, writes bool) error {
	url := p.cfg.stateURL(writes)
	if url == "" {
		return nil
	}
	s := &state{url: url, opened: make(chan struct{})}
	p.database = s
	p.closers = append(p.closers, s.close)
	first, cancel := context.WithTimeout(ctx, firstOpen)
	defer cancel()
	err := s.open(first)
	if err == nil {
		return nil
	}
	if strings.HasPrefix(url, "sqlite:") || !store.Away(err) {
		return fmt.Errorf("--state-url: %w", err)
	}
	p.started = append(p.started, event.StateDatabase{Err: err})
	p.meanwhile = append(p.meanwhile, func(ctx context.Context) {
		pause := backoff.Backoff{Min: 500 * time.Millisecond, Max: 5 * time.Second, Jitter: 0.5}
		for backoff.Sleep(ctx, pause.Next()) {
			if s.open(ctx) == nil {
				p.events.Send(event.StateDatabase{})
				return
			}
		}
	})
	return nil
}

// open opens the database, and notes why it cannot.
func (s *state) open(ctx context.Context) error {
	opened, err := store.Open(ctx, s.url)
	if err != nil {
		s.err.Store(&err)
		return err
	}
	s.store = opened
	close(s.opened)
	return nil
}

// wait returns the store once it is open; nil if ctx ends before.
func (s *state) wait(ctx context.Context) *store.Store {
	select {
	case <-s.opened:
		return s.store
	case <-ctx.Done():
		return nil
	}
}

// now returns the store, or why it is not open.
func (s *state) now() (*store.Store, error) {
	select {
	case <-s.opened:
		return s.store, nil
	default:
	}
	if err := s.err.Load(); err != nil {
		return nil, *err
	}
	return nil, jobs.ErrAway
}

// answers returns why the database does not answer; nil if it does, or did a moment ago.
func (s *state) answers() error {
	st, err := s.now()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.pinged) >= scrapeAge {
		ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
		defer cancel()
		_, s.ping = st.Clock(ctx)
		s.pinged = time.Now()
	}
	return s.ping
}

// Cursor implements files.Store.
func (s *state) Cursor(ctx context.Context, shard int) (cursor string, err error) {
	st, err := s.now()
	if err != nil {
		return "", err
	}
	return st.Cursor(ctx, shard)
}

// Record implements files.Store.
func (s *state) Record(ctx context.Context, parts []store.Recorded) error {
	st, err := s.now()
	if err != nil {
		return err
	}
	return st.Record(ctx, parts)
}

func (s *state) close() error {
	select {
	case <-s.opened:
		return s.store.Close()
	default:
		return nil
	}
}

// runs is what the process has of jobs: an engine, or what asks one.
type runs struct {
	remote *jobs.Remote
	engine atomic.Pointer[engine] // nil if the process has no jobs, or its database is not open
	away   func() error           // why there is no engine yet; nil in a process without jobs
	// defined is the jobs of the process; nil if it has none.
	defined *jobs.Definitions
}

// engine is what gives runs to runners, and what clients ask.
type engine struct {
	work  *jobs.Engine
	local *jobs.Local
}

// service is what clients ask now.
func (r *runs) service() jobs.Service {
	if e := r.engine.Load(); e != nil {
		return e.local
	}
	if r.away != nil {
		return jobs.Away{}
	}
	return r.remote
}

// takeJobs has the process run jobs, or ask a process that does.
func takeJobs(p *process) error {
	others := func() []string { return p.node.Others(jobsRole) }
	node := func() string { return p.node.ID() }
	p.runs = &runs{remote: jobs.NewRemote(jobs.RemoteConfig{Bus: p.broker, Node: node, Engines: others, ReadOnly: p.cfg.ReadOnly})}
	if p.cfg.Jobs == "" {
		return nil
	}
	defined, err := jobs.LoadDefinitions(p.cfg.Jobs)
	if err != nil {
		return fmt.Errorf("--jobs: %w", err)
	}
	p.runs.defined = defined
	p.runs.away = func() error {
		if e := p.runs.engine.Load(); e != nil {
			return cmp.Or(e.work.Ready(), defined.Broken())
		}
		_, err := p.database.now()
		return err
	}
	p.started = append(p.started, event.JobsLoaded{Path: p.cfg.Jobs, Jobs: len(defined.All())})
	begin := func(s *store.Store) *engine {
		e := &engine{work: jobs.New(jobs.Config{Store: s, Bus: p.broker, Node: node, Definitions: defined, Events: p.events})}
		e.local = jobs.NewLocal(jobs.LocalConfig{
			Store: s, Engine: e.work, Bus: p.broker, Skips: &p.skips, Node: node, Engines: others, ReadOnly: p.cfg.ReadOnly, Events: p.events,
		})
		p.runs.engine.Store(e)
		return e
	}
	var e *engine
	if s, err := p.database.now(); err == nil { // so that the first client is not told that it is away
		e = begin(s)
	}
	p.meanwhile = append(p.meanwhile, func(ctx context.Context) {
		if e == nil {
			s := p.database.wait(ctx)
			if s == nil {
				return
			}
			e = begin(s)
		}
		var answering sync.WaitGroup
		answering.Go(func() { e.local.Answer(ctx) })
		e.work.Run(ctx)
		answering.Wait()
	})
	return nil
}

// kick has the engine look for work now, if there is one.
func (r *runs) kick() {
	if e := r.engine.Load(); e != nil {
		e.work.Kick()
	}
}

// closeLater is the code of RFC 6455, section 7.4, for a runner that may try again.
const closeLater = 1013

// jobRoutes show jobs to viewers, let admins change them, and take runners.
func jobRoutes(p *process) (routes []server.Route) {
	h := jobs.NewHandler(jobs.HandlerConfig{Service: p.runs.service, Client: server.ClientKey, By: server.Client})
	add := func(method, path string, who server.Role) {
		routes = append(routes, server.Route{Method: method, Path: path, For: who, Handler: h})
	}
	for _, path := range []string{jobs.RunsPath, jobs.RunsPath + "/*", jobs.WorkersPath, jobs.JobsListPath, jobs.RunsListPath, jobs.RunnersListPath} {
		add(http.MethodGet, path, server.Viewers)
	}
	add(http.MethodPost, jobs.RunsPath+"/*", server.Admins)
	if p.cfg.Jobs == "" {
		return routes
	}
	return append(routes, server.Route{
		Method: http.MethodGet, Path: frame.Path, For: server.Runners, Protocol: frame.Protocol, Bare: true, Reads: frame.MaxRunnerFrame,
		Handler: http.HandlerFunc(jobs.NoSocket),
		Socket: func(s *server.Socket, r *http.Request) {
			if e := p.runs.engine.Load(); e != nil {
				e.work.Socket(s, r)
				return
			}
			s.Close(closeLater, jobs.ErrAway.Error())
		},
	})
}

// jobChecks tell whether jobs work. The process is ready without them: entries do not wait
// for jobs.
func jobChecks(p *process) (checks []server.Check) {
	if p.runs != nil && p.runs.away != nil {
		checks = append(checks, server.Check{Name: "jobs", Err: p.runs.away(), Aside: true})
	}
	return checks
}

// scrapeAge is how old the numbers of the database may be that a scrape gets, and
// scrapeTimeout how long it waits for others.
const (
	scrapeAge     = 5 * time.Second
	scrapeTimeout = time.Second
)

// jobState adds what a scrape reads of jobs.
func jobState(p *process, s *metrics.State) {
	if p.database != nil {
		s.Database, s.Unrecorded = p.database.answers, p.unrecorded
	}
	if p.cfg.Jobs == "" {
		return
	}
	s.Jobs = func() (now metrics.Jobs) {
		e := p.runs.engine.Load()
		if e == nil {
			return now
		}
		now.Runners = map[string]int{"idle": 0, "working": 0, "draining": 0}
		for _, r := range e.work.Runners() {
			switch {
			case r.Draining:
				now.Runners["draining"]++
			case r.Working:
				now.Runners["working"]++
			default:
				now.Runners["idle"]++
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
		defer cancel()
		counts, err := e.local.Counts(ctx, scrapeAge)
		if err != nil {
			return now
		}
		now.Runs = make(map[string]map[string]int)
		for _, d := range e.work.Definitions() { // others may be gone, and are no labels
			of := make(map[string]int)
			for _, state := range jobs.States {
				of[string(state)] = counts[d.Name][state]
			}
			now.Runs[d.Name] = of
		}
		return now
	}
}

// auditTimeout bounds what a command waits for the audit in the database.
const auditTimeout = time.Second

// auditCommand records a command in the database, where there is one. The log has it
// anyway: a command that stops an accident must not wait for a database that is away.
func auditCommand(p *process, c event.CommandTaken) {
	p.events.Send(c)
	if p.database == nil {
		return
	}
	s, err := p.database.now()
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), auditTimeout)
		defer cancel()
		err = s.Audit(ctx, store.Audited{ID: c.ID, Who: c.By, From: c.From, What: c.Verb + " " + c.Target, Why: c.Reason})
	}
	if err != nil {
		p.events.Send(event.CommandNotAudited{ID: c.ID, Err: err})
	}
}
