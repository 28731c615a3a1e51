// Package frame is the language between the engine of jobs and its runners, over a
// WebSocket at Path. With the subprotocol Protocol each message is a Frame, as JSON in a
// text message. Without a subprotocol the frames of old runners are spoken: see BinaryReport.
package frame

import (
	"encoding/json"
	"time"
)

const (
	// Path is where runners connect.
	Path = "/runner"
	// Protocol is the subprotocol of Frame.
	Protocol = "adp.runner.v1"
	// Version is the V of Hello.
	Version = 1
	// MaxFrame bounds a frame of the engine, in bytes.
	MaxFrame = 1 << 20
	// MaxRunnerFrame bounds a frame of a runner, in bytes.
	MaxRunnerFrame = 128 << 10
	// MaxLogPart bounds the Data of a frame, in bytes before base64.
	MaxLogPart = 64 << 10
	// MaxUnacknowledged bounds the log that a runner sends before the engine has
	// acknowledged it, in bytes before base64.
	MaxUnacknowledged = 1 << 20
	// MaxSlots bounds the attempts that a runner has at a time, and MaxAttempts those
	// that a frame names: a runner may have ended some that are not acknowledged yet.
	MaxSlots, MaxAttempts = 64, 1024
	// MaxWhy bounds Why, in bytes.
	MaxWhy = 4 << 10
	// OfferTimeout is how long a runner has to answer an offer.
	OfferTimeout = 10 * time.Second
)

// lease is Lease. Tests of whole processes link a shorter one:
// -ldflags "-X async-data-processor/jobs/frame.lease=3s".
var lease = "30s"

var (
	// Lease is how long an attempt belongs to its runner after the engine has renewed it.
	// The time is the database's.
	Lease = duration(lease)
	// Beat is how often a runner renews its attempts.
	Beat = Lease / 3
	// Fence is how long after the start of the last beat that was answered a runner ends
	// its processes: two thirds of Lease, so that two attempts never run at a time.
	Fence = Lease * 2 / 3
)

func duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(err) // it was linked
	}
	return d
}

// Definition is a job as it is defined.
type Definition struct {
	// Name is 1 to 64 letters, digits, '.', '_' and '-', as in a URL.
	Name string `json:"name"`
	// Image is run as a container with Command as its arguments; without one, Command is a
	// process of the runner's machine.
	Image   string   `json:"image,omitempty"`
	Command []string `json:"command,omitempty"`
	// On is Manual or File.
	On string `json:"on"`
	// Labels are what a runner must have, all of them.
	Labels []string `json:"labels,omitempty"`
	// Timeout bounds an attempt. Grace is the time between SIGTERM and SIGKILL.
	Timeout Seconds `json:"timeout_s"`
	Grace   Seconds `json:"grace_s"`
	// Concurrency is how many runs of the job may run at a time.
	Concurrency int `json:"concurrency"`
	// Attempts is how often a run is tried, and Backoff the pause after the first failure;
	// it doubles with each further one.
	Attempts int     `json:"attempts"`
	Backoff  Seconds `json:"backoff_s"`
	// Env is added to the environment. Secrets are names of variables of the runner, whose
	// values are passed on, and masked in the log.
	Env     map[string]string `json:"env,omitempty"`
	Secrets []string          `json:"secrets,omitempty"`
	// Keep is how many ended runs are remembered.
	Keep int `json:"keep"`
}

// What a Definition's runs begin on.
const (
	// Manual: a run begins when it is asked for.
	Manual = "manual"
	// File: a run begins for each published file.
	File = "file"
)

// Seconds is a duration that is a number of seconds in JSON.
type Seconds time.Duration

// MarshalJSON returns the number of seconds.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(s).Seconds())
}

// UnmarshalJSON reads a number of seconds.
func (s *Seconds) UnmarshalJSON(text []byte) error {
	var f float64
	if err := json.Unmarshal(text, &f); err != nil {
		return err
	}
	*s = Seconds(f * float64(time.Second))
	return nil
}

