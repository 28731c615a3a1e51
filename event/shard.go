package event

import "time"

// ShardState is where a shard is in this process.
type ShardState string

const (
	// ShardOpening: its folder is being taken.
	ShardOpening ShardState = "opening"
	// ShardStandby: another process owns its folder; this one waits for it.
	ShardStandby ShardState = "standby"
	// ShardRunning: its messages are consumed and written.
	ShardRunning ShardState = "running"
	// ShardPaused: its folder is owned, and nothing of it is consumed until it is resumed.
	ShardPaused ShardState = "paused"
	// ShardRetrying: its folder could not be taken; nothing of it is consumed.
	ShardRetrying ShardState = "retrying"
	// ShardReturning: what could not be written goes back to the broker, and its
	// folder is taken anew.
	ShardReturning ShardState = "returning"
	// ShardStopped: this process has nothing of it.
	ShardStopped ShardState = "stopped"
)

// ShardChanged tells that a shard has another state, or another error in it.
type ShardChanged struct {
	Shard int
	State ShardState
	Err   error         // why, for ShardRetrying, ShardReturning and the ShardOpening after that
	Retry time.Duration // how long the next attempt waits, for ShardRetrying
}

// ShardOpened tells that a shard's folder was taken, and what was found there.
type ShardOpened struct {
	Shard int
	// RemovedTemps is how many temporary files of an earlier owner were removed.
	RemovedTemps int
	// IDs is how many ids of written messages were read back, from Files files. Beforehand
	// is how many of these were read while another process owned the folder.
	IDs, Files, Beforehand int
	// Damaged and Foreign count files that could not be read for their ids;
	// Example is one of them.
	Damaged, Foreign int
	Example          string
	// Recovered is how many files of an earlier owner were published, and CutBytes
	// the length of the torn lines cut off from them.
	Recovered int
	CutBytes  int64
	Took      time.Duration
}

// ShardsOpened tells, once, that no shard is being opened any more for the first time.
type ShardsOpened struct {
	Shards int // that the process should own
	// Owned and Standby are how many of them run, and how many have another owner.
	Owned, Standby int
	Took           time.Duration
}

// ShardIsPaused tells that a shard is paused, at once and every 10 minutes.
type ShardIsPaused struct {
	Shard        int
	Since, Until time.Time // Until is zero if it does not end by itself
	Reason, By   string
	// Damaged is why the control file of its folder could not be understood, nil if a
	// command paused it.
	Damaged error
}

// ShardCommand tells of a command to a shard, before it is acted on and when it is done.
type ShardCommand struct {
	Shard         int
	ID, Verb      string
	By, Reason    string
	Before, After string // "running, 3 to 4 workers"
	Repeated      bool   // it was applied before
	Done          bool
	Err           error // once it is done
}

// CommandTaken tells that a client has sent a command to this process, which is about
// to pass it on to the owners.
type CommandTaken struct {
	ID, Verb, Target string
	By, From         string // the name of its token, and its address
	Reason           string
}

// CommandNotAudited tells that a command is not in the audit of the state database. The log
// has it.
type CommandNotAudited struct {
	ID  string
	Err error
}

// FileOverdue tells that the shard's open file is due and cannot be published.
type FileOverdue struct {
	Shard int
	Err   error
	// Durable tells that there is such a file, and what is in it is durable. Else
	// it could not be found out whether one is due.
	Durable bool
	// Damaged tells that another program has removed or changed the file, and
	// acknowledged entries are missing in it.
	Damaged bool
}

// FileRescued tells that another program had removed or replaced the shard's open file,
// and that its acknowledged entries were written anew.
type FileRescued struct {
	Shard int
	File  string // the name that was lost
	Bytes int64
}

// LeftFile tells what became of the file that a crash has left in the folder of a
// shard beyond the number of shards.
type LeftFile struct {
	Shard int
	Err   error // nil if it is published
}

// ExtraShardFound tells of a queue beyond the number of shards.
type ExtraShardFound struct {
	Shard     int
	Envelopes int  // that wait in it
	AtStart   bool // else another process has a larger number of shards
}

// ExtraShardDrained tells that a queue beyond the number of shards is empty.
type ExtraShardDrained struct{ Shard int }

// LookFailed tells that something of shards beyond the number of shards could not
// be looked for; it is tried again.
type LookFailed struct {
	What string // "queues" or "files"
	Err  error
}

// EnvelopeUndecodable tells of an envelope, or a line of one, that can never be
// written. It becomes a dead letter.
type EnvelopeUndecodable struct {
	Shard    int
	Envelope string // its id
	Err      error
}

// Redelivered tells that an envelope was received that had been handed out before.
type Redelivered struct{ Shard int }

// OutputChanged tells that the output takes nothing new, or takes it again.
type OutputChanged struct {
	Dir string
	Err error // nil if it takes it again
	// Low tells that its disk runs low, or has run low until now. Else the folder cannot
	// be used.
	Low bool
}

func (ShardChanged) event()        {}
func (ShardOpened) event()         {}
func (ShardsOpened) event()        {}
func (ShardIsPaused) event()       {}
func (CommandTaken) event()        {}
func (CommandNotAudited) event()   {}
func (ShardCommand) event()        {}
func (FileOverdue) event()         {}
func (FileRescued) event()         {}
func (LeftFile) event()            {}
func (ExtraShardFound) event()     {}
func (ExtraShardDrained) event()   {}
func (LookFailed) event()          {}
func (EnvelopeUndecodable) event() {}
func (Redelivered) event()         {}
func (OutputChanged) event()       {}
