// Package rabbitmq is the broker over RabbitMQ, from 3.10 on. It is the only
// package that speaks AMQP.
//
// It promises what package broker says, in these terms:
//
//   - Published means: routed, written by the shard's quorum queue, confirmed.
//   - Every connection has channels of its own, and a delivery belongs to the
//     channel that brought it. So a late settle cannot reach another message,
//     which it could with the client library's recovery, which reuses channels.
//   - Publishing and consuming have a connection each, because a broker short
//     of memory stops reading from those that publish, acks included.
//   - What is published together, and what is acknowledged meanwhile, leaves in
//     one write: for a broker and a kernel an envelope that comes alone is dear.
//   - A dead letter is published to the dead-letter queue, confirmed, and only
//     then acknowledged in its own.
//
// The names and arguments of the queues and the properties of the envelopes
// are a contract with other programs; see topology.go.
package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
)

// maxShards is the most shards: a consumer of all of them needs as many
// channels, of the 2047 that RabbitMQ grants a connection by default.
const maxShards = 2000

// Config says which broker to use and for what.
type Config struct {
	// URL is an amqp:// or amqps:// URL (rabbitmq.com/docs/uri-spec). Its path
	// is the virtual host; its password never leaves the package.
	URL string
	// Shards is the number of shards, 1 to 2000. Their queues are declared on
	// every connection.
	Shards int
	// Notify hears of the connections' ups and downs. It may be nil, must not
	// block and may be called concurrently.
	Notify func(broker.Notice)
}

// timing holds the package's waits, so that tests can shorten them.
type timing struct {
	dial      time.Duration
	handshake time.Duration
	write     time.Duration
	rpc       time.Duration
	heartbeat time.Duration
	minDelay  time.Duration
	maxDelay  time.Duration
	refused   time.Duration
	repair    time.Duration
	mute      time.Duration
	close     time.Duration
}

var defaultTiming = timing{
	// A broker in reach accepts within milliseconds; a lost SYN is repeated after 1 s.
	dial: 3 * time.Second,
	// Login and virtual host; a broker that is starting may take a while.
	handshake: 5 * time.Second,
	// A socket that takes no byte for so long is as good as broken.
	write: 3 * time.Second,
	// Declaring a quorum queue elects a leader, normally well under a second.
	rpc: 5 * time.Second,
	// The client gives up after 1.5 of it without a byte, RabbitMQ after 2.
	heartbeat: 6 * time.Second,
	// Waits between attempts: at random up to a bound that doubles from the
	// first to the second. The latter leaves time for a handshake within the
	// ten seconds in which a process has to be ready again.
	minDelay: 100 * time.Millisecond,
	maxDelay: 5 * time.Second,
	// Wrong password, virtual host or queue arguments: somebody has to act first.
	refused: 15 * time.Second,
	// How long a missing queue stays missing. RabbitMQ 3.10 takes a moment to
	// tell consumers that theirs was deleted. One that did not hear of it before
	// there is another one of the same name is not cancelled, and gets nothing.
	repair: 500 * time.Millisecond,
	// How long a queue may owe a confirm on a connection that is well. A new one
	// costs all shards a moment, so it is no remedy to be taken often.
	mute: 5 * time.Minute,
	// The part of the drain that a silent broker may take.
	close: 3 * time.Second,
}

// Broker is a client of a RabbitMQ broker. It implements broker.Broker.
type Broker struct {
	cfg    Config
	timing timing
	target target // set by New, read-only after

	publishing *link
	consuming  *link

	ctx    context.Context // done when Close begins
	cancel context.CancelFunc
	closed chan struct{} // closed when Close is through
	links  sync.WaitGroup
	calls  sync.WaitGroup // settles and Consume calls that Close waits for

	mu       sync.Mutex // guards what follows
	closing  bool
	consumes bool          // consumption was asked for, so its link runs
	faults   map[int]error // why a shard is not subscribed, while the connection is up
}