// The types of a Frame.
const (
	// Hello is the runner's first frame: V, Runner, Slots, Labels, Version, and in Attempts
	// what it still has of an earlier connection, each with Log, the bytes it has of the log.
	Hello = "hello"
	// Welcome answers it: Node, Definitions, and in Attempts what the runner keeps, each with
	// Log, from where on the log is missing. What it has and is not there is stale.
	Welcome = "welcome"
	// Definitions comes when they have changed.
	Definitions = "definitions"
	// Offer is an attempt for the runner: Run, Attempt, Job, Args, File. The engine takes it
	// back if it has no answer within OfferTimeout.
	Offer = "offer"
	// Take answers it: the runner wants to start the process. The engine notes that, and
	// answers with the same Take, or with Stale. Only then the process starts, and only if
	// less than Fence has passed since the runner sent its Take. So an offer can be taken
	// back at any moment, and never runs twice. If the connection breaks before the answer,
	// the runner does not start the process, and sends End with Returned on the next one.
	// Refuse answers an offer, too, with Why: the attempt is not spent.
	Take, Refuse = "take", "refuse"
	// Beat renews Attempts, every Beat, with a Seq. The engine answers with the same Seq and
	// those of them that are renewed. The others are stale.
	BeatFrame = "beat"
	// Log is output: Run, Attempt, Offset, Data; Cut is how many bytes behind Data were thrown
	// away. The engine answers with Log and the Offset up to which it has everything. An offset
	// counts the bytes that were thrown away, too.
	Log = "log"
	// End is the end of an attempt: Run, Attempt, Outcome, Exit, Why, and Offset, the length of
	// its log. The engine answers with End. The runner sends it again until then.
	End = "end"
	// Stale tells that an attempt is not the runner's any more. It ends its process, and
	// forgets the attempt.
	Stale = "stale"
	// Cancel tells the runner to end an attempt.
	Cancel = "cancel"
	// Drain tells the other end that it stops: a runner gets no more offers, an engine
	// is to be left for another one.
	Drain = "drain"
)

// Frame is one message. Which members it has depends on Type.
type Frame struct {
	Type string `json:"type"`

	V       int      `json:"v,omitempty"`
	Runner  string   `json:"runner,omitempty"`
	Version string   `json:"version,omitempty"`
	Slots   int      `json:"slots,omitempty"`
	Labels  []string `json:"labels,omitempty"`
	Node    string   `json:"node,omitempty"`

	Definitions []Definition `json:"definitions,omitempty"`
	Attempts    []Attempt    `json:"attempts,omitempty"`
	Seq         uint64       `json:"seq,omitempty"`

	Run     int64           `json:"run,omitempty"`
	Attempt int             `json:"attempt,omitempty"`
	Job     string          `json:"job,omitempty"`
	Args    json.RawMessage `json:"args,omitempty"`
	File    *Published      `json:"file,omitempty"`

	Offset int64  `json:"offset,omitempty"`
	Data   []byte `json:"data,omitempty"` // base64
	Cut    int64  `json:"cut,omitempty"`

	Outcome Outcome `json:"outcome,omitempty"`
	Exit    int     `json:"exit,omitempty"`
	Why     string  `json:"why,omitempty"`
}

// Attempt is an attempt to run a job. Its number is the fence: a later attempt of the run
// makes an earlier one stale.
type Attempt struct {
	Run     int64 `json:"run"`
	Attempt int   `json:"attempt"`
	Log     int64 `json:"log,omitempty"`
}

// Published is a published file.
type Published struct {
	// Name is relative to the output folder: shard-3/3-1_01J….ndjson.
	Name  string `json:"name"`
	Shard int    `json:"shard"`
	Lines int    `json:"lines"`
	Bytes int64  `json:"bytes"`
}

// Outcome is how an attempt ended.
type Outcome string

// Known tells whether it is one of those below.
func (o Outcome) Known() bool {
	switch o {
	case Exited, TimedOut, Cancelled, Fault, Fenced, Returned:
		return true
	}
	return false
}

// Outcomes.
const (
	// Exited: the process ended by itself, with Exit. 0 is a success; 75 (EX_TEMPFAIL of
	// sysexits.h) asks for another try that spends no attempt; 78 (EX_CONFIG) can never succeed.
	Exited Outcome = "exited"
	// TimedOut: it ran longer than Timeout.
	TimedOut Outcome = "timed-out"
	// Cancelled: the engine asked for its end.
	Cancelled Outcome = "cancelled"
	// Fault: it is the runner's fault, for example it has no such image. No attempt is spent.
	Fault Outcome = "fault"
	// Fenced: the runner could not renew its lease.
	Fenced Outcome = "fenced"
	// Returned: the runner stops, and gives the run back. No attempt is spent.
	Returned Outcome = "returned"
)
