package jobs

import (
	"time"

	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
)

// Head begins each answer that is an object.
type Head struct {
	AsOf time.Time `json:"as_of"`
	Node string    `json:"node"`
	// Complete tells that every engine has answered that is known.
	Complete bool `json:"complete"`
}

// RunDetail is a run with its history.
type RunDetail struct {
	RunView
	// History has the last attempts, the oldest first.
	History []AttemptView `json:"history"`
}

// AttemptView is an attempt of a run as clients see it.
type AttemptView struct {
	Attempt   int           `json:"attempt"`
	Runner    string        `json:"runner,omitempty"`
	Engine    string        `json:"engine,omitempty"`
	Outcome   frame.Outcome `json:"outcome,omitempty"` // left out while it goes on
	Exit      *int          `json:"exit,omitempty"`
	Why       string        `json:"why,omitempty"`
	Spent     bool          `json:"spent"`
	LeasedAt  time.Time     `json:"leased_at,omitzero"`
	StartedAt time.Time     `json:"started_at,omitzero"`
	EndedAt   time.Time     `json:"ended_at,omitzero"`
	// Log is the length of its log in bytes, of which Cut were thrown away. Whole tells that
	// nothing else of it is missing.
	Log   int64 `json:"log"`
	Cut   int64 `json:"cut"`
	Whole bool  `json:"whole"`
}

// Bounds of what clients see.
const (
	// maxListedArgs bounds the Args of a run in a list, in bytes.
	maxListedArgs = 512
	// maxHistory is how many attempts of a run are shown.
	maxHistory = 100
)

func historyOf(attempts []store.Attempt) []AttemptView {
	attempts = attempts[max(0, len(attempts)-maxHistory):]
	views := make([]AttemptView, len(attempts))
	for i, a := range attempts {
		views[i] = AttemptView{
			Attempt: a.Number, Runner: a.Runner, Engine: a.Engine, Outcome: a.Outcome, Exit: a.Exit, Why: a.Why, Spent: a.Spent,
			LeasedAt: a.Leased, StartedAt: a.Started, EndedAt: a.Ended, Log: a.Log, Cut: a.Cut, Whole: a.LogWhole,
		}
	}
	return views
}

// JobView is a job as clients see it: its definition without the values of Env, which may
// be no one else's business.
type JobView struct {
	Name        string        `json:"name"`
	On          string        `json:"on"`
	Image       string        `json:"image,omitempty"`
	Command     []string      `json:"command"`
	Labels      []string      `json:"labels"`
	Timeout     frame.Seconds `json:"timeout_s"`
	Grace       frame.Seconds `json:"grace_s"`
	Concurrency int           `json:"concurrency"`
	Attempts    int           `json:"attempts"`
	Backoff     frame.Seconds `json:"backoff_s"`
	Env         []string      `json:"env"`
	Secrets     []string      `json:"secrets"`
	Keep        int           `json:"keep"`
	// Counts has how many runs there are in each state that has some.
	Counts map[store.State]int `json:"counts"`
	// Last is its newest run.
	Last *RunView `json:"last,omitempty"`
}

// JobsPage is a page of the list of jobs.
type JobsPage struct {
	Head
	Jobs []JobView `json:"jobs"`
	// Next is the name after which there are others; empty if there are none.
	Next string `json:"next,omitempty"`
}

// RunsPage is a page of the list of runs, the newest first.
type RunsPage struct {
	Head
	Runs []RunView `json:"runs"`
	// Next is the id before which there are others; empty if there are none.
	Next string `json:"next,omitempty"`
}

// RunnersPage lists the runners that are connected.
type RunnersPage struct {
	Head
	Runners []RunnerView `json:"runners"`
}
