package deadletter

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
	"async-data-processor/problem"
)

// Path is where the dead letters are listed. Below it are groups, tasks, and each letter
// by its key.
const Path = "/api/v1/dead-letters"

// Bounds of requests.
const (
	maxBody      = 1 << 20
	defaultLimit = 100
	maxLimit     = 1000
)

// Handler answers requests about dead letters.
type Handler struct{ *Letters }

// Serve answers Path and what is below, with GET to those who may see, and with POST and
// DELETE to those who may change. client tells clients apart, by is the name of this one.
func (l Handler) Serve(w http.ResponseWriter, r *http.Request, client, by string) {
	w.Header().Set("Cache-Control", "no-store")
	var (
		answer any
		err    error
		status = http.StatusOK
	)
	rest := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, Path), "/")
	key, replays := strings.CutSuffix(rest, "/replay")
	id, isTask := strings.CutPrefix(rest, "tasks/")
	switch {
	case r.Method == http.MethodGet:
		answer, err = l.get(r, client, rest)
	case r.Method == http.MethodDelete && isTask:
		answer, err = l.Cancel(r.Context(), id, by, r.RemoteAddr)
	case r.Method == http.MethodPost && rest == "tasks":
		answer, status, err = l.post(w, r, client, by)
	case r.Method == http.MethodPost && replays:
		answer, err = l.postReplay(w, r, key, by)
	default:
		err = errNoPath
	}
	if err != nil {
		refuse(w, err)
		return
	}
	problem.JSON(w, status, answer)
}

var errNoPath = errors.New("there is nothing at this path, or not for this method")

// get answers a GET of what is below Path.
func (l Handler) get(r *http.Request, client, rest string) (any, error) {
	ctx := r.Context()
	id, isTask := strings.CutPrefix(rest, "tasks/")
	switch {
	case rest == "tasks":
		return l.allTasks(ctx), nil
	case isTask:
		return l.Task(ctx, id)
	case isKey(rest):
		return l.show(ctx, client, rest)
	case rest != "" && rest != "groups":
		return nil, ErrNotFound
	}
	names := []string{"reason", "shard", "foreign", "contains", "id", "before"}
	if rest == "" {
		names = append(names, "after", "limit")
	}
	query, err := problem.Values(r, "id", names...) // a filter that was misspelt would mean all letters
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrQuery, err)
	}
	f, err := readFilter(query)
	if err == nil {
		err = l.check(&f)
	}
	if err != nil {
		return nil, err
	}
	if rest == "groups" {
		return l.groups(ctx, client, &f)
	}
	after, limit, err := readPage(query)
	if err != nil {
		return nil, err
	}
	return l.list(ctx, client, &f, after, limit)
}

// readFilter reads a filter from a query.
func readFilter(query url.Values) (f Filter, err error) {
	f.Reason, f.Contains, f.IDs = query.Get("reason"), query.Get("contains"), query["id"]
	if text := query.Get("shard"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			return f, fmt.Errorf("%w: shard is a number", ErrQuery)
		}
		f.Shard = &n
	}
	if text := query.Get("foreign"); text != "" {
		is, err := strconv.ParseBool(text)
		if err != nil {
			return f, fmt.Errorf("%w: foreign is true or false", ErrQuery)
		}
		f.Foreign = &is
	}
	if text := query.Get("before"); text != "" {
		if f.Before, err = time.Parse(time.RFC3339, text); err != nil {
			return f, fmt.Errorf("%w: before is a time as in RFC 3339", ErrQuery)
		}
	}
	return f, nil
}

// readPage reads from a query where a page begins, and how long it is.
func readPage(query url.Values) (after string, limit int, err error) {
	limit = defaultLimit
	if text := query.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxLimit {
			return "", 0, fmt.Errorf("%w: limit is a number, 1 to %d", ErrQuery, maxLimit)
		}
	}
	after = query.Get("after")
	if _, key, _ := strings.Cut(after, "."); after != "" && !isKey(key) {
		return "", 0, fmt.Errorf("%w: after is the next of the page before", ErrQuery)
	}
	return after, limit, nil
}

