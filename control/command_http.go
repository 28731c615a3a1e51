package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// CommandPath is where commands are taken with POST, and CommandPath/<id> tells with GET
// what became of one.
const CommandPath = "/api/v1/commands"

// maxCommandBody bounds the body of a command, in bytes.
const maxCommandBody = 8 << 10

// CommandView is what is known of a command.
type CommandView struct {
	ID     string    `json:"id"`
	Verb   string    `json:"verb"`
	Target string    `json:"target"`
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by,omitempty"`
	At     time.Time `json:"at"`
	// State is waiting, done, or failed: it was not applied to a shard.
	State string `json:"state"`
	// Shards are the outcomes that are known; Waiting counts the others.
	Shards  map[string]ShardOutcome `json:"shards"`
	Waiting int                     `json:"waiting"`
}

// ShardOutcome is what the owner of a shard has told.
type ShardOutcome struct {
	Node     string `json:"node"`
	Before   string `json:"before"`
	After    string `json:"after"`
	Repeated bool   `json:"repeated,omitempty"`
	Error    string `json:"error,omitempty"`
}

func (c *Commands) view(r *record) CommandView {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := CommandView{
		ID: r.ID, Verb: r.Verb, Target: r.Target, Reason: r.Reason, By: r.By, At: r.at.UTC().Truncate(time.Millisecond),
		State: "done", Shards: make(map[string]ShardOutcome), Waiting: len(r.shards) - len(r.outcomes),
	}
	if v.Waiting > 0 {
		v.State = "waiting"
	}
	for n, o := range r.outcomes {
		v.Shards[strconv.Itoa(n)] = ShardOutcome{o.Node, o.Before, o.After, o.Repeated, o.Error}
		if o.Error != "" {
			v.State = "failed"
		}
	}
	return v
}

// commandBody is what a client sends.
type commandBody struct {
	ID     string `json:"id"`
	Verb   string `json:"verb"`
	Target string `json:"target"`
	Args   struct {
		Min int `json:"min"`
		Max int `json:"max"`
	} `json:"args"`
	Reason string    `json:"reason"`
	Until  time.Time `json:"until"`
}

// readCommand reads the body of a request.
func readCommand(w http.ResponseWriter, r *http.Request) (Command, error) {
	in := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCommandBody))
	in.DisallowUnknownFields()
	var b commandBody
	if err := in.Decode(&b); err != nil {
		return Command{}, err
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return Command{}, errors.New("there is more behind the command")
	}
	return Command{ID: b.ID, Verb: b.Verb, Target: b.Target, Min: b.Args.Min, Max: b.Args.Max, Reason: b.Reason, Until: b.Until}, nil
}

// Serve answers CommandPath and what is below. by is the name of the client.
func (c *Commands) Serve(w http.ResponseWriter, r *http.Request, by string) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method == http.MethodGet {
		c.show(w, strings.TrimPrefix(r.URL.Path, CommandPath+"/"))
		return
	}
	cmd, err := readCommand(w, r)
	if err != nil {
		status := http.StatusBadRequest
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			status = http.StatusRequestEntityTooLarge
		}
		commandProblem(w, status, "invalid-command", fmt.Sprintf("the body is no command: %v", err))
		return
	}
	cmd.By = by
	switch v, err := c.Take(r.Context(), cmd, r.RemoteAddr); {
	case errors.Is(err, ErrCommand):
		commandProblem(w, http.StatusBadRequest, "invalid-command", err.Error())
	case errors.Is(err, ErrReadOnly):
		commandProblem(w, http.StatusForbidden, "read-only", err.Error())
	case errors.Is(err, ErrConflict):
		commandProblem(w, http.StatusConflict, "command-conflict", err.Error())
	case errors.Is(err, ErrStopping):
		w.Header().Set("Retry-After", "2")
		commandProblem(w, http.StatusServiceUnavailable, "draining", err.Error())
	case err != nil:
		w.Header().Set("Retry-After", "1")
		commandProblem(w, http.StatusTooManyRequests, "overloaded", err.Error())
	case v.State == "failed":
		commandAnswer(w, http.StatusServiceUnavailable, v)
	case v.State == "waiting":
		w.Header().Set("Location", CommandPath+"/"+v.ID)
		commandAnswer(w, http.StatusAccepted, v)
	default:
		commandAnswer(w, http.StatusOK, v)
	}
}

func (c *Commands) show(w http.ResponseWriter, id string) {
	c.mu.Lock()
	r := c.records[id]
	c.mu.Unlock()
	if r == nil {
		commandProblem(w, http.StatusNotFound, "not-found", "no command of this id is known here; each process remembers the last 1,000 that it has heard of")
		return
	}
	commandAnswer(w, http.StatusOK, c.view(r))
}

func commandAnswer(w http.ResponseWriter, status int, v CommandView) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

// commandProblem answers with a problem (RFC 9457).
func commandProblem(w http.ResponseWriter, status int, kind, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"type": "urn:async-data-processor:problem:" + kind, "title": http.StatusText(status), "status": status, "detail": detail,
	})
}