var _ broker.Broker = (*Broker)(nil)

// New returns a broker that connects in the background; Ready tells when it
// has. An error means that cfg can never work, and holds no password.
func New(cfg Config) (*Broker, error) { return newBroker(cfg, defaultTiming) }

func newBroker(cfg Config, tm timing) (*Broker, error) {
	target, err := parseTarget(cfg.URL)
	if err != nil {
		return nil, err
	}
	if cfg.Shards < 1 || cfg.Shards > maxShards {
		return nil, fmt.Errorf("shards: want 1 to %d, got %d", maxShards, cfg.Shards)
	}
	b := &Broker{cfg: cfg, timing: tm, target: target, closed: make(chan struct{}), faults: map[int]error{}}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.publishing = newLink(b, "publish", (*session).openLane)
	b.consuming = newLink(b, "consume", (*session).openSettling)
	// The publishing link also carries dead letters, so it is there in any role.
	b.links.Go(b.publishing.run)
	return b, nil
}

// Ready implements broker.Broker. Once Consume was called it also answers for
// the consuming connection and its subscriptions. A queue of a shard that
// confirms nothing is a reason not to be ready, too.
func (b *Broker) Ready() error {
	b.mu.Lock()
	closing, consumes := b.closing, b.consumes
	var fault error
	for _, err := range b.faults {
		fault = err
		break
	}
	b.mu.Unlock()
	if closing {
		return broker.ErrClosed
	}
	s, err := b.publishing.current()
	if err != nil {
		return err
	}
	if reason := s.blocked.Load(); reason != nil {
		return &blockedError{*reason}
	}
	if consumes {
		if _, err := b.consuming.current(); err != nil {
			return err
		}
	}
	if fault != nil {
		return fault
	}
	return s.lane.mute()
}

// Close implements broker.Broker. It takes at most some seconds, however
// silent the broker is. Publishes that wait for their confirm end as unknown.
func (b *Broker) Close() error {
	b.mu.Lock()
	first := !b.closing
	b.closing = true
	b.mu.Unlock()
	if !first {
		<-b.closed
		return nil
	}
	defer close(b.closed)
	b.cancel() // the intake ends, and attempts to connect
	within(b.timing.close, &b.calls)
	b.consuming.stop() // its graceful close follows the settles on the wire
	b.publishing.stop()
	b.links.Wait()
	return nil
}

// enter registers a call that Close waits for; false if Close has begun.
func (b *Broker) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		return false
	}
	b.calls.Add(1)
	return true
}

// consume starts the consuming link, once.
func (b *Broker) consume() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.consumes || b.closing {
		return
	}
	b.consumes = true
	b.links.Go(b.consuming.run)
}

// fault records why a shard is not subscribed; nil when it is, or need not be.
// Nothing is published to one beyond the number of shards, so it does not count.
func (b *Broker) fault(shard int, err error) {
	if shard >= b.cfg.Shards {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		delete(b.faults, shard)
		return
	}
	b.faults[shard] = fmt.Errorf("shard %d is not consumed: %w", shard, err)
}

func (b *Broker) notify(n broker.Notice) {
	if b.cfg.Notify != nil {
		b.cfg.Notify(n)
	}
}

// within waits for wg, but not longer than d.
func within(d time.Duration, wg *sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(d):
	}
}

// blockedError says that the broker refuses publishes.
type blockedError struct{ reason string }

func (e *blockedError) Error() string { return "the broker blocks publishing: " + e.reason }

func rejected(err error) error { return fmt.Errorf("%w: %w", broker.ErrRejected, err) }

func unknown(err error) error { return fmt.Errorf("%w: %w", broker.ErrUnknown, err) }

// stale wraps the reason why a delivery could not be settled.
func stale(err error) error {
	if err == nil || errors.Is(err, amqp.ErrClosed) {
		return broker.ErrStale
	}
	return fmt.Errorf("%w: %w", broker.ErrStale, err)
}