// post answers a POST of a task.
func (l Handler) post(w http.ResponseWriter, r *http.Request, client, by string) (any, int, error) {
	o := Order{By: by, From: r.RemoteAddr}
	if err := problem.ReadBody(w, r, maxBody, &o); err != nil {
		return nil, 0, err
	}
	err := o.check(time.Now())
	if err == nil {
		err = l.check(&o.Filter)
	}
	switch {
	case err != nil:
		return nil, 0, err
	case o.Preview:
		p, err := l.preview(r.Context(), client, &o)
		return p, http.StatusOK, err
	case l.cfg.ReadOnly:
		return nil, 0, ErrReadOnly
	}
	t, err := l.Start(r.Context(), client, o)
	if err != nil {
		return nil, 0, err
	}
	w.Header().Set("Location", Path+"/tasks/"+t.ID)
	return t, http.StatusAccepted, nil
}

// postReplay answers a POST that replays a letter, edited or as it is.
func (l Handler) postReplay(w http.ResponseWriter, r *http.Request, key, by string) (any, error) {
	var in struct {
		Body   *string `json:"body"`
		Reason string  `json:"reason"`
	}
	if !isKey(key) {
		return nil, ErrNotFound
	}
	if err := problem.ReadBody(w, r, maxBody, &in); err != nil {
		return nil, err
	}
	if len(in.Reason) > maxWhy {
		return nil, fmt.Errorf("%w: reason has %d bytes, want at most %d", ErrTask, len(in.Reason), maxWhy)
	}
	return l.Replay(Change{Key: key, Body: in.Body, Reason: in.Reason, By: by, From: r.RemoteAddr})
}

// refusals are the problems that errors are.
var refusals = problem.Table{
	{Is: errNoPath, Status: http.StatusNotFound, Kind: "not-found"},
	{Is: ErrQuery, Status: http.StatusBadRequest, Kind: "invalid-query"},
	{Is: problem.ErrBody, Status: http.StatusBadRequest, Kind: "invalid-task"},
	{Is: ErrTask, Status: http.StatusBadRequest, Kind: "invalid-task"},
	{Is: ErrNotFound, Status: http.StatusNotFound, Kind: "not-found"},
	{Is: ErrTooFar, Status: http.StatusNotFound, Kind: "not-found"},
	{Is: ErrNoTask, Status: http.StatusNotFound, Kind: "not-found"},
	{Is: ErrReadOnly, Status: http.StatusForbidden, Kind: "read-only"},
	{Is: ErrNotEditable, Status: http.StatusConflict, Kind: "not-editable"},
	{Is: broker.ErrNoOrigin, Status: http.StatusConflict, Kind: "no-origin"},
	{Is: ErrTooMany, Status: http.StatusTooManyRequests, Kind: "overloaded", Retry: 1},
	{Is: ErrStopping, Status: http.StatusServiceUnavailable, Kind: "draining", Retry: 2},
	{Is: broker.ErrUnknown, Status: http.StatusServiceUnavailable, Kind: "outcome-unknown", Retry: 2},
	{Is: broker.ErrRejected, Status: http.StatusServiceUnavailable, Kind: "not-published", Retry: 2},
	{Is: ErrUnreachable, Status: http.StatusServiceUnavailable, Kind: "dead-letters-unreachable", Retry: 2},
	{Is: context.Canceled, Status: http.StatusServiceUnavailable, Kind: "draining", Retry: 2},
}

// refuse answers with the problem that an error is.
func refuse(w http.ResponseWriter, err error) {
	if list, ok := errors.AsType[*message.InvalidError](err); ok {
		problem.AnswerErrors(w, http.StatusBadRequest, "invalid-submission",
			fmt.Sprintf("errors lists %d to correct; nothing was changed", len(list.Entries)), list.Entries)
		return
	}
	refusals.Answer(w, err)
}
