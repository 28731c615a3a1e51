// Package deadletter lets people see dead letters, mend one, and replay or purge many as
// a task. The queue of dead letters is the broker's: this package keeps no letter. What
// it changes it copies first, waits for the confirm, and then removes, one letter after
// the other. So a crash leaves a letter in both places at worst.
//
//	list, groups, show ──▶ looks: one at a time, for all who wait ──┐
//	edit, replay one ────▶ a visit that ends at the letter ─────────┼──▶ broker.DeadLetters
//	task ────────────────▶ short passes, with pauses for the rate ──┘
//
// The queue may be hidden from others during a visit, so each one is short.
package deadletter

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/message"
)

// Broker is what this package needs of a broker: see broker.Broker.
type Broker interface {
	broker.DeadLetters
	broker.Bus
	Publish(ctx context.Context, envelopes []message.Envelope, done func(i int, outcome error))
}

// Config sets up Letters.
type Config struct {
	Broker Broker
	// Rules are those of the entries that clients send.
	Rules *message.Rules
	// Shards is the number of shards.
	Shards int
	// Node returns the name of this node, and Nodes how many there are, this one included.
	Node  func() string
	Nodes func() int
	// ReadOnly refuses every change.
	ReadOnly bool
	// Hidden shows no bodies, and refuses to look into them.
	Hidden bool
	// Mask returns the entry with what is secret masked; the same text if nothing is. nil
	// masks nothing.
	Mask func(entry []byte) []byte
	// Moved is told of a submission one of whose messages may have gone to another shard.
	// It may be nil.
	Moved func(submission string)
	// Tell is told of every change before it is made. It must not block.
	Tell func(event.Event)
}

// Bounds of what a process does with dead letters.
const (
	// lookTime, lookLetters and lookBytes bound a look.
	lookTime    = 2 * time.Second
	lookLetters = 10_000
	lookBytes   = 64 << 20
	// lookPause is the least time between two looks. A look that has taken longer has the
	// next one wait as long.
	lookPause = 50 * time.Millisecond
	// maxLooking bounds the requests that wait for a look or take part in one, and
	// maxLookingOne those of one client.
	maxLooking    = 64
	maxLookingOne = 16
	// reachTime is how long the first letter is waited for.
	reachTime = 10 * time.Second
	// changeTime is how long one letter is looked for, and maxChanges for how many at a time.
	changeTime = 10 * time.Second
	maxChanges = 4
)

var (
	// ErrQuery: the filter, or the place to begin, is not valid.
	ErrQuery = errors.New("invalid query")
	// ErrTask: there can be no such task.
	ErrTask = errors.New("invalid task")
	// ErrNotFound: no dead letter has the key.
	ErrNotFound = errors.New("no dead letter has this key; it may have been replayed or purged")
	// ErrTooFar: as many letters were looked at as may be, and none has the key.
	ErrTooFar = errors.New("the dead letters that could be looked at in time do not have this key; the command dead-letters looks at all")
	// ErrNotEditable: the letter can be replayed as it is, or purged.
	ErrNotEditable = errors.New("this dead letter cannot be edited")
	// ErrNoTask: no node that answers knows the task.
	ErrNoTask = errors.New("no task of this id is known; each node remembers the last 100")
	// ErrReadOnly: this process changes nothing.
	ErrReadOnly = errors.New("this process is read-only and changes no dead letters")
	// ErrTooMany: as much is under way as may be.
	ErrTooMany = errors.New("too much is done with dead letters at a time")
	// ErrStopping: this process starts, or stops.
	ErrStopping = errors.New("this process is not running, ask another one, or again")
	// ErrUnreachable: the broker does not show its dead letters.
	ErrUnreachable = errors.New("the dead letters cannot be reached")
)

var (
	errEnough   = errors.New("enough dead letters were seen")
	errNoAnswer = errors.New("the broker does not answer, or another visitor does not leave")
)

// Letters are the dead letters of a broker. Its methods may be called concurrently.
type Letters struct {
	cfg     Config
	looks   *looks
	ongoing sync.WaitGroup // looks and tasks

	mu      sync.Mutex // guards what follows
	ctx     context.Context
	running bool
	changes int     // that are under way
	tasks   []*task // the oldest first
}

// New returns Letters that do nothing before Run.
func New(cfg Config) *Letters {
	l := &Letters{cfg: cfg, ctx: context.Background()}
	l.looks = &looks{letters: l, askers: make(map[string]int)}
	return l
}

// Run answers other nodes until ctx ends. Then it waits until the tasks have ended, each
// after the letter that it is at. It is called once.
func (l *Letters) Run(ctx context.Context) {
	set := func(running bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.ctx, l.running = ctx, running
	}
	set(true)
	defer l.cfg.Broker.Answer(tasksTopic, l.answerTasks)()
	defer l.cfg.Broker.Answer(cancelTopic, l.answerCancel)()
	<-ctx.Done()
	set(false) // nothing begins from here on
	l.ongoing.Wait()
}

// stopping tells that nothing may begin. mu is held.
func (l *Letters) stopping() bool { return !l.running || l.ctx.Err() != nil }

// begin runs f until it returns. It returns ErrStopping if the process is not running.
func (l *Letters) begin(f func(ctx context.Context)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx := l.ctx
	if l.stopping() {
		return ErrStopping
	}
	l.ongoing.Go(func() { f(ctx) })
	return nil
}

// visit shows the dead letters to decide, the oldest first, until it returns false, which
// goes with broker.Keep. It ends after about within, or at the next letter when ctx has
// ended: that one is late, and is kept. What was decided of a letter is done when the
// next one is shown, or when visit returns true: then it has shown all.
func (l *Letters) visit(ctx context.Context, within time.Duration, decide func(*seen) (v broker.Verdict, more bool)) (whole bool, err error) {
	visit, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var mu sync.Mutex // guards until
	var until time.Time
	reached := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return !until.IsZero()
	}
	late := time.AfterFunc(reachTime, func() {
		if !reached() {
			stop(errNoAnswer)
		}
	})
	defer late.Stop()
	defer context.AfterFunc(ctx, func() {
		if !reached() {
			stop(context.Cause(ctx))
		}
	})()
	err = l.cfg.Broker.DeadLetters(visit, func(d broker.DeadLetter) broker.Verdict {
		mu.Lock()
		if until.IsZero() {
			until = time.Now().Add(within)
		}
		mu.Unlock()
		if visit.Err() != nil {
			return broker.Keep
		}
		ended := ctx.Err() != nil
		late := ended || time.Now().After(until)
		v, more := decide(&seen{DeadLetter: &d, letters: l, late: late})
		switch {
		case ended:
			stop(context.Cause(ctx))
		case late || !more:
			stop(errEnough)
		}
		if late {
			return broker.Keep
		}
		return v
	})
	switch cause := context.Cause(visit); {
	case errors.Is(cause, errEnough): // also at the last letter, where the broker may not notice
		return false, nil
	case cause != nil:
		err = cause
	case err == nil:
		return true, nil
	case errors.Is(err, broker.ErrRejected), errors.Is(err, broker.ErrUnknown):
		return false, err
	}
	return false, fmt.Errorf("%w: %w", ErrUnreachable, err)
}
