package jobs

import (
	"encoding/json"
	"time"

	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
)

// RunView is a run as HTTP and the bus tell it. ID, Name, Queuing, Running and Success are
// what the first clients of this API read; the others say more.
type RunView struct {
	ID      int64       `json:"id"`
	Job     string      `json:"job"`
	Name    string      `json:"name"` // the job's
	State   store.State `json:"state"`
	Queuing bool        `json:"queuing"`
	Running bool        `json:"running"`
	Success bool        `json:"success"`

	Attempt    int              `json:"attempt"`
	Spent      int              `json:"spent"` // how many attempts count, of Attempts
	Attempts   int              `json:"attempts"`
	Runner     string           `json:"runner,omitempty"`
	Engine     string           `json:"engine,omitempty"`
	Created    time.Time        `json:"created_at"`
	Due        time.Time        `json:"due_at,omitzero"`
	Started    time.Time        `json:"started_at,omitzero"`
	Ended      time.Time        `json:"ended_at,omitzero"`
	Exit       *int             `json:"exit,omitempty"`
	Outcome    frame.Outcome    `json:"outcome,omitempty"`
	Why        string           `json:"why,omitempty"`
	Args       json.RawMessage  `json:"args,omitempty"`
	File       *frame.Published `json:"file,omitempty"`
	Key        string           `json:"key,omitempty"`
	By         string           `json:"by,omitempty"`
	Cancelling bool             `json:"cancelling"`
}

// viewOf returns a run as it is told.
func viewOf(r store.Run) RunView {
	return RunView{
		ID: r.ID, Job: r.Job, Name: r.Job, State: r.State,
		Queuing: r.State == store.Queued || r.State == store.Leased, Running: r.State == store.Running, Success: r.State == store.Succeeded,
		Attempt: r.Attempt, Spent: r.Spent, Attempts: r.Attempts, Runner: r.Runner, Engine: r.Engine,
		Created: r.Created, Due: r.Due, Started: r.Started, Ended: r.Ended,
		Exit: r.Exit, Outcome: r.Outcome, Why: r.Why, Args: r.Args, File: r.File, Key: shownKey(r.Key), By: r.By, Cancelling: r.Cancelling,
	}
}

// RunnerView is a connected runner as it is told. Working tells that it has a run.
type RunnerView struct {
	ID        string    `json:"id"`
	Working   bool      `json:"working"`
	Slots     int       `json:"slots"`
	Busy      int       `json:"busy"`
	Labels    []string  `json:"labels"`
	Engine    string    `json:"engine"`
	Version   string    `json:"version,omitempty"`
	Connected time.Time `json:"connected_at"`
	Runs      []int64   `json:"runs"`
	// Seed tells that it speaks the frames of old runners: see frame.BinaryReport.
	Seed bool `json:"seed"`
	// Draining tells that it takes no more runs.
	Draining bool `json:"draining,omitempty"`
}

// changedTopic is where an engine tells a Changed.
const changedTopic = "jobs.changed"

// Changed tells what is new, at most 10 times a second. A page that shows runs, and a node
// that has asked for something, learns it from that.
type Changed struct {
	V    int    `json:"v"` // 1
	Node string `json:"node"`
	// Runs are those that have changed, as they are now, without Args.
	Runs []RunView `json:"runs,omitempty"`
	// More tells that others have changed, too: ask for the list.
	More bool `json:"more,omitempty"`
	// Runners and Jobs tell that those of the node, or the definitions, have changed.
	Runners bool `json:"runners,omitempty"`
	Jobs    bool `json:"jobs,omitempty"`
}
