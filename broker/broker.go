// Package broker is the contract of a broker: what publishing, consuming and
// settling promise, whichever engine is behind them. The engines live in the
// packages below this one; brokertest holds the suite that each of them passes.
package broker

import (
	"context"
	"errors"
	"fmt"
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

// Broker is one durable queue per shard, one for dead letters, and a bus.
type Broker interface {
	Queues
	DeadLetters
	Bus
}

// Queues is one durable queue per shard. Its methods may be called concurrently.
// It connects by itself, in the background, for as long as it is open: neither
// opening nor losing the connection is an error, Ready tells.
type Queues interface {
	// Publish makes each of the envelopes durable in the queue of its shard. It
	// calls done once for each, with its index, as soon as its outcome is known,
	// and returns after the last call. No outcome waits for another's. done may be
	// called concurrently, and must not block. Publish never outlives ctx.
	//
	// An outcome is nil only if the envelope is durable. It wraps ErrRejected when
	// the envelope is certainly not in the queue and ErrUnknown when it may be; a
	// retry with the same envelope is safe either way. The body must not be changed
	// afterwards, unless the outcome is nil: it may still be on its way to a socket.
	Publish(ctx context.Context, envelopes []message.Envelope, done func(i int, outcome error))

	// Consume sends the shard's envelopes to deliveries until ctx is done,
	// then stops the intake and returns nil. At most prefetch deliveries are
	// unsettled at a time. It survives the loss of the broker; another error
	// means that it can never go on.
	//
	// What it sent can be settled until Close, also after it returned. What
	// the broker had handed out but Consume had not sent is returned.
	//
	// Each delivery is settled exactly once:
	//
	//   - Ack forgets the envelope.
	//   - Return queues it again.
	//   - DeadLetter moves it to the dead-letter queue with its reason. If the
	//     outcome names messages, each of them becomes a dead letter of its own, and
	//     the rest is forgotten.
	//
	// While the dead-letter queue takes nothing, DeadLetter waits for it until the
	// consumer ends, because part of the envelope may be written: returned, it
	// could come back when its messages are no longer known as written.
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

	// Backlogs returns the depth of every queue from that shard on, in ascending
	// order. There are queues beyond the number of shards if that was larger once,
	// or is larger in another process; their envelopes are consumed as any other's.
	// Backlogs makes no queue, and waits for the connection; an error may pass.
	//
	// An engine that has no list of its queues tries one number after the other. It
	// remembers how many in a row were missing before the last one that it found,
	// and stops when more than that are missing.
	Backlogs(ctx context.Context, from int) ([]Backlog, error)

	// Depths returns how many envelopes wait in the queues of those shards and are handed
	// out to no consumer, in the order asked for. A queue that is missing is left out or
	// empty. It is for the consumer of the shards: what another one has may count as
	// waiting. Depths makes no queue, and waits for the connection; an error may pass.
	Depths(ctx context.Context, shards []int) ([]Backlog, error)

	// Consumes returns nil if queues could be consumed now, else why not.
	Consumes() error

	// Ready returns nil if a publish would be attempted now, else why not. It
	// answers for the shards that this process publishes to.
	Ready() error

	// Close gives up the connection after the settles made so far have been
	// sent. Unsettled deliveries go back to their queues. It may be called
	// more than once.
	Close() error
}

// DeadLetters is the queue of what could not be written. Its method may be called
// concurrently.
type DeadLetters interface {
	// DeadLetters shows each dead letter that is there now to decide, the
	// oldest first, and does what that says. It waits for the connection until
	// ctx is done, and ends at the first error.
	//
	// What it has not removed when it returns, also with an error, is as it
	// was. Others that call it meanwhile, in this process or another, see the
	// same; they may have to wait for it. So decide does not call it.
	DeadLetters(ctx context.Context, decide func(DeadLetter) Verdict) error
}

// DeadLetter is what could not be written: an envelope, or a message of one.
type DeadLetter struct {
	// Envelope is what was published, as it came; of a single message, its id, its
	// line and the attributes of its envelope. ID is made of the body if there was
	// none. Shard is where it came from, or -1 if nothing tells.
	Envelope message.Envelope
	// Reason says why it is here.
	Reason string
	// Origin is the queue or subject it was published to.
	Origin string
	// Time is when it became a dead letter, in UTC; zero if nothing tells.
	Time time.Time
}

// LetterTime is the Time of a dead letter that tells t. Another program may tell any time:
// one that RFC 3339 cannot tell in UTC is not known.
func LetterTime(t time.Time) time.Time {
	t = t.UTC()
	if year := t.Year(); year < 1 || year > 9999 {
		return time.Time{}
	}
	return t
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
	// Envelopes is how many of them are in it. RabbitMQ counts those that are not
	// handed out; JetStream counts all that are not acknowledged.
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

// Rejected wraps the reason why an envelope is certainly not in its queue.
func Rejected(err error) error { return fmt.Errorf("%w: %w", ErrRejected, err) }

// Unknown wraps the reason why it is not known whether an envelope is.
func Unknown(err error) error { return fmt.Errorf("%w: %w", ErrUnknown, err) }
