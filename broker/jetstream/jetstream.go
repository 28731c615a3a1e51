// Package jetstream is the broker over NATS JetStream, from nats-server 2.11
// on. It is the client; a server of this process is package embedded.
//
// It promises what package broker says, in these terms:
//
//   - Published means: stored by the stream, on a majority of its replicas, and
//     acknowledged. When the server syncs its files is the server's setting:
//     only sync_interval "always" makes a server without replicas durable.
//   - Every connection is new and ends for good; the client library never
//     reconnects one. So nothing that was refused is sent later, and a delivery
//     is settled on the connection that brought it or not at all.
//   - JetStream does not tie a delivery to a connection. What was unsettled when
//     one was lost is therefore returned through the next one; what was on its
//     way, and what a dead process held, comes back when nobody has extended it
//     for some seconds.
//   - A settle is sent and not waited for, which would cost a round trip each: if
//     it goes lost with its connection, the envelope comes again, as with any
//     broker. The server confirms it later; Close waits for that, and no more
//     envelopes are asked for while the server is far behind.
//   - A dead letter is stored in a stream of its own and then acknowledged in
//     the shards' stream; see DeadStream for why.
//   - Publishing and consuming have a connection each, so that acknowledgements
//     do not queue behind envelopes.
//
// The names and configurations of the streams and consumers and the headers of
// the envelopes are a contract with other programs; see topology.go.
package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"async-data-processor/broker"
)

const (
	// maxShards is the most shards, each a durable consumer of the stream.
	maxShards = 2000
	// maxReplicas is JetStream's own limit of copies of a stream.
	maxReplicas = 5
)

// Config says which broker to use and for what.
type Config struct {
	// URL is nats:// or tls://, with user:password@ or token@ and one or more
	// hosts, separated by commas. The credentials hold for all of them and never
	// leave the package. It may be empty if Options say how to connect.
	URL string
	// Shards is the number of shards, 1 to 2000.
	Shards int
	// Replicas is the number of servers that store the streams, 1 to 5; 0 means
	// 1. It is used when a stream is created: one that exists stays as it is.
	Replicas int

	// Credentials is a file with a user's JWT and seed.
	Credentials string
	// CA is a PEM file with the authorities to trust instead of the system's.
	CA string
	// Cert and Key are the PEM files of this client's certificate.
	Cert, Key string

	// Notify hears of the connections' ups and downs. It may be nil, must not
	// block and may be called concurrently.
	Notify func(broker.Notice)

	// Options are applied to each connection after the package's own, for
	// example nats.InProcessServer.
	Options []nats.Option
	// Admit is asked before each publish and by Ready; its error refuses them.
	// It may be nil, must not block and may be called concurrently. Dead letters
	// do not ask: they take the place of what they were made of.
	Admit func() error
	// Stored is called after each publish to a stream that the server has
	// acknowledged, before its caller hears of it; its error makes the outcome
	// unknown. It may be nil and may be called concurrently.
	Stored func(stream string) error
}

// Broker is a client of NATS JetStream. It implements broker.Broker.
type Broker struct {
	cfg    Config
	timing timing
	target target // set by New, read-only after

	publishing *link
	consuming  *link
	full       gate // refusals by the server
	refused    gate // refusals by Config.Admit

	ctx    context.Context // done when Close begins
	cancel context.CancelFunc
	closed chan struct{} // closed when Close is through
	links  sync.WaitGroup
	calls  sync.WaitGroup // settles and Consume calls that Close waits for

	mu       sync.Mutex // guards what follows
	closing  bool
	consumes bool            // consumption was asked for, so its link runs
	faults   map[int]error   // why a shard is not subscribed, while the connection is up
	orphans  map[int]orphans // what lost connections held, by shard
	known    []string        // servers that the cluster told of, as URLs
}

var _ broker.Broker = (*Broker)(nil)

// New returns a broker that connects in the background; Ready tells when it
// has. An error means that cfg can never work, and holds no password.
func New(cfg Config) (*Broker, error) { return newBroker(cfg, defaultTiming) }

func newBroker(cfg Config, tm timing) (*Broker, error) {
	target, err := parseTarget(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Shards < 1 || cfg.Shards > maxShards {
		return nil, fmt.Errorf("shards: want 1 to %d, got %d", maxShards, cfg.Shards)
	}
	if cfg.Replicas == 0 {
		cfg.Replicas = 1
	}
	if cfg.Replicas < 1 || cfg.Replicas > maxReplicas {
		return nil, fmt.Errorf("replicas: want 1 to %d, got %d", maxReplicas, cfg.Replicas)
	}
	b := &Broker{
		cfg: cfg, timing: tm, target: target,
		closed: make(chan struct{}), faults: map[int]error{}, orphans: map[int]orphans{},
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.publishing = newLink(b, "publish", (*session).openLane)
	b.consuming = newLink(b, "consume", (*session).openSettling)
	// The publishing link also carries dead letters, so it is there in any role.
	b.links.Go(b.publishing.run)
	return b, nil
}

// Ready implements broker.Broker. Once Consume was called it also answers for
// the consuming connection and its subscriptions.
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
	// Asked in any case, so that its notices do not wait for a connection.
	refused := b.admit()
	if _, err := b.publishing.current(); err != nil {
		return err
	}
	if refused != nil {
		return refused
	}
	if err := b.full.reason(); err != nil {
		return &blockedError{err}
	}
	if consumes {
		if _, err := b.consuming.current(); err != nil {
			return err
		}
	}
	return fault
}

// Close implements broker.Broker. It takes at most some seconds, however
// silent the broker is. Publishes that wait for their answer end as unknown.
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
	b.consuming.stop() // it returns what is unsettled, after the settles
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

func rejected(err error) error { return fmt.Errorf("%w: %w", broker.ErrRejected, err) }

func unknown(err error) error { return fmt.Errorf("%w: %w", broker.ErrUnknown, err) }

// stale wraps the reason why a delivery could not be settled.
func stale(err error) error {
	if err == nil || errors.Is(err, nats.ErrConnectionClosed) {
		return broker.ErrStale
	}
	return fmt.Errorf("%w: %w", broker.ErrStale, err)
}
