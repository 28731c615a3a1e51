// Package publisher makes submissions durable at the broker by group commit. It
// promises that Submit returns nil only after every message of the submission
// is durable, and that an error says whether certainly nothing was published.
//
// Each message goes to the queue of its shard. There, messages of many
// submissions share an envelope. A round publishes one envelope of each shard
// that has any; while it is under way, the envelopes of the next round fill up:
//
//	submissions ──▶ queue of shard 0 ─┐
//	            ──▶ queue of shard 1 ─┼─▶ round: one envelope of each ──▶ broker
//	            ──▶ queue of shard 2 ─┘
//
// On an idle system nothing waits. Rounds follow each other, because two at a
// time would fill their envelopes less: an envelope costs a broker nearly the
// same whatever is in it, and much less if it comes with others. A round also waits a
// moment for those that the round before has answered (company.go).
//
// A shard whose confirm is late is a straggler. The others go on without it, and
// it joins the round that starts after its confirm (time goes to the right):
//
//	shard 0  ├─ round 1 ─┤  ├─ round 2 ─┤    ├─ round 3 ──┤├─ round 4 ─┤
//	shard 1  ├─ round 1 ──┤ ├─ round 2 ─────────────────┤  ├─ round 4 ─┤
//	shard 2  ├─ round 1 ───┤├─ round 2 ───┤  ├─ round 3 ─┤ ├─ round 4 ─┤
//	                                      ╰──╯
//	                                      waits for the straggler, 50 ms at most
package publisher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// Broker is the publisher's view of a broker.
type Broker interface {
	// Publish makes envelopes durable. It calls done once for each, with its index,
	// as soon as its outcome is known: nil only if it is durable, an error that wraps
	// broker.ErrRejected if it certainly is not. It returns after the last done, soon
	// after ctx ends. A body whose outcome is nil is not read any more; another may
	// be, even later. done may be called concurrently.
	Publish(ctx context.Context, envelopes []message.Envelope, done func(i int, outcome error))
}

// Func is a Broker that is a function.
type Func func(ctx context.Context, envelopes []message.Envelope, done func(i int, outcome error))

// Publish implements Broker.
func (f Func) Publish(ctx context.Context, envelopes []message.Envelope, done func(i int, outcome error)) {
	f(ctx, envelopes, done)
}

// Config is what a publisher needs.
type Config struct {
	Broker Broker
	// Shards is the number of shards.
	Shards int
	// Timeout is how long a round may take.
	Timeout time.Duration
	// Room returns why there is no room for more messages behind the broker, nil
	// if there is. It is called for each submission. Default: there always is.
	Room func() error
}

// Publisher carries submissions to the broker. Its methods may be called
// concurrently. It holds what its callers wait for, and at most an envelope more
// for each shard.
type Publisher struct {
	cfg  Config // read-only after New
	late error  // the cause of a round that exceeded the time-out

	waiters   sync.Pool // of *waiter
	envelopes sync.Pool // of *envelope whose body has no reader

	mu     sync.Mutex // guards what follows, and all that is reached from it
	queues []shardQueue
	// finished are the waiters that Start has made, whose outcomes are known, and are not told.
	finished struct{ first, last *waiter }
	current  *round   // the next one waits for it; nil if none has to
	spare    []*round // to be used again
	company  company
}

// New returns a publisher.
func New(cfg Config) *Publisher {
	p := &Publisher{
		cfg: cfg, queues: make([]shardQueue, cfg.Shards),
		late: fmt.Errorf("no confirm within %v", cfg.Timeout),
	}
	p.waiters.New = func() any { return &waiter{done: make(chan struct{}, 1)} }
	p.envelopes.New = func() any { return new(envelope) }
	return p
}

// Submit publishes the submission's messages, those of a shard in the order
// sent. It waits until the outcome of every envelope with one of them is known,
// or ctx ends. It returns how many messages each shard has that has any, in the
// order of the shards. The error is
//
//   - nil if all messages are published, even if ctx has ended;
//   - one that wraps message.ErrNotPublished if certainly none is;
//   - else one that joins what went wrong, ctx's cause included: all messages,
//     some or none may be published.
//
// The messages are copied.
func (p *Publisher) Submit(ctx context.Context, s message.Submission) (shards []message.ShardCount, err error) {
	if p.cfg.Room != nil {
		if err := p.cfg.Room(); err != nil {
			return nil, fmt.Errorf("%w: %w", message.ErrNoRoom, err)
		}
	}
	w := p.waiters.Get().(*waiter)
	shards = p.enqueue(w, s.Messages)
	if len(w.envelopes) > 0 {
		select {
		case <-w.done:
		case <-ctx.Done():
			p.abandon(w, notConfirmed(ctx))
		}
	}
	err = w.reset()
	p.waiters.Put(w)
	return shards, err
}

