// Package message says what flows through the pipeline: submissions of
// messages on the way in, envelopes through the broker, deliveries and batches
// on the way out. It also owns the strict decoding of what clients send and
// the line format of the output files, so both have one definition.
//
// It is a leaf: it imports no other package of this module and never logs.
package message

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// Limits of one submission. They are part of the HTTP contract.
const (
	// MaxEntries is the most entries one submission may hold.
	MaxEntries = 10_000
	// MaxEntryBytes is the longest entry, in bytes as sent.
	MaxEntryBytes = 256 << 10
	// MaxDepth is how deep an entry may nest; the entry itself is depth 1.
	MaxDepth = 32
	// MaxReported is how many errors of one body are reported.
	MaxReported = 100
)

// linePrefix opens every line; the id follows it and never holds an escape.
const linePrefix = `{"message_id":"`

// Message is one entry, once validated.
type Message struct {
	// Line is the message in the format of the output files, without the
	// final newline: the entry as sent, insignificant white space removed,
	// with message_id put first.
	Line []byte
	// Time is the instant of the entry's timestamp, in UTC. It is zero after
	// the broker, where the message already has its shard.
	Time time.Time
}

// ID is the message's id, "<submission id>.<index>" unless another program
// published it.
func (m Message) ID() string { return string(m.RawID()) }

// RawID is ID without a copy: it refers to Line. It is empty if the line does
// not start as one of ours.
func (m Message) RawID() []byte {
	rest, ok := bytes.CutPrefix(m.Line, []byte(linePrefix))
	end := bytes.IndexByte(rest, '"')
	if !ok || end < 0 {
		return nil
	}
	return rest[:end]
}

// Submission is one accepted body: its id, and its messages in the order sent.
type Submission struct {
	ID       string
	Messages []Message

	memory *memory // nil if it is not to be used again
}

// Number puts the number of messages into the submission's id, and so into those of
// its messages (see CountOf). The id must be a ULID. It is called once, before the
// submission is published.
func (s *Submission) Number() {
	s.ID = WithCount(s.ID, len(s.Messages))
	for _, m := range s.Messages {
		copy(m.Line[len(linePrefix):], s.ID)
	}
}

// ShardCount is how many messages of a submission go to a shard.
type ShardCount struct{ Shard, Messages int }

// InvalidError lists what is wrong with the entries of a body.
type InvalidError struct {
	// Entries holds the first MaxReported errors in the order of the body.
	Entries []EntryError
}

// EntryError is one thing wrong with a body.
type EntryError struct {
	// Index is the entry's place in the array, or -1 for the body as a whole.
	Index int `json:"index"`
	// Pointer is a JSON pointer (RFC 6901) into the body; for NDJSON its first
	// token counts the lines that hold an entry. Empty for the whole body.
	Pointer string `json:"pointer"`
	// Detail says what is wrong, never quoting the client's data at length.
	Detail string `json:"detail"`
}

func (e *InvalidError) Error() string {
	first := e.Entries[0]
	text := first.Detail
	if first.Index >= 0 {
		text = first.Pointer + ": " + text
	}
	if more := len(e.Entries) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text
}

// ErrNotPublished is in the chain of the error of a submission if certainly
// nothing was published.
var ErrNotPublished = errors.New("nothing was published")

// ErrNoRoom is ErrNotPublished because nothing would write the files now: their disk
// is full, their folder is gone, or another process owns it.
var ErrNoRoom = fmt.Errorf("%w: the output takes nothing new now", ErrNotPublished)

// ErrTooLarge is in the chain of every error about a limit of this package.
var ErrTooLarge = errors.New("too large")

// ErrEntryTooLarge is ErrTooLarge because of one entry. No split of the body helps.
var ErrEntryTooLarge = fmt.Errorf("%w for one entry", ErrTooLarge)
