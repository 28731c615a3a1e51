package store

import (
	"encoding/json"
	"errors"
	"time"

	"async-data-processor/jobs/frame"
)

// State is where a run is.
//
//	queued ─▶ leased ─▶ running ─▶ succeeded | cancelled | timed-out | dead
//	   ▲         └─────────┴── failed or lost, and attempts are left ──┐
//	   └────────────────────────────────────────────────────────────────┘
type State string

// States. The last four are ends.
const (
	Queued    State = "queued"
	Leased    State = "leased"
	Running   State = "running"
	Succeeded State = "succeeded"
	Cancelled State = "cancelled"
	TimedOut  State = "timed-out"
	Dead      State = "dead" // it failed or was lost as often as it may
)

// Ended tells whether nothing more happens to a run in that state, unless it is retried.
func (s State) Ended() bool {
	return s == Succeeded || s == Cancelled || s == TimedOut || s == Dead
}

// Errors.
var (
	// ErrNotFound: there is no such run.
	ErrNotFound = errors.New("there is no such run")
	// ErrState: the run is in a state that does not allow it.
	ErrState = errors.New("the state of the run does not allow that")
	// ErrConflict: the key was used for a run with other arguments.
	ErrConflict = errors.New("the key was used for a run with other arguments")
	// ErrInvalid: the input is beyond its bounds. Nothing was written.
	ErrInvalid = errors.New("invalid")
	// ErrNewer: the database belongs to a newer version of the program.
	ErrNewer = errors.New("the state database belongs to a newer version of this program")
	// ErrForeign: the database is not one of this program, or not whole.
	ErrForeign = errors.New("it is not a whole state database of this program, restore it or name another one")
)

// Run is a run of a job. Times are the database's, UTC, in milliseconds; zero is unknown.
type Run struct {
	// ID counts from 1 and is never used again.
	ID  int64
	Job string
	// Key is what makes its creation idempotent within the job; empty for none.
	Key  string
	Args json.RawMessage
	File *frame.Published
	// By is who asked for it.
	By string

	State State
	// Attempt is the number of the last attempt, 0 before the first. It is the fence.
	Attempt int
	// Spent is how many attempts count, of Attempts.
	Spent, Attempts int
	Backoff         time.Duration
	// Runner has the attempt; Engine is the node that it is, or was, connected to.
	Runner, Engine string
	// Outcome is how the last attempt ended: an Outcome of frame, or Lost; Exit its exit code if it has one.
	Outcome frame.Outcome
	Exit    *int
	// Why says in a sentence why it is where it is; empty if there is nothing to say.
	Why string
	// Cancelling: its end was asked for.
	Cancelling bool

	Created, Due, Leased, Started, Ended, LeaseUntil time.Time

	base int // the last attempt before the last retry by hand
}

// Lost is the Outcome of an attempt whose lease was not renewed.
const Lost frame.Outcome = "lost"

// New is a run to be created.
type New struct {
	Job, Key, By string
	Args         json.RawMessage
	File         *frame.Published
	Attempts     int
	Backoff      time.Duration
}

// Fence names an attempt.
type Fence struct {
	Run     int64
	Attempt int
}

// Claim is what a runner can take.
type Claim struct {
	Runner, Engine string
	// Jobs are those that it may run, each with how many of its runs may run at a time.
	Jobs map[string]int
	// Max is how many runs it takes at most.
	Max int
}

// End is how an attempt ended.
type End struct {
	Outcome frame.Outcome
	Exit    int
	Why     string
	// Log is the length of its log as the runner has it; 0 if it sends none.
	Log int64
}

// Attempt is a past or present attempt of a run.
type Attempt struct {
	Number         int
	Runner, Engine string
	Outcome        frame.Outcome // empty while it goes on
	Exit           *int
	Why            string
	// Spent tells whether it counts.
	Spent                  bool
	Leased, Started, Ended time.Time
	// Log is the length of its log, and Cut how many bytes of it were thrown away.
	Log, Cut int64
	// LogWhole tells that the log is complete, but for what was thrown away.
	LogWhole bool
}

// Filter chooses runs.
type Filter struct {
	Job   string // empty for all
	State State  // empty for all
	// Before is the id of a run: those that were created before it; 0 for the newest.
	Before int64
	// Limit is 1 to MaxList.
	Limit int
}

// MaxList bounds a list of runs.
const MaxList = 1000

// Counts is how many runs of a job there are in each state.
type Counts map[string]map[State]int

// LogPart is a part of a log.
type LogPart struct {
	// Offset is where Data begins: the one that was asked for, or behind what was thrown away.
	Offset int64
	Data   []byte
	// Cut is how many bytes before Data were thrown away.
	Cut int64
	// Length is that of the log by now.
	Length int64
	// Ended tells that the attempt has ended. Whole tells that all of its log is stored, too:
	// no more comes. A lost attempt is whole only if its runner has told its end later.
	Ended, Whole bool
}

// File is a published file whose runs are not created yet.
type File struct {
	frame.Published
	// At is when it was recorded.
	At time.Time
}

// Recorded is what a shard has published, and how far that is known to be all.
type Recorded struct {
	Shard int
	// Cursor is the Position below which, and at which, every file is recorded; empty if it
	// does not move.
	Cursor string
	Files  []frame.Published
}

// Audited is a command that was asked for.
type Audited struct {
	// ID is unique, as a ULID is. Who asked From where for What, and Why. Outcome is empty
	// until the command has ended.
	ID, Who, From, What, Why, Outcome string
	At                                time.Time
}