// Start is Submit that does not wait. It calls done, once, with what Submit would
// return: from a goroutine of the publisher, or before Start returns. done must not
// block, as others wait behind it. When Start returns, the messages are copied.
//
// A ctx that many submissions share costs less than one for each.
func (p *Publisher) Start(ctx context.Context, s message.Submission, done func(shards []message.ShardCount, err error)) {
	if p.cfg.Room != nil {
		if err := p.cfg.Room(); err != nil {
			done(nil, fmt.Errorf("%w: %w", message.ErrNoRoom, err))
			return
		}
	}
	if len(s.Messages) == 0 {
		done(nil, nil)
		return
	}
	w := p.waiters.Get().(*waiter)
	w.told = done
	use := w.uses
	w.unhook = context.AfterFunc(ctx, func() { p.expire(w, use, notConfirmed(ctx)) })
	p.enqueue(w, s.Messages)
}

func notConfirmed(ctx context.Context) error {
	return fmt.Errorf("the envelope was not confirmed: %w", context.Cause(ctx))
}

// enqueue has the waiter wait for the messages, and returns how many each shard has.
func (p *Publisher) enqueue(w *waiter, messages []message.Message) (shards []message.ShardCount) {
	order, ends := w.sort(messages, len(p.queues))
	shards = make([]message.ShardCount, 0, min(len(p.queues), len(messages)))
	p.mu.Lock()
	start := int32(0)
	for i, end := range ends {
		if end > start {
			shards = append(shards, message.ShardCount{Shard: i, Messages: int(end - start)})
			p.add(w, i, messages, order[start:end])
		}
		start = end
	}
	w.counts, w.enqueued = shards, true
	if w.expired != nil {
		p.giveUp(w, w.expired)
		p.finish(w)
	}
	if len(w.envelopes) > 0 && p.company.join() {
		p.current = nil
	}
	r := p.startRound()
	finished := p.takeFinished() // for w, if it has expired
	p.mu.Unlock()
	if r != nil {
		go p.run(r)
	}
	p.tellAll(finished)
	return shards
}

// expire ends the wait of a waiter that Start has made, unless it is over.
func (p *Publisher) expire(w *waiter, use uint64, outcome error) {
	p.mu.Lock()
	switch {
	case w.uses != use:
	case !w.enqueued:
		w.expired = outcome
	default:
		p.giveUp(w, outcome)
		p.finish(w)
	}
	finished := p.takeFinished()
	p.mu.Unlock()
	p.tellAll(finished)
}

// finish makes a waiter that Start has made one to be told. mu is held.
func (p *Publisher) finish(w *waiter) {
	w.uses++
	w.next = nil
	if p.finished.first == nil {
		p.finished.first = w
	} else {
		p.finished.last.next = w
	}
	p.finished.last = w
}

// takeFinished returns the first of the waiters that are to be told, nil if there is
// none. mu is held; tellAll follows without it.
func (p *Publisher) takeFinished() *waiter {
	w := p.finished.first
	p.finished.first, p.finished.last = nil, nil
	return w
}

func (p *Publisher) tellAll(w *waiter) {
	for w != nil {
		next := w.next
		w.unhook()
		told, shards := w.told, w.counts
		err := w.reset()
		p.waiters.Put(w)
		told(shards, err)
		w = next
	}
}

// join returns the error of a submission whose envelopes have these outcomes.
func join(outcomes []error) error {
	rejected := 0
	for _, err := range outcomes {
		if errors.Is(err, broker.ErrRejected) {
			rejected++
		}
	}
	if rejected == len(outcomes) && rejected > 0 {
		return fmt.Errorf("%w: %w", message.ErrNotPublished, outcomes[0])
	}
	return errors.Join(outcomes...)
}
