package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"async-data-processor/httpstream"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
	"async-data-processor/problem"
)

// Paths of the API.
const (
	// RunsPath lists runs. Below it are runs by their id, and jobs, to run them by their name.
	RunsPath = "/api/jobs"
	// WorkersPath lists the runners.
	WorkersPath = "/api/workers"
	// The same as other lists of the system are, and the jobs that are defined.
	JobsListPath    = "/api/v1/jobs"
	RunsListPath    = "/api/v1/runs"
	RunnersListPath = "/api/v1/runners"
)

const (
	// defaultListed is how many runs a list has unless the client says so.
	defaultListed = 100
	// maxChangeBody bounds the body of a change, in bytes.
	maxChangeBody = 8 << 10
	// maxAsking bounds the requests that ask at a time; one waits askingWait for its turn.
	maxAsking  = 16
	askingWait = time.Second
	// maxFollowers is how many logs are sent at a time. A client that has the most of them
	// loses its oldest to another one.
	maxFollowers = 64
)

// HandlerConfig sets up a Handler.
type HandlerConfig struct {
	// Service returns the one that is asked now.
	Service func() Service
	// Client tells clients apart, and By returns the name of one.
	Client, By func(*http.Request) string
}

// Handler answers requests about jobs, with GET to those who may see, and with POST to
// those who may change.
type Handler struct {
	cfg    HandlerConfig
	asking chan struct{}
	// follows has one of each log that is sent.
	follows chan struct{}
	places  httpstream.Places
}

// NewHandler returns a Handler.
func NewHandler(cfg HandlerConfig) *Handler {
	return &Handler{cfg: cfg, asking: make(chan struct{}, maxAsking), follows: make(chan struct{}, maxFollowers)}
}

// NoSocket answers a request for a runner's place that opens no WebSocket.
func NoSocket(w http.ResponseWriter, _ *http.Request) {
	problem.Answer(w, http.StatusBadRequest, "invalid-handshake", "here runners open a WebSocket, with the subprotocol "+frame.Protocol, 0)
}

var (
	errNoPath = errors.New("there is nothing at this path, or not for this method; runs have numbers, and " + JobsListPath + " lists the jobs")
	errQuery  = errors.New("invalid query")
)

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	rest, below := strings.CutPrefix(r.URL.Path, RunsPath+"/")
	name, do, _ := strings.Cut(rest, "/")
	id, isRun := runID(name)
	switch {
	case strings.HasSuffix(rest, "/"): // as everywhere, a slash at the end is another path
		problems.Answer(w, errNoPath)
	case below && isRun && do == "log" && r.Method == http.MethodGet:
		h.log(w, r, id)
	case below && r.Method == http.MethodPost:
		h.answer(w, r, func() (any, int, error) { return h.post(w, r, name, do, id) })
	case r.Method == http.MethodGet && (!below || isRun && do == ""):
		h.answer(w, r, func() (any, int, error) {
			a, err := h.get(w, r, id)
			return a, http.StatusOK, err
		})
	default:
		problems.Answer(w, errNoPath)
	}
}

// answer answers with what f returns, in its turn.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, f func() (any, int, error)) {
	var a any
	var status int
	err := h.inTurn(r, func() (err error) {
		a, status, err = f()
		return err
	})
	if err != nil {
		problems.Answer(w, err)
		return
	}
	problem.JSON(w, status, a)
}

// inTurn calls f, once the request may ask.
func (h *Handler) inTurn(r *http.Request, f func() error) error {
	late := time.NewTimer(askingWait)
	defer late.Stop()
	select {
	case h.asking <- struct{}{}:
	case <-late.C:
		return ErrBusy
	case <-r.Context().Done():
		return ErrBusy
	}
	defer func() { <-h.asking }()
	return f()
}

// runID reads the id of a run. No job has a name of digits alone.
func runID(text string) (int64, bool) {
	id, err := strconv.ParseInt(text, 10, 64)
	return id, err == nil && id > 0 && strconv.FormatInt(id, 10) == text
}

// get answers a GET but for one of a log.
func (h *Handler) get(w http.ResponseWriter, r *http.Request, id int64) (any, error) {
	ctx, path := r.Context(), r.URL.Path
	var names []string
	switch path {
	case RunsPath, RunsListPath:
		names = []string{"name", "job", "state", "limit", "before"}
	case JobsListPath:
		names = []string{"after", "limit"}
	}
	query, err := problem.Query(r, names...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errQuery, err)
	}
	limit, err := readLimit(query)
	if err != nil {
		return nil, err
	}
	switch path {
	case RunsPath, RunsListPath:
		f, err := readRunFilter(query, limit)
		if err != nil {
			return nil, err
		}
		page, err := h.cfg.Service().Runs(ctx, f)
		if err != nil || path == RunsListPath {
			return page, err
		}
		if page.Next != "" {
			next := url.Values{"before": {page.Next}}
			for name, value := range query {
				if name != "before" {
					next.Set(name, value)
				}
			}
			w.Header().Set("Link", "<?"+next.Encode()+`>; rel="next"`)
		}
		return page.Runs, nil
	case JobsListPath:
		return h.cfg.Service().Jobs(ctx, JobsQuery{query["after"], limit})
	case WorkersPath:
		page, err := h.cfg.Service().Runners(ctx)
		return page.Runners, err
	case RunnersListPath:
		return h.cfg.Service().Runners(ctx)
	}
	return h.cfg.Service().Run(ctx, id)
}

