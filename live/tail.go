package live

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Errors of a tail.
var (
	// ErrQuery is in the chain of the error of a Query that cannot be viewed.
	ErrQuery = errors.New("the tail cannot show that")
	// ErrTooManyViewers: the process has as many viewers as it may have.
	ErrTooManyViewers = errors.New("the process has as many viewers as it may have")
	// ErrTailEnded: the process drains.
	ErrTailEnded = errors.New("the process is stopping")
)

// Bounds of a tail.
const (
	// MaxViewers bounds the viewers of a process.
	MaxViewers = 64
	// MaxLast bounds Query.Last, and the entries that are kept for it.
	MaxLast = 1000
	// MaxRate bounds Query.Rate, in messages a second.
	MaxRate = 100_000
	// MaxLimit bounds Query.Limit.
	MaxLimit = 1_000_000_000
	// MaxContains and MaxWhere bound a filter, in bytes and in number; MaxWhereBytes
	// bounds the pointer and the value of a Where together.
	MaxContains   = 1024
	MaxWhere      = 8
	MaxWhereBytes = 1024
	// MaxQueryShards bounds Query.Shards.
	MaxQueryShards = 1024
	// MaxTailEntry is how many bytes of an entry travel, and HeadBytes with PayloadHead.
	MaxTailEntry = 8 << 10
	HeadBytes    = 256
	// DefaultRate is the rate of a viewer that asks for none.
	DefaultRate = 1000
)

// Stage is where messages are when a tail shows them.
type Stage string

const (
	// StageWritten: the message is durable in a file.
	StageWritten Stage = "written"
	// StageDead: the message is a dead letter.
	StageDead Stage = "dead"
	// StageAccepted: the broker has confirmed the message.
	StageAccepted Stage = "accepted"
)

// Payload is how much of an entry a viewer gets.
type Payload string

const (
	// PayloadFull: at most MaxTailEntry bytes.
	PayloadFull Payload = "full"
	// PayloadHead: at most HeadBytes bytes.
	PayloadHead Payload = "head"
	// PayloadNone: nothing.
	PayloadNone Payload = "none"
)

// Where has an entry match if the value at Pointer (RFC 6901) is Value. A string is
// compared without its quotes and escapes, any other scalar by its text in the entry: 42
// does not match 42.0. An object or an array never matches.
type Where struct {
	Pointer string `json:"pointer"`
	Value   string `json:"value"`
}

// parseWhere reads "/user/id=42". The first "=" ends the pointer.
func parseWhere(s string) (Where, error) {
	pointer, value, ok := strings.Cut(s, "=")
	if !ok {
		return Where{}, fmt.Errorf("%w: where: want a JSON pointer, =, and a value, such as /user/id=42", ErrQuery)
	}
	return Where{Pointer: pointer, Value: value}, nil
}

// Query is what a viewer wants to see. A message has to match all of the filter: Stage,
// Shards, Submission, Contains and every Where.
type Query struct {
	Stage Stage // default StageWritten
	// Shards are those to see; empty for all.
	Shards []int
	// Submission is the id of the submission to see; empty for all.
	Submission string
	// Contains is what the entry's line has to contain, byte for byte; empty for all. The
	// line is that of the file, with what LIVE_REDACT names masked.
	Contains string
	Where    []Where
	Payload  Payload // default PayloadFull
	// Last is how many earlier messages are shown first, 0 to MaxLast.
	Last int
	// Rate is how many messages are shown a second at most, 0 for all; those beyond are
	// sampled out. It must be set: DefaultRate is no default of View.
	Rate int
	// Limit ends the view after so many messages; 0 for never.
	Limit int
	// After is the ID of the last frame that was seen, to go on strictly after it; empty
	// to begin. While its epoch is known, Last has no effect.
	After string
}

// Kind names a frame.
type Kind string

// Kinds of frames, and their Data.
const (
	KindHello   Kind = "hello"   // Hello: the first
	KindMessage Kind = "message" // Message
	KindGap     Kind = "gap"     // Gap: messages that match are not shown
	KindSample  Kind = "sample"  // Counts: while Rate bites, once a second at most
	KindStats   Kind = "stats"   // Counts: every 5 s
	KindReset   Kind = "reset"   // Reset: After was not found; what is shown begins anew
	KindBye     Kind = "bye"     // Bye: the last
)

// Frame is what a viewer sees next.
type Frame struct {
	Kind Kind
	// ID is "<epoch>-<seq>" where the view may be resumed after this frame.
	ID   string
	Data any // Hello, Message, Gap, Counts, Reset or Bye
}

