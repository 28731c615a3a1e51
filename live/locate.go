package live

import (
	"context"
	"errors"
	"sync"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// Errors of a Locator.
var (
	// ErrMessageID: the text is no id of a message.
	ErrMessageID = errors.New("an id of a message is 1 to 255 visible ASCII characters without quote and backslash")
	// ErrLooks: as many messages are looked for as may be.
	ErrLooks = errors.New("too many messages are looked for at a time")
)

// LocationState says in a word where a message is.
type LocationState string

// Where a message is.
const (
	// WhereQueued: it was accepted, and no process has it.
	WhereQueued LocationState = "queued"
	// WhereInHand: the owner of its shard has it, and a worker unless its batch gathers.
	WhereInHand LocationState = "in_hand"
	// WhereWritten: it is durable in a file.
	WhereWritten LocationState = "written"
	// WhereDead: it is a dead letter.
	WhereDead LocationState = "dead"
	// WhereUnknown: not found, and the owner of a shard does not answer.
	WhereUnknown LocationState = "unknown"
	// WhereNotKnown: not found, and nothing says that it was accepted.
	WhereNotKnown LocationState = "not_known"
)

// Location is where a message is. What is nil is not known.
type Location struct {
	// AsOf is when Node began to look. Complete tells that no other owner of a shard could
	// tell more: all have answered, or the message is written.
	AsOf     time.Time `json:"as_of"`
	Node     string    `json:"node"`
	Complete bool      `json:"complete"`

	ID    string        `json:"id"`
	State LocationState `json:"state"`
	// Submission is the id of its submission, if it has the form of one of ours.
	Submission *string `json:"submission"`
	Shard      *int    `json:"shard"`
	Owner      *string `json:"owner"`
	Worker     *string `json:"worker"`
	// Since is when it was accepted, taken by the worker, written or found dead.
	Since *time.Time `json:"since"`
	// File is the path in the output folder of Owner. Line counts from 1.
	File *string `json:"file"`
	Line *int    `json:"line"`
	// Reason is why it is dead.
	Reason *string `json:"reason"`
	// Why tells a person why it waits, or is not known, or why there is no file.
	Why *string `json:"why"`
}

// Place is what the owner of a shard knows of a message.
type Place struct {
	Shard int
	// Written tells that it is durable, since At.
	Written bool
	At      time.Time
	// Received tells that it is not settled. Worker has it, since Since; empty while its
	// batch gathers.
	Received bool
	Worker   string
	Since    time.Time
	// Sibling tells that another message of its submission is durable.
	Sibling bool
	// Forgot tells that the shard does not remember all that was ever written, but all
	// since Memory.
	Forgot bool
	Memory time.Time
}

// InFile is where a message is in the files of a shard.
type InFile struct {
	// File is the path in the output folder, empty if it was not found.
	File string
	Line int
	// Open tells that the file is hidden: batches are still appended to it.
	Open bool
	// Whole tells that all files were read in which it may be.
	Whole bool
}

// LocatorConfig sets up a Locator.
type LocatorConfig struct {
	Bus broker.Bus
	// Skips counts what on the bus cannot be used; nil counts nothing.
	Skips *broker.Skips
	// Node returns the name of this node. It is called while Run lasts, as all others are.
	Node func() string
	// Shards is the number of shards.
	Shards int
	// Look looks for a message in the shards that this process owns, and returns what
	// each of them knows. Without it the process owns none.
	Look func(id []byte) []Place
	// Find looks for a message in the files of a shard. It became durable at a time.
	Find func(ctx context.Context, shard int, id []byte, at time.Time) (InFile, error)
	// Receipts remembers what this process has accepted, if it is a server.
	Receipts *Receipts
	// Servers returns the other nodes that accept submissions, nil if that is not known.
	Servers func() []string
	// DeadLetters is the queue of dead letters; nil for none.
	DeadLetters broker.DeadLetters
	// Queues returns how many envelopes wait in the queues of those shards, nil for all;
	// -1 if that is not known. trouble is a sentence about those that do not run, if any.
	Queues func(shards []int) (envelopes int, trouble string)
}

const (
	// locateTimeout bounds a look with the wait for its turn, askTimeout what the others
	// take, and fileTimeout the search in files.
	locateTimeout = 10 * time.Second
	askTimeout    = 2 * time.Second
	fileTimeout   = time.Second
	// maxLocating bounds the messages that are looked for or wait for that, and
	// maxLooking how many are looked for at a time.
	maxLocating = 64
	maxLooking  = 4
)

// Locator finds out where a message is. As the owner of shards it tells others. Nothing is
// noted beforehand: what a process has is looked at when that is asked. Its methods may
// be called concurrently.
//
//	client ── Locate ──▶ node ──id──▶ bus ──▶ every owner: 1. what was received
//	             ▲        │                                2. the window of ids
//	             │        │◀─── its shards, a place ◀──────3. the files, if the id is in the window
//	         Location     └─ if no owner has it: a look at the dead-letter queue
//
// A message goes on while it is looked for. The looks follow it on its way, so it is found
// at one of them.
type Locator struct {
	cfg     LocatorConfig
	looking chan struct{} // has a place for each look under way
	finding chan struct{} // the same for searches in files
	letters letterLooks

	mu      sync.Mutex // guards what follows
	running map[string]*locating
}

// locating is a look that is shared by all who ask for the message meanwhile.
type locating struct {
	done     chan struct{} // closed after what follows was set
	location Location
	err      error
}

// NewLocator returns a Locator.
func NewLocator(cfg LocatorConfig) *Locator {
	return &Locator{
		cfg: cfg, running: make(map[string]*locating),
		looking: make(chan struct{}, maxLooking), finding: make(chan struct{}, 1),
		letters: letterLooks{queue: cfg.DeadLetters, turn: make(chan struct{}, 1)},
	}
}

// Run answers other nodes until ctx ends.
func (l *Locator) Run(ctx context.Context) {
	defer l.cfg.Bus.Answer(whereTopic, l.answer)()
	<-ctx.Done()
}

// Locate tells where a message is. It takes up to locateTimeout, most of it only if others
// do not answer. It fails with ErrMessageID, ErrLooks, or the cause of ctx.
func (l *Locator) Locate(ctx context.Context, id string) (Location, error) {
	if !isMessageID(id) {
		return Location{}, ErrMessageID
	}
	l.mu.Lock()
	one := l.running[id]
	if one == nil {
		if len(l.running) >= maxLocating {
			l.mu.Unlock()
			return Location{}, ErrLooks
		}
		one = &locating{done: make(chan struct{})}
		l.running[id] = one
		go l.run(id, one)
	}
	l.mu.Unlock()
	select {
	case <-one.done:
		return one.location, one.err
	case <-ctx.Done():
		return Location{}, context.Cause(ctx)
	}
}

// run looks for a message once it has a place.
func (l *Locator) run(id string, one *locating) {
	ctx, cancel := context.WithTimeout(context.Background(), locateTimeout)
	defer cancel()
	defer func() {
		l.mu.Lock()
		delete(l.running, id)
		l.mu.Unlock()
		close(one.done)
	}()
	select {
	case l.looking <- struct{}{}:
		defer func() { <-l.looking }()
		one.location = l.look(ctx, id)
	case <-ctx.Done():
		one.err = ErrLooks
	}
}

// look asks this process, then the others, then the dead-letter queue, as far as needed.
func (l *Locator) look(ctx context.Context, id string) Location {
	g := newGathering(l.cfg.Shards, id, l.cfg.Node(), l.cfg.Servers)
	g.add(l.own([]byte(id)), nil)
	if !g.enough() {
		asking, cancel := context.WithTimeout(ctx, askTimeout)
		answers := 0
		// Without the bus, the others are unknown.
		_ = l.cfg.Bus.Ask(asking, whereTopic, broker.Body(whereQuestion{V: broker.BusVersion, Node: g.node, ID: id}), func(body []byte) bool {
			a, owns, err := parseWhereAnswer(body)
			l.cfg.Skips.Add(err)
			if err == nil && a.Node != g.node {
				g.add(a, owns)
			}
			answers++
			return !g.enough() && answers < maxWhereAnswers
		})
		cancel()
	}
	if g.place == nil {
		g.dead = l.letters.find(ctx, id)
	}
	return l.conclude(g)
}

// isMessageID tells whether a message can have the id.
func isMessageID(id string) bool { return id != "" && isPlain(id, maxMessageID) }

// isPlain tells whether a text is so short, and visible ASCII without quote and backslash.
func isPlain(text string, most int) bool {
	for _, c := range []byte(text) {
		if c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return len(text) <= most
}

// submissionOf is the submission of a message of ours, or "".
func submissionOf(id string) string {
	if _, ok := message.CountOf(id); ok && len(id) > replyLen {
		return id[:replyLen]
	}
	return ""
}