func readLimit(query map[string]string) (int, error) {
	text, given := query["limit"]
	if !given {
		return defaultListed, nil
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 || limit > store.MaxList {
		return 0, fmt.Errorf("%w: limit is %.40q, want 1 to %d", errQuery, text, store.MaxList)
	}
	return limit, nil
}

// States are those of runs, in the order of a run's life.
var States = []store.State{store.Queued, store.Leased, store.Running, store.Succeeded, store.Cancelled, store.TimedOut, store.Dead}

func readRunFilter(query map[string]string, limit int) (store.Filter, error) {
	f := store.Filter{Job: query["job"], State: store.State(query["state"]), Limit: limit}
	if name, given := query["name"]; given {
		if f.Job != "" && f.Job != name {
			return f, fmt.Errorf("%w: name and job are the same; want one of them", errQuery)
		}
		f.Job = name
	}
	if f.State != "" && !slices.Contains(States, f.State) {
		return f, fmt.Errorf("%w: state is %.40q, want one of %v", errQuery, f.State, States)
	}
	if text, given := query["before"]; given {
		var ok bool
		if f.Before, ok = runID(text); !ok {
			return f, fmt.Errorf("%w: before is %.40q, want the id of a run", errQuery, text)
		}
	}
	return f, nil
}

// post answers a POST: of a run of the job name, or of what is to be done with a run.
func (h *Handler) post(w http.ResponseWriter, r *http.Request, name, do string, id int64) (any, int, error) {
	if _, err := problem.Query(r); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", errQuery, err)
	}
	var v RunView
	var err error
	switch {
	case do == "" && id == 0:
		v, err = h.start(w, r, name)
	case id > 0 && (do == "cancel" || do == "retry"):
		c := Change{Run: id, By: h.cfg.By(r), From: r.RemoteAddr}
		if c.Reason, err = readReason(w, r); err != nil {
			return nil, 0, err
		}
		change := h.cfg.Service().Cancel
		if do == "retry" {
			change = h.cfg.Service().Retry
		}
		v, err = change(r.Context(), c)
	default:
		err = errNoPath
	}
	if err != nil {
		return nil, 0, err
	}
	if do == "" || v.Cancelling { // it is not done yet
		w.Header().Set("Location", RunsPath+"/"+strconv.FormatInt(v.ID, 10))
		return v, http.StatusAccepted, nil
	}
	return v, http.StatusOK, nil
}

func (h *Handler) start(w http.ResponseWriter, r *http.Request, name string) (RunView, error) {
	o := Order{Job: name, By: h.cfg.By(r), From: r.RemoteAddr}
	switch keys := r.Header["Idempotency-Key"]; {
	case len(keys) > 1:
		return RunView{}, invalid("the Idempotency-Key is there %d times, want it once", len(keys))
	case len(keys) == 1 && keys[0] == "":
		return RunView{}, invalid("the Idempotency-Key is empty")
	case len(keys) == 1:
		o.Key = keys[0]
	}
	var err error
	if o.Args, err = io.ReadAll(http.MaxBytesReader(w, r.Body, MaxArgs)); err != nil {
		return RunView{}, fmt.Errorf("%w: %w", problem.ErrBody, err)
	}
	return h.cfg.Service().Start(r.Context(), o)
}

// readReason reads the body of a change, which may be empty.
func readReason(w http.ResponseWriter, r *http.Request) (string, error) {
	var body struct {
		Reason string `json:"reason"`
	}
	err := problem.ReadBody(w, r, maxChangeBody, &body)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return body.Reason, err
}

// problems are those that errors are. What the bus tells apart may be one to a client.
var problems = slices.Concat(problem.Table{
	{Is: problem.ErrBody, Status: http.StatusBadRequest, Kind: "invalid-run"},
	{Is: errNoPath, Status: http.StatusNotFound, Kind: "not-found"},
	{Is: errQuery, Status: http.StatusBadRequest, Kind: "invalid-query"},
	{Is: ErrNoJob, Status: http.StatusNotFound, Kind: "not-found"},
	{Is: store.ErrNotFound, Status: http.StatusNotFound, Kind: "not-found"},
}, refusals, problem.Table{
	{Is: context.Canceled, Status: http.StatusServiceUnavailable, Kind: "draining", Retry: 2, Detail: "the process stops, ask another one, or again"},
})
