// Package broker is the contract of a broker: what publishing, consuming and
// settling promise, whichever engine is behind them. The engines live in the
// packages below this one; brokertest holds the suite that each of them passes.
package broker

import (
	"context"
	"errors"
	"time"

	"async-data-processor/message"
)

// PublishTimeout is how long the pipeline gives one publish, confirm included,
// before its outcome counts as unknown.
const PublishTimeout = 5 * time.Second

// DeliveryLimit is how often an envelope may come back before the broker
// itself moves it to the dead-letter queue. It bounds the damage of an
// envelope that kills its consumer, and leaves room for many restarts of a
// healthy one, whose prefetched envelopes count as delivered, too.
const DeliveryLimit = 100

// Broker is one durable queue per shard plus one for dead letters. Its methods
// may be called concurrently. It connects by itself, in the background, for as
// long as it is open: neither opening nor losing the connection is an error,
// Ready tells.
type Broker interface {
	// Publish makes the envelope durable in the queue of its shard, and
	// returns nil only then. It never outlives ctx.
	//
	// An error wraps ErrRejected when the envelope is certainly not in the
	// queue and ErrUnknown when it may be; a retry with the same envelope is
	// safe either way. The body must not be changed afterwards, unless the outcome
	// is nil: it may still be on its way to a socket.
	Publish(ctx context.Context, e message.Envelope) error

	// PublishTogether publishes each of the envelopes as Publish does, for less
	// than as many calls cost. It calls done for each one once, with its index, as
	// soon as its outcome is known, and returns after the last; no outcome waits
	// for another's. done may be called concurrently, and must not block.
	PublishTogether(ctx context.Context, envelopes []message.Envelope, done func(i int, outcome error))

	// Consume sends the shard's envelopes to deliveries until ctx is done,
	// then stops the intake and returns nil. At most prefetch deliveries are
	// unsettled at a time. It survives the loss of the broker; another error
	// means that it can never go on.
	//
	// What it sent can be settled until Close, also after it returned. What
	// the broker had handed out but Consume had not sent is returned.
	//
	// Each delivery is settled exactly once: Ack forgets the envelope, Return
	// queues it again, DeadLetter moves it to the dead-letter queue with its
	// reason; or else those of its messages that the outcome names, each with
	// its own reason and as a dead letter of its own, and forgets the rest. While
	// the dead-letter queue takes nothing, DeadLetter waits for it until the
	// consumer ends, because part of the envelope may be written: returned, it
	// could come back when nobody remembers that.
	//
	// An Ack may still be on its way when the settle returns, since several are
	// told together. If the connection is lost before they arrive, the envelopes
	// are delivered again, as are all that were not settled. A settle after that
	// changes nothing at the broker and returns ErrStale: it never touches another
	// envelope, nor the same one delivered anew.
	//
	// One consumer at a time gets a shard's envelopes. Others that consume it,
	// in this process or another, stand by.
	Consume(ctx context.Context, shard, prefetch int, deliveries chan<- *message.Delivery) error

	// Beyond returns the shards from the given number on that have a queue, in
	// ascending order: left by an earlier, larger number of shards, or used by a
	// process that has another. Their envelopes are consumed as any other's. It
	// makes no queue, and waits for the connection; an error may pass.
	//
	// An engine that has no list of its queues tries one number after the other,
	// and stops when more than gap of them in a row are missing.
	Beyond(ctx context.Context, shards, gap int) ([]Backlog, error)

	// DeadLetters shows each dead letter that is there now to decide, the
	// oldest first, and does what that says. It waits for the connection until
	// ctx is done, and ends at the first error.
	//
	// What it has not removed when it returns, also with an error, is as it
	// was. While it runs, others that call it may not see what it has seen.
	DeadLetters(ctx context.Context, decide func(DeadLetter) Verdict) error

	// Ready returns nil if a publish would be attempted now, else why not. It
	// answers for the shards that this process publishes to.
	Ready() error

	// Close gives up the connection after the settles made so far have been
	// sent. Unsettled deliveries go back to their queues. It may be called
	// more than once.
	Close() error
}

// DeadLetter is what could not be written: an envelope, or a message of one.
type DeadLetter struct {
	// Envelope is what was published: ID, Count, Body and Foreign as they came;
	// of a single message, its id and its line. ID is made of the body if there
	// was none. Shard is where it came from, or -1 if nothing tells.
	Envelope message.Envelope
	// Reason says why it is here.
	Reason string
	// Origin is the queue or subject it was published to.
	Origin string
	// Time is when it became a dead letter, in UTC; zero if nothing tells.
	Time time.Time
}

// Verdict is what to do with a dead letter.
type Verdict uint8

const (
	// Keep leaves it where it is.
	Keep Verdict = iota
	// Replay publishes it to the queue it came from, ids unchanged, and then
	// removes it; a crash in between leaves it in both. Without a Shard it is
	// ErrNoOrigin.
	Replay
	// Remove forgets it, for good.
	Remove
)

// Backlog is a shard's queue.
type Backlog struct {
	Shard int
	// Envelopes is how many of them wait in it, as far as the broker tells.
	Envelopes int
}

var (
	// ErrRejected: the envelope is certainly not in its queue.
	ErrRejected = errors.New("not published")
	// ErrUnknown: the broker's answer is missing, the envelope may be in its queue.
	ErrUnknown = errors.New("publish outcome unknown")
	// ErrStale: the connection that carried the delivery is gone.
	ErrStale = errors.New("delivery's connection is gone")
	// ErrNoOrigin: nothing tells to which queue a dead letter could go back.
	ErrNoOrigin = errors.New("nothing tells which queue the dead letter came from")
	// ErrClosed: the broker was closed by this process.
	ErrClosed = errors.New("broker is closed")
)

// Notice is something an operator wants to know about a broker's connection.
type Notice struct {
	Kind NoticeKind
	// Role is the connection's part, "publish" or "consume".
	Role string
	// Shard is the shard concerned, or -1.
	Shard int
	// Err is the cause, credentials redacted; nil where there is none.
	Err error
	// Retry is when the next attempt comes, for Lost.
	Retry time.Duration
}

// NoticeKind is what happened.
type NoticeKind string

const (
	// Connected: the connection is up and its queues are declared.
	Connected NoticeKind = "broker connected"
	// Lost: the connection failed or could not be made; Retry says when the next attempt comes.
	Lost NoticeKind = "broker connection lost"
	// Blocked: the broker refuses publishes for now, Err says why.
	Blocked NoticeKind = "broker blocks publishing"
	// Unblocked: it takes publishes again.
	Unblocked NoticeKind = "broker takes publishing again"
	// Resubscribed: the broker cancelled a consumer, which subscribes again.
	Resubscribed NoticeKind = "broker cancelled the consumer"
	// DeadLettered: an envelope, or a message of one, went to the dead-letter queue, Err says why.
	DeadLettered NoticeKind = "dead-lettered"
	// Unburied: the dead-letter queue does not take it, Err says why; Retry says
	// when the next attempt comes.
	Unburied NoticeKind = "dead letter cannot be kept"
)
