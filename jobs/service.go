package jobs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"async-data-processor/broker"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
	"async-data-processor/problem"
)

// Service is what clients may do with jobs, on whichever node they ask. Its methods may be
// called concurrently. Their errors are those of store, or those below; any other one says
// that the state database does not answer.
type Service interface {
	// Jobs are those that are defined, by name.
	Jobs(ctx context.Context, q JobsQuery) (JobsPage, error)
	// Runs are those that a filter chooses.
	Runs(ctx context.Context, f store.Filter) (RunsPage, error)
	// Run is a run with its history.
	Run(ctx context.Context, id int64) (RunDetail, error)
	// Start creates a run, or returns the one that was created with the same key.
	Start(ctx context.Context, o Order) (RunView, error)
	// Cancel ends a run, or has its runner end it: then it is Cancelling. One that is
	// cancelled stays so.
	Cancel(ctx context.Context, c Change) (RunView, error)
	// Retry queues a run that has ended without success.
	Retry(ctx context.Context, c Change) (RunView, error)
	// Log is a part of the log of an attempt.
	Log(ctx context.Context, q LogQuery) (store.LogPart, error)
	// Runners are those that are connected, to all engines.
	Runners(ctx context.Context) (RunnersPage, error)
}

// JobsQuery chooses jobs.
type JobsQuery struct {
	After string `json:"after"` // by name; empty for the first
	Limit int    `json:"limit"` // 1 to store.MaxList
}

// Order asks for a run.
type Order struct {
	Job string `json:"job"`
	// Key makes it safe to ask again: at most MaxKey visible ASCII characters; empty for none.
	Key string `json:"key,omitempty"`
	// Args is a JSON text of at most MaxArgs bytes and MaxArgsDepth levels, or empty.
	Args json.RawMessage `json:"args,omitempty"`
	// By is the name of the client, and From its address.
	By   string `json:"by,omitempty"`
	From string `json:"from,omitempty"`
}

// Change asks for a change of a run.
type Change struct {
	Run    int64  `json:"run"`
	Reason string `json:"reason,omitempty"` // of at most MaxReason bytes
	By     string `json:"by,omitempty"`
	From   string `json:"from,omitempty"`
}

// LogQuery asks for a part of the log of an attempt.
type LogQuery struct {
	Run     int64 `json:"run"`
	Attempt int   `json:"attempt"` // 0 for the last
	Offset  int64 `json:"offset"`
	Limit   int   `json:"limit"` // 1 to MaxLogPart
}

// Bounds of what clients send, in bytes but for the depth.
const (
	// MaxArgs leaves room in a line of 64 KiB, the longest in a container's file of variables
	// that podman and docker read.
	MaxArgs = 60 << 10
	// MaxArgsDepth is how deep Args may nest. Each frame and answer that has them nests them
	// deeper, and who reads JSON has a limit.
	MaxArgsDepth = 100
	MaxKey       = 200
	MaxReason    = 500
	// MaxLogPart bounds a part of a log: it travels over the bus, in base64.
	MaxLogPart = 128 << 10
)

// Errors of a Service, beside those of store.
var (
	// ErrNoJob: no job of that name is defined.
	ErrNoJob = errors.New("there is no such job")
	// ErrInvalid: what was asked for can never be done.
	ErrInvalid = errors.New("invalid")
	// ErrReadOnly: READ_ONLY is set here, or at the engine.
	ErrReadOnly = errors.New("this process is read-only and takes no commands")
	// ErrNoEngine: no process with jobs has answered. Nothing was done.
	ErrNoEngine = errors.New("no process with jobs answers; start one with server --jobs, or standalone --jobs")
	// ErrAway: the state database does not answer. Nothing was done, unless it was about to answer.
	ErrAway = errors.New("the state database does not answer")
	// ErrBusy: as much is asked for at a time as may be, or as many runs wait. Nothing was done.
	ErrBusy = errors.New("too much is asked for at a time")
	// ErrUnknown: the engine has not answered in time, and may have done it.
	ErrUnknown = errors.New("the engine has not answered in time, and may still do it; ask again, with the same Idempotency-Key if there is one")
)

// refusals are the errors that have a kind on the bus, and an answer by HTTP.
var refusals = problem.Table{
	{Is: ErrInvalid, Status: http.StatusBadRequest, Kind: "invalid-run"},
	{Is: ErrNoJob, Status: http.StatusNotFound, Kind: "no-job"},
	{Is: store.ErrNotFound, Status: http.StatusNotFound, Kind: "no-run"},
	{Is: store.ErrState, Status: http.StatusConflict, Kind: "run-state"},
	{Is: store.ErrConflict, Status: http.StatusConflict, Kind: "run-conflict"},
	{Is: ErrReadOnly, Status: http.StatusForbidden, Kind: "read-only"},
	{Is: ErrBusy, Status: http.StatusTooManyRequests, Kind: "overloaded", Retry: 1},
	{Is: ErrNoEngine, Status: http.StatusServiceUnavailable, Kind: "no-engine", Retry: 2},
	{Is: ErrUnknown, Status: http.StatusServiceUnavailable, Kind: "outcome-unknown", Retry: 2},
	{Is: ErrAway, Status: http.StatusServiceUnavailable, Kind: "state-database-away", Retry: 2},
}

