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
//     of memory stops reading from those that publish, acks included. The bus has
//     another one, so that it does not wait behind envelopes.
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
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
	"async-data-processor/broker/bus"
	"async-data-processor/broker/conn"
	"async-data-processor/event"
	"async-data-processor/message"
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
	// Management is the http:// or https:// URL of the broker's management API, with
	// user:password@; empty if policies are not to be looked at.
	Management string
	// Events hears of the connections and of dead letters.
	Events event.Sink
}

// timing holds the package's waits, so that tests can shorten them.
type timing struct {
	conn.Pauses
	dial      time.Duration
	handshake time.Duration
	write     time.Duration
	rpc       time.Duration
	heartbeat time.Duration
	stalled   time.Duration
	repair    time.Duration
	look      time.Duration
	check     time.Duration
}

var defaultTiming = timing{
	Pauses: conn.PausesUpTo(5 * time.Second),
	// RabbitMQ 3.10 takes a moment to tell consumers that their queue was deleted. A
	// consumer that did not hear of it before there is another queue of the same name
	// gets nothing from that one.
	repair: 500 * time.Millisecond,
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
	// How long a confirm may be missing on a connection that is well. A new
	// connection costs all shards a moment, so it is no remedy to be taken often.
	stalled: 5 * time.Minute,
	// How often policies are looked at.
	look: time.Minute,
	// How often the bus is tried, which has to be silent by mistake at most two times
	// that long. It is longer than rpc, since a broker has that long to answer.
	check: 6 * time.Second,
}

// Broker is a client of a RabbitMQ broker. It implements broker.Broker.
type Broker struct {
	broker.Bus // remote

	cfg    Config
	timing timing
	conns  *conn.Client[*session]

	// Set by New, read-only after.
	remote     *bus.Remote
	target     target
	management *management // nil without one
	// visiting is held while dead letters are visited.
	visiting chan struct{}

	mu  sync.Mutex // guards what follows
	gap int        // how many queues in a row may be missing before Backlogs stops
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
	tm.Cancelled = tm.repair
	b := &Broker{cfg: cfg, timing: tm, target: target, gap: firstGap, visiting: make(chan struct{}, 1)}
	if cfg.Management != "" {
		if b.management, err = parseManagement(cfg.Management, target.vhost, tm.rpc); err != nil {
			return nil, fmt.Errorf("the URL of the management API: %w", err)
		}
	}
	b.conns = conn.New(conn.Config[*session]{
		Name: target.name, Shards: cfg.Shards, Pauses: tm.Pauses, Events: cfg.Events, Dial: b.dial,
	})
	b.remote = bus.NewRemote(b.connectBus)
	b.Bus = b.remote
	b.conns.Publishing.Start()
	return b, nil
}

// Ready implements broker.Broker. A queue of a shard that confirms nothing is a
// reason not to be ready, too.
func (b *Broker) Ready() error {
	return b.conns.Ready(func(s *session) error {
		if err := s.refusesPublish(); err != nil {
			return err
		}
		return s.confirms.stalled()
	})
}

// Consumes implements broker.Queues.
func (b *Broker) Consumes() error { return b.conns.Consumes() }

// Consume implements broker.Broker.
func (b *Broker) Consume(ctx context.Context, shard, prefetch int, deliveries chan<- *message.Delivery) error {
	return b.conns.Consume(ctx, shard, prefetch, func(intake context.Context, s *session) error {
		return b.subscribe(intake, s, shard, prefetch, deliveries)
	})
}

// Close implements broker.Broker.
func (b *Broker) Close() error {
	b.remote.Close()
	return b.conns.Close()
}

// stale wraps the reason why a delivery could not be settled.
func stale(err error) error { return conn.Stale(err, amqp.ErrClosed) }
