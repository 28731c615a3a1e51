// Package client is the other end of a server's socket: it sends entries to
// GET /message, upgraded to a WebSocket of the subprotocol adp.ingest.v1 (docs/api.md).
//
// A Session keeps a connection and a window of batches without an answer. After a lost
// connection it sends them again, unchanged and under the same references. The server
// makes their ids of these, so each entry is written once. Lines is a Session that
// sends what it reads, line by line.
package client

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Subprotocol is what the two ends speak (RFC 6455, section 1.9).
const Subprotocol = "adp.ingest.v1"

// ErrRefused: the server will never take what this session sends, so to try again is
// of no use. The token may be wrong, or the server no server of this protocol.
var ErrRefused = errors.New("refused")

// ErrClosed: the Session was closed before.
var ErrClosed = errors.New("the session is closed")

// Config says what a Session talks to, and to which functions it tells what happens.
// It calls these one at a time, and reads no answers meanwhile. Each may be nil.
type Config struct {
	// URL is the server's, with the scheme http, https, ws or wss, and without the path
	// of the resource.
	URL string
	// HTTP makes the connections; nil is http.DefaultClient. Its Timeout must be 0.
	HTTP *http.Client
	// Token is sent as bearer token (RFC 6750), if it is not empty.
	Token string
	// Want is whether a batch is finished only when its entries are written, or dead.
	Want bool

	// Answered gets the answers. A batch that is rejected or expired is over. The
	// batches that Answered returns take its place, also if the window is full.
	Answered func(Answer) (instead []Batch)
	// Connected is told that a server has greeted.
	Connected func(Handshake)
	// Lost is told why there is no connection, and when the next attempt is.
	Lost func(err error, pause time.Duration)
	// Refused is told why a connected server takes a batch not now, and when the next
	// attempt is; and with a nil error, that it has accepted one again.
	Refused func(err error, pause time.Duration)
}

// Batch is entries that the server accepts or rejects together.
type Batch struct {
	// Array is a JSON array of the entries, in UTF-8. It may not change any more.
	Array []byte
	// Count is how many entries there are.
	Count int
	// Tag is the sender's own.
	Tag any
}

// Left is a batch without a last answer.
type Left struct {
	Batch
	// Accepted: every entry is durable in a queue, and may be written or not.
	Accepted bool
	// Unsent: it was not sent, or the server has published nothing of it.
	Unsent bool
}

// Kind is what became of a batch.
type Kind string

const (
	// Accepted: every entry is durable in a queue.
	Accepted Kind = "accepted"
	// Written: every entry is durable in a file. Told only if it is wanted.
	Written Kind = "written"
	// Dead: Answer.Dead entries cannot be written, the others are. Told only if it is
	// wanted.
	Dead Kind = "dead"
	// Rejected: nothing was published, and Answer.Problem says why.
	Rejected Kind = "rejected"
	// Expired: the connection was lost for so long that the server may have forgotten
	// the batch, or the server rejects what was accepted before. It was not sent again,
	// as it might be written twice.
	Expired Kind = "expired"
)

// Answer is what the server says of a batch. Accepted is told once, and before Written
// and Dead.
type Answer struct {
	Batch
	Kind    Kind
	Ref     string
	ID      string         // of the submission, if accepted; its entry i is the message ID.i
	Shards  map[string]int // how many entries went to each shard, if accepted
	Dead    int
	Problem Problem
	After   time.Duration // since it was first sent
}

// Problem says why something was refused (RFC 9457).
type Problem struct {
	Type   string       `json:"type"`
	Title  string       `json:"title"`
	Status int          `json:"status"`
	Detail string       `json:"detail"`
	Errors []EntryError `json:"errors"`
}

// EntryError is one thing wrong with an entry. The server lists the first 100.
type EntryError struct {
	Index   int    `json:"index"` // in the array; -1 is the array as a whole
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	return p.Detail
}

// Handshake is how the server greets. Its limits hold for the connection.
type Handshake struct {
	Node   string
	Limits Limits
	// Dedupe is how long the server recognizes a batch that comes again; 0 is unknown.
	Dedupe time.Duration
	// Ping is the time between two signs of life.
	Ping time.Duration
}

// Limits are the server's, in bytes where no other unit is named.
type Limits struct {
	Frame       int `json:"frame"`        // a batch with its reference
	Entries     int `json:"entries"`      // of a batch
	Entry       int `json:"entry"`        // the longest
	Window      int `json:"window"`       // batches without an answer
	WindowBytes int `json:"window_bytes"` // of their frames
	Waits       int `json:"waits"`        // batches that may wait to be written; 0 is no bound
}

// Own bounds: what a server tells may lower them.
var maxLimits = Limits{Frame: 1 << 20, Entries: 10_000, Entry: 256 << 10, Window: 256, WindowBytes: 8 << 20}

const (
	// minFrame is the smallest bound of frames that this end can work with.
	minFrame = 1 << 10
	// frameRoom is what a frame has beside its array, in bytes, at most.
	frameRoom = 64
)

// within returns the limits that hold for this end, too.
func (l Limits) within() (Limits, error) {
	l.Frame, l.Entries, l.Entry = min(l.Frame, maxLimits.Frame), min(l.Entries, maxLimits.Entries), min(l.Entry, maxLimits.Entry)
	l.Window, l.WindowBytes = min(l.Window, maxLimits.Window), min(l.WindowBytes, maxLimits.WindowBytes)
	if l.Frame < minFrame || l.Entries < 1 || l.Entry < 1 || l.Window < 1 || l.WindowBytes < l.Frame {
		return l, fmt.Errorf("%w: the server's limits leave no room: %+v", ErrRefused, l)
	}
	if l.Waits > 0 {
		l.Window = min(l.Window, l.Waits)
	}
	l.Entry = min(l.Entry, l.Frame-frameRoom-len(`[]`))
	return l, nil
}

// message is a frame from the server: a handshake, an answer or a notice.
type message struct {
	Type string `json:"type"`

	// Of the handshake. Times are in seconds.
	Node   string `json:"node"`
	Limits Limits `json:"limits"`
	Dedupe int64  `json:"dedupe_s"`
	Ping   int64  `json:"ping_s"`

	// Of answers.
	Ref      string         `json:"ref"`
	ID       string         `json:"id"`
	Accepted int            `json:"accepted"`
	Shards   map[string]int `json:"shards"`
	Dead     int            `json:"dead"`
	Want     string         `json:"want"`
	Problem  Problem        `json:"problem"`
	Kind     string         `json:"kind"`
	Title    string         `json:"title"`
	RetryMS  int64          `json:"retry_ms"`
}