// refusal is an error of a Service with a text of its own for the client.
type refusal struct {
	is   error
	text string
}

func (r refusal) Error() string        { return r.text }
func (r refusal) Is(target error) bool { return target == r.is }

func invalid(format string, args ...any) error {
	return refusal{ErrInvalid, fmt.Sprintf(format, args...)}
}

// clientKey precedes the keys of clients in the database. So no client can take the key
// of a run for a file, which is the file's name.
const clientKey = "client:"

func shownKey(key string) string { return strings.TrimPrefix(key, clientKey) }

// check returns what is wrong with an order. Its Args are compact then: the database
// compares those of one key.
func (o *Order) check() error {
	switch {
	case len(o.Key) > MaxKey || strings.ContainsFunc(o.Key, func(c rune) bool { return c <= ' ' || c > '~' }):
		return invalid("the Idempotency-Key has to be 1 to %d visible ASCII characters", MaxKey)
	case len(o.Args) > MaxArgs:
		return invalid("the arguments have %d bytes, want at most %d", len(o.Args), MaxArgs)
	}
	o.By, o.From = broker.Clip(o.By, maxClientText), broker.Clip(o.From, maxClientText)
	if o.Args = bytes.TrimSpace(o.Args); len(o.Args) == 0 {
		return nil
	}
	var args bytes.Buffer
	if err := json.Compact(&args, o.Args); err != nil || !utf8.Valid(o.Args) {
		return invalid("the arguments are no JSON text in UTF-8")
	}
	if depthOf(args.Bytes()) > MaxArgsDepth {
		return invalid("the arguments nest deeper than %d levels", MaxArgsDepth)
	}
	o.Args = args.Bytes()
	return nil
}

// depthOf returns how deep the lists and objects of a JSON text nest.
func depthOf(text []byte) (deepest int) {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
			deepest = max(deepest, depth)
		case c == ']' || c == '}':
			depth--
		}
	}
	return deepest
}

// check returns what is wrong with a change.
func (c *Change) check() error {
	if len(c.Reason) > MaxReason {
		return invalid("reason has %d bytes, want at most %d", len(c.Reason), MaxReason)
	}
	c.By, c.From = broker.Clip(c.By, maxClientText), broker.Clip(c.From, maxClientText)
	return nil
}

func (q *LogQuery) check() error {
	if q.Attempt < 0 || q.Offset < 0 || q.Limit < 1 || q.Limit > MaxLogPart {
		return invalid("a part of a log has an attempt, an offset, and 1 to %d bytes", MaxLogPart)
	}
	return nil
}

const (
	// maxClientText bounds names and addresses of clients, in bytes.
	maxClientText = 256
	// maxShownName bounds a wrong name in an answer, and shownNames is how many right ones
	// it lists.
	maxShownName = 64
	shownNames   = 20
)

// noJob says that a job is not defined, and which ones are.
func noJob(name string, defined []frame.Definition) error {
	names := make([]string, 0, shownNames+1)
	for _, d := range defined {
		if len(names) == shownNames {
			names = append(names, "…")
			break
		}
		names = append(names, d.Name)
	}
	text := fmt.Sprintf("there is no job %q; none is defined", broker.Clip(name, maxShownName))
	if len(names) > 0 {
		text = fmt.Sprintf("there is no job %q; there are %s", broker.Clip(name, maxShownName), strings.Join(names, ", "))
	}
	return refusal{ErrNoJob, text}
}

// Away is the Service of an engine whose state database was not reached yet.
type Away struct{}

// Jobs implements Service.
func (Away) Jobs(context.Context, JobsQuery) (JobsPage, error) { return JobsPage{}, ErrAway }

// Runs implements Service.
func (Away) Runs(context.Context, store.Filter) (RunsPage, error) { return RunsPage{}, ErrAway }

// Run implements Service.
func (Away) Run(context.Context, int64) (RunDetail, error) { return RunDetail{}, ErrAway }

// Start implements Service.
func (Away) Start(context.Context, Order) (RunView, error) { return RunView{}, ErrAway }

// Cancel implements Service.
func (Away) Cancel(context.Context, Change) (RunView, error) { return RunView{}, ErrAway }

// Retry implements Service.
func (Away) Retry(context.Context, Change) (RunView, error) { return RunView{}, ErrAway }

// Log implements Service.
func (Away) Log(context.Context, LogQuery) (store.LogPart, error) { return store.LogPart{}, ErrAway }

// Runners implements Service.
func (Away) Runners(context.Context) (RunnersPage, error) { return RunnersPage{}, ErrAway }
