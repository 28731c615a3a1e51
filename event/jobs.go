package event

import "time"

// JobsLoaded tells that the file of jobs was read, at the start or after a change. Err is why it cannot be taken: the
// jobs before stay in force.
type JobsLoaded struct {
	Path string
	Jobs int // that are in force
	Err  error
}

// StateDatabase tells that the database of jobs does not answer, or answers again.
type StateDatabase struct{ Err error } // nil if it answers

// RunnerConnected tells that a runner is there.
type RunnerConnected struct {
	Runner, Version, Peer string
	Slots                 int
	Labels                []string
	// Kept is how many runs it has kept from an earlier connection.
	Kept int
	// Seed tells that it speaks the frames of old runners.
	Seed bool
}

// RunnerGone tells that a runner is not connected any more.
type RunnerGone struct {
	Runner string
	Why    string // empty if that is not known
	Held   int    // the runs that it has
}

// RunEnded tells that an attempt has ended, as its runner says.
type RunEnded struct {
	Run     int64
	Attempt int
	Job     string
	Runner  string
	// Outcome is "exited", "timed-out", "cancelled", "fault", "fenced" or "returned", and
	// State what the run is in by now.
	Outcome, State string
	Exit           int
	Why            string
	Took           time.Duration // from its start; 0 if that is not known
}

// RunLost tells that the runner of an attempt did not renew its lease.
type RunLost struct {
	Run         int64
	Attempt     int
	Job, Runner string
	State       string // that the run is in by now
}

func (JobsLoaded) event()      {}
func (StateDatabase) event()   {}
func (RunnerConnected) event() {}
func (RunnerGone) event()      {}
func (RunEnded) event()        {}
func (RunLost) event()         {}
