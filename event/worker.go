package event

import "time"

// State is where a worker is in its life.
type State string

const (
	// Idle: waits for a batch.
	Idle State = "idle"
	// Busy: writes a batch.
	Busy State = "busy"
	// Holding: keeps its batch because the output cannot take it; tries again.
	Holding State = "holding"
	// TimedOut: exceeded the worker timeout and no longer counts as a worker of the pool.
	TimedOut State = "timed out"
	// Stopped: its goroutine has ended.
	Stopped State = "stopped"
)

// Worker is the record of one worker: a line of the history.
type Worker struct {
	// ID is "<shard>-<seq>"; seq starts at 1 and is never reused in a process.
	ID    string
	Shard int
	State State
	// Started and Stopped are wall-clock times; Stopped is zero while it lives.
	Started, Stopped time.Time
	// WhyStarted and WhyStopped are reasons a person can read.
	WhyStarted, WhyStopped string
	// Messages and Batches count what it wrote durably.
	Messages, Batches int64
	// Duplicates counts the messages that it did not write, because they were
	// in a file already.
	Duplicates int64
	// Dead counts the messages that made it panic, each taken alone, as often as
	// that was found.
	Dead int64
	// LastFile is the file it wrote to last, relative to the output folder; one
	// that batches are appended to has that name once it is published.
	LastFile string
}

// WorkerStarted tells that a pool has one worker more.
type WorkerStarted struct{ Worker Worker }

// WorkerStopped tells that a worker has ended; the record is final.
type WorkerStopped struct{ Worker Worker }

// WorkerTimedOut tells that a batch took longer than the worker timeout.
type WorkerTimedOut struct {
	Worker Worker
	// Returned tells that the batch went back to the broker; otherwise the
	// worker was already publishing it and will finish.
	Returned bool
}

// WorkerPanicked tells that writing a batch panicked, once per batch. The worker
// isolates the messages that do it, writes the others, and ends.
type WorkerPanicked struct {
	Worker Worker
	Value  any
	Stack  []byte
}

// MessageDied tells that writing a message panicked, the message alone: it is to
// be a dead letter.
type MessageDied struct {
	Worker Worker
	// ID is the message's.
	ID string
	// Err says why, and also why the broker could not be told, if it could not.
	Err error
}

// BatchWritten tells that a batch, or several that waited together, is durable
// and its deliveries resolved.
type BatchWritten struct {
	Worker Worker
	// Batches is how many it counts for, 0 if it held nothing but duplicates.
	Batches int
	// Messages counts those that were written, Duplicates the batch's others,
	// which were in a file already.
	Messages, Duplicates int
	// Cause is why the batch was handed over: full, lingered or flushed.
	Cause string
	// File is one that it is in, empty if it held nothing but duplicates.
	File string
	Took time.Duration
}

// BatchHeld tells that the output could not take a batch; the worker keeps it
// and tries again after Retry.
type BatchHeld struct {
	Worker  Worker
	Attempt int
	Err     error
	Retry   time.Duration
}

// BatchReturned tells that a batch went back to the broker unwritten.
type BatchReturned struct {
	Worker   Worker
	Messages int
	Err      error
}

// SettleFailed tells that messages are durable but the broker could not be
// told; it will deliver them again.
type SettleFailed struct {
	Worker Worker
	Err    error
}

func (WorkerStarted) event()  {}
func (WorkerStopped) event()  {}
func (WorkerTimedOut) event() {}
func (WorkerPanicked) event() {}
func (MessageDied) event()    {}
func (BatchWritten) event()   {}
func (BatchHeld) event()      {}
func (BatchReturned) event()  {}
func (SettleFailed) event()   {}