// Hello is the first frame.
type Hello struct {
	Node   string `json:"node"`
	Epoch  string `json:"epoch"`
	Seq    uint64 `json:"seq"`
	Limits Limits `json:"limits"`
	Filter Filter `json:"filter"`
}

// Limits are those of a viewer.
type Limits struct {
	Events     int `json:"events"`      // that wait for it
	Bytes      int `json:"bytes"`       // that wait for it
	EntryBytes int `json:"entry_bytes"` // of an entry
	Rate       int `json:"rate"`        // messages a second, 0 for all
}

// Filter is what of a Query chooses messages, and what of them is shown.
type Filter struct {
	Stage      Stage   `json:"stage"`
	Shards     []int   `json:"shards,omitempty"` // ascending
	Submission string  `json:"submission,omitempty"`
	Contains   string  `json:"contains,omitempty"`
	Where      []Where `json:"where,omitempty"`
	Payload    Payload `json:"payload"`
}

// Message is a message that matches.
type Message struct {
	ID     string `json:"id"`
	Shard  int    `json:"shard"`
	Worker string `json:"worker,omitempty"` // that wrote it
	File   string `json:"file,omitempty"`   // has the message, or one of its batch
	// At is when it came to the stage, on the clock of the node that knows; Reason why it
	// is a dead letter.
	At     time.Time `json:"at"`
	Reason string    `json:"reason,omitempty"`
	// Truncated tells that Entry is a string: the beginning of the line.
	Truncated bool `json:"truncated,omitempty"`
	// Entry is the line as JSON, redacted; absent with PayloadNone.
	Entry json.RawMessage `json:"entry,omitempty"`
	// Replayed tells that the message is one of Query.Last.
	Replayed bool `json:"replayed,omitempty"`
}

// Why messages are missed.
const (
	WhySlow = "slow" // the viewer took them too slowly
	WhyRing = "ring" // the view was resumed too late
	WhyNode = "node" // the node that has them could not tell them, or was not heard
)

// Gap tells of messages that match, or may match, and are not shown.
type Gap struct {
	Missed uint64 `json:"missed"`
	Why    string `json:"why"`
	// AtLeast tells that there may be more: a node was not heard for so long that it has
	// forgotten the view, or it has gone without a last word.
	AtLeast bool `json:"at_least,omitempty"`
}

// Counts are those of a view since its hello. Matched = Sent + Missed + what was sampled
// out; Seen are the messages that the filter was asked about.
type Counts struct {
	Seen    uint64 `json:"seen"`
	Matched uint64 `json:"matched"`
	Sent    uint64 `json:"sent"`
	Missed  uint64 `json:"missed"`
	Sampled uint64 `json:"sampled"`
}

// Reset tells that the view does not go on where After has ended.
type Reset struct {
	Why string `json:"why"` // "epoch" or "filter"
}

// Why a view ends.
const (
	ByeLimit = "limit"
	ByeDrain = "drain"
)

// Bye is the last frame. RetryMS is when to come again, in milliseconds; 0 for never.
type Bye struct {
	Why     string `json:"why"`
	RetryMS int    `json:"retry_ms"`
}

// compile is the query's filter with its defaults, or why it cannot be viewed; ErrQuery is
// in the error's chain then.
func (q Query) compile() (*filter, error) {
	for _, bound := range []struct {
		name       string
		value, max int
	}{{"last", q.Last, MaxLast}, {"rate", q.Rate, MaxRate}, {"limit", q.Limit, MaxLimit}} {
		if bound.value < 0 || bound.value > bound.max {
			return nil, fmt.Errorf("%w: %s is %d, want 0 to %d", ErrQuery, bound.name, bound.value, bound.max)
		}
	}
	return Filter{
		Stage: q.Stage, Shards: q.Shards, Submission: q.Submission, Contains: q.Contains, Where: q.Where, Payload: q.Payload,
	}.compile()
}

// placeOf is the ID of a frame.
func placeOf(epoch string, seq uint64) string { return epoch + "-" + strconv.FormatUint(seq, 10) }

// parsePlace reads one; false if it is none.
func parsePlace(id string) (epoch string, seq uint64, ok bool) {
	epoch, digits, _ := strings.Cut(id, "-")
	seq, err := strconv.ParseUint(digits, 10, 53)
	return epoch, seq, err == nil && placeOf(epoch, seq) == id
}
