package control

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"async-data-processor/problem"
)

// CommandPath is where commands are taken with POST and listed with GET, and
// CommandPath/<id> tells with GET what became of one.
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
	// State is waiting, done, or failed: it was not applied to a shard, or to a server.
	State string `json:"state"`
	// Shards are the outcomes that are known, or Servers, by node, of a command to the
	// intake. Waiting counts the others.
	Shards  map[string]ShardOutcome `json:"shards"`
	Servers map[string]ShardOutcome `json:"servers,omitempty"`
	Waiting int                     `json:"waiting"`
	// Error is why a command to the intake was not applied to all servers.
	Error string `json:"error,omitempty"`
}

// ShardOutcome is what the owner of a shard has told, or a server.
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
		ID: r.ID, Verb: r.Verb, Target: r.Target, Reason: r.Reason, By: r.By, At: stamp(r.at),
		State: r.state(), Shards: make(map[string]ShardOutcome), Waiting: len(r.shards) - len(r.outcomes),
	}
	if r.Target == intakeTarget {
		v.Servers, v.Waiting, v.Error = r.servers, r.silent, r.failure // the map never changes
	}
	for n, o := range r.outcomes {
		v.Shards[strconv.Itoa(n)] = ShardOutcome{o.Node, o.Before, o.After, o.Repeated, o.Error}
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
	var b commandBody
	err := problem.ReadBody(w, r, maxCommandBody, &b)
	return Command{ID: b.ID, Verb: b.Verb, Target: b.Target, Min: b.Args.Min, Max: b.Args.Max, Reason: b.Reason, Until: b.Until}, err
}

var commandProblems = problem.Table{
	{Is: problem.ErrBody, Status: http.StatusBadRequest, Kind: "invalid-command"},
	{Is: ErrCommand, Status: http.StatusBadRequest, Kind: "invalid-command"},
	{Is: ErrReadOnly, Status: http.StatusForbidden, Kind: "read-only"},
	{Is: ErrConflict, Status: http.StatusConflict, Kind: "command-conflict"},
	{Is: ErrStopping, Status: http.StatusServiceUnavailable, Kind: "draining", Retry: 2},
	{Is: ErrTooMany, Status: http.StatusTooManyRequests, Kind: "overloaded", Retry: 1},
}

// Serve answers CommandPath and what is below. by is the name of the client.
func (c *Commands) Serve(w http.ResponseWriter, r *http.Request, by string) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method == http.MethodGet && r.URL.Path == CommandPath {
		c.list(w, r)
		return
	}
	if r.Method == http.MethodGet {
		c.show(w, strings.TrimPrefix(r.URL.Path, CommandPath+"/"))
		return
	}
	cmd, err := readCommand(w, r)
	if err != nil {
		commandProblems.Answer(w, err)
		return
	}
	cmd.By = by
	switch v, err := c.Take(r.Context(), cmd, r.RemoteAddr); {
	case err != nil:
		commandProblems.Answer(w, err)
	case v.State == "failed":
		problem.JSON(w, http.StatusServiceUnavailable, v)
	case v.State == "waiting":
		w.Header().Set("Location", CommandPath+"/"+v.ID)
		problem.JSON(w, http.StatusAccepted, v)
	default:
		problem.JSON(w, http.StatusOK, v)
	}
}

func (c *Commands) show(w http.ResponseWriter, id string) {
	c.mu.Lock()
	r := c.records[id]
	c.mu.Unlock()
	if r == nil {
		problem.Answer(w, http.StatusNotFound, "not-found", "no command of this id is known here; each process remembers the last 1,000 that it has heard of", 0)
		return
	}
	problem.JSON(w, http.StatusOK, c.view(r))
}
