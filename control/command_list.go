package control

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"async-data-processor/problem"
)

// defaultCommands is how many commands a page of the list has unless the client says so.
const defaultCommands = 100

// CommandRow is what the list of commands tells of one: its key is its id.
type CommandRow struct {
	ID     string    `json:"id"`
	Verb   string    `json:"verb"`
	Target string    `json:"target"`
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by,omitempty"`
	At     time.Time `json:"at"`
	// State is that of CommandView.
	State string `json:"state"`
	// ShardsDone counts the shards, or servers, whose outcome is known, of ShardsTotal.
	ShardsDone  int `json:"shards_done"`
	ShardsTotal int `json:"shards_total"`
	// Error is one of the reasons why it was not applied.
	Error string `json:"error,omitempty"`
}

// CommandsAnswer is a page of the list of commands.
type CommandsAnswer struct {
	Head
	Commands []CommandRow `json:"commands"`
	// Next is what after has to be for the next page; empty if there is none.
	Next string `json:"next,omitempty"`
}

// List returns the last commands that this process has heard of, the newest first: at most
// limit that are older than after, "" for the newest. limit is at least 1.
func (c *Commands) List(after string, limit int) CommandsAnswer {
	a := CommandsAnswer{Head: Head{stamp(time.Now()), c.cfg.Node, true}, Commands: []CommandRow{}}
	c.mu.Lock()
	defer c.mu.Unlock()
	older := c.order
	if after != "" {
		older = older[:max(0, slices.Index(older, after))] // before one that is forgotten there is none
	}
	for _, id := range slices.Backward(older) {
		if len(a.Commands) == limit {
			a.Next = a.Commands[limit-1].ID
			break
		}
		a.Commands = append(a.Commands, c.records[id].row())
	}
	return a
}

// row is the record as the list has it. mu of the Commands is held.
func (r *record) row() CommandRow {
	row := CommandRow{
		ID: r.ID, Verb: r.Verb, Target: r.Target, Reason: r.Reason, By: r.By, At: stamp(r.at), State: r.state(),
		ShardsDone: len(r.outcomes), ShardsTotal: len(r.shards), Error: r.failure,
	}
	if r.Target == intakeTarget {
		row.ShardsDone, row.ShardsTotal = len(r.servers), len(r.servers)+r.silent
	}
	for _, n := range r.shards {
		row.Error = cmp.Or(row.Error, r.outcomes[n].Error)
	}
	for _, node := range slices.Sorted(maps.Keys(r.servers)) {
		row.Error = cmp.Or(row.Error, r.servers[node].Error)
	}
	return row
}

// state is waiting, done, or failed: it was not applied to a shard, or to a server. mu of
// the Commands is held.
func (r *record) state() string {
	refused := r.failure != ""
	for _, o := range r.servers {
		refused = refused || o.Error != ""
	}
	for _, o := range r.outcomes {
		refused = refused || o.Error != ""
	}
	switch {
	case refused:
		return "failed"
	case !r.complete():
		return "waiting"
	}
	return "done"
}

// list answers with a page of the list.
func (c *Commands) list(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	limit := defaultCommands
	if query.Has("limit") {
		n, err := strconv.Atoi(query.Get("limit"))
		if err != nil || n < 1 || n > maxCommands {
			problem.Answer(w, http.StatusBadRequest, "invalid-query", "limit is 1 to "+strconv.Itoa(maxCommands), 0)
			return
		}
		limit = n
	}
	problem.JSON(w, http.StatusOK, c.List(query.Get("after"), limit))
}
