package event

import "time"

// Connection is a change of a connection to the broker.
type Connection struct {
	State ConnectionState
	// Role is the connection's part: "publish", "consume" or "bus".
	Role string
	// Shard is the shard concerned, or -1 if it is all of them.
	Shard int
	// Err is the cause, credentials redacted; nil where there is none.
	Err error
	// Retry is how long the next attempt waits; 0 if there is none to wait for.
	Retry time.Duration
}

// ConnectionState is what became of a connection.
type ConnectionState string

const (
	// Connected: the connection is up, and its queues are declared.
	Connected ConnectionState = "connected"
	// Unreachable: the connection could not be made, and there was none before.
	Unreachable ConnectionState = "unreachable"
	// Lost: a connection that was up has failed, or could not be made again.
	Lost ConnectionState = "lost"
	// Blocked: the broker refuses publishes for now; Err says why.
	Blocked ConnectionState = "blocked"
	// Unblocked: the broker takes publishes again.
	Unblocked ConnectionState = "unblocked"
	// Cancelled: the broker cancelled a shard's consumer, which subscribes again.
	Cancelled ConnectionState = "cancelled"
	// Unsubscribed: a shard cannot be consumed, though the connection is up.
	Unsubscribed ConnectionState = "unsubscribed"
	// Denied: the connection is up, and the user may not do with it what it is for. It
	// is told of the bus only, once for each connection.
	Denied ConnectionState = "denied"
)

// DeadLettered tells that an envelope, or a message of one, went to the
// dead-letter queue.
type DeadLettered struct {
	Shard    int
	Envelope string // its id, empty if it is not known
	Err      error  // why
}

// DeadLetterFailed tells that the dead-letter queue did not take an envelope.
type DeadLetterFailed struct {
	Shard    int
	Envelope string // its id, empty if it is not known
	Err      error
	// Retry is how long the next attempt waits; 0 if the envelope is delivered
	// again instead.
	Retry time.Duration
}

// DeadLettersChange tells what a client wants of dead letters, before anything is done.
type DeadLettersChange struct {
	Do     string // "replay", "edit", "purge" or "cancel"
	Task   string // the id of a task, empty if it is about one letter
	Key    string // that of the letter; empty for a task
	IDs    []string
	Filter string // of a task
	AsOf   time.Time
	Rate   int
	// Letters is how many it is about, -1 if that is not known.
	Letters  int
	By, From string // the name of its token, and its address
	Reason   string
}

// DeadLettersTaskEnded tells that a task with dead letters has ended.
type DeadLettersTaskEnded struct {
	Task, Do, State string
	Letters, Failed int   // that it has handled, and that it could not
	Err             error // why it ended early
}

// StoreCreated tells that there was no store of an embedded broker in Dir, so that it
// made an empty one.
type StoreCreated struct{ Dir string }

// QueueLost tells that a queue, or a stream, was deleted under way, with all that was
// in it. It is made again.
type QueueLost struct{ Name string }

// PoliciesUnknown tells that the broker could not be asked for its policies; it is
// asked again.
type PoliciesUnknown struct{ Err error }

// StoreChecked tells how far the check of an embedded broker's store is, when it
// takes long.
type StoreChecked struct {
	Dir         string
	Done, Total int64 // envelopes
}

func (Connection) event()           {}
func (DeadLettered) event()         {}
func (DeadLetterFailed) event()     {}
func (DeadLettersChange) event()    {}
func (DeadLettersTaskEnded) event() {}
func (StoreCreated) event()         {}
func (StoreChecked) event()         {}
func (QueueLost) event()            {}
func (PoliciesUnknown) event()      {}
