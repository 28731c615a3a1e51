// Package live tells those who wait what becomes of a submission: which of its messages
// are in files. It shows viewers the messages that pass, and finds out where a message is.
// The owners of shards know all that, and tell it on the bus to the nodes that ask. Nothing
// of it is durable, nothing is needed for the work with messages, and no message waits for
// it.
package live

import (
	"errors"
	"time"
)

// Errors of a receipt.
var (
	// ErrNoID: the text is no id of a submission.
	ErrNoID = errors.New("this is no id of a submission")
	// ErrNotKnown: no owner has written one of its messages, none of them is a dead
	// letter, and no server remembers that it has accepted it.
	ErrNotKnown = errors.New("this submission is not known, or not known yet")
	// ErrForgotten: it is older than what is remembered.
	ErrForgotten = errors.New("this submission is older than what is remembered")
	// ErrTooMany: as many submissions are watched as may be.
	ErrTooMany = errors.New("too many submissions are watched")
)

// State is what a receipt says in a word.
type State string

// States of a receipt.
const (
	// Queued: no message is written or dead.
	Queued State = "queued"
	// Writing: some are written or dead.
	Writing State = "writing"
	// Written: all are written.
	Written State = "written"
	// DeadLetters: all are written or dead, and some are dead.
	DeadLetters State = "dead-letters"
	// Unknown: nothing is known of it, and some owners of shards do not answer.
	Unknown State = "unknown"
)

// Receipt is what became of the messages of a submission.
type Receipt struct {
	ID string `json:"id"`
	// Accepted is how many messages it has. Written are durable in a file, Dead are dead
	// letters and not written, Pending are the others.
	Accepted int `json:"accepted"`
	Written  int `json:"written"`
	Dead     int `json:"dead"`
	Pending  int `json:"pending"`
	// Done tells that none is pending. It never becomes false again, unless dead letters
	// are replayed.
	Done  bool  `json:"done"`
	State State `json:"state"`
	// Shards are those that have written or dead messages.
	Shards map[int]ShardReceipt `json:"shards"`
	// Unknown are the shards whose owner was silent for a second. It is empty if all is
	// written.
	Unknown []int `json:"unknown,omitempty"`
	// Paused are the shards that may have pending messages, and are paused.
	Paused []PausedShards `json:"paused,omitempty"`
	// AcceptedAt is absent if it is not known: an id made of an Idempotency-Key has no
	// time. DoneAt is when the last message was written or found dead, absent until then.
	AcceptedAt time.Time `json:"accepted_at,omitzero"`
	DoneAt     time.Time `json:"done_at,omitzero"`
	AsOf       time.Time `json:"as_of"`
	// RememberedUntil is when the first of its written messages may be forgotten, unless
	// many others are written before. It is absent until one is written.
	RememberedUntil time.Time `json:"remembered_until,omitzero"`
	// Indexes tells which messages are not written; nil if that is not shown.
	Indexes *Indexes `json:"indexes,omitempty"`
}

// ShardReceipt counts the messages of a shard.
type ShardReceipt struct {
	Written int `json:"written"`
	Dead    int `json:"dead"`
}

// Indexes tells which messages of a submission are not written, as ranges: "0-3,7".
type Indexes struct {
	Pending string        `json:"pending,omitempty"`
	Dead    []DeadIndexes `json:"dead,omitempty"`
}

// DeadIndexes are dead letters with one reason.
type DeadIndexes struct {
	Indexes string `json:"indexes"`
	Reason  string `json:"reason"`
}
