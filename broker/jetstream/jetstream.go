// Package jetstream is the broker over NATS JetStream, from nats-server 2.11
// on.
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
//     one was lost is therefore returned through the next one. What a process held
//     whose connection is gone, the next consumer returns. What was on its way, and
//     what a machine held that is gone, comes back when it was not extended for some
//     seconds.
//   - A settle is sent and not waited for, which would cost a round trip each: if
//     it goes lost with its connection, the envelope comes again, as with any
//     broker. The server confirms it later; Close waits for that, and no more
//     envelopes are asked for while the server is far behind.
//   - A dead letter is stored in a stream of its own and then acknowledged in
//     the shards' stream; see DeadStream for why.
//   - Publishing and consuming have a connection each, so that acknowledgements
//     do not queue behind envelopes. The bus has another one, without JetStream.
//
// The names and configurations of the streams and consumers and the headers of
// the envelopes are a contract with other programs; see topology.go.
package jetstream

import (
	"cmp"
	"context"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"async-data-processor/broker"
	"async-data-processor/broker/bus"
	"async-data-processor/broker/conn"
	"async-data-processor/event"
	"async-data-processor/message"
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
	// leave the package.
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

	// Events hears of the connections and of dead letters.
	Events event.Sink
}

// Broker is a client of NATS JetStream. It implements broker.Broker.
type Broker struct {
	broker.Bus // remote

	cfg    Config
	timing timing
	target target // set by New, read-only after
	conns  *conn.Client[*session]
	remote *bus.Remote
	full   gate // refusals by the server

	mu      sync.Mutex             // guards what follows
	lost    map[int]lostDeliveries // by shard
	servers []string               // that the cluster told of, as URLs
	streams map[string]bool        // that were there
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
	cfg.Replicas = cmp.Or(cfg.Replicas, 1)
	if cfg.Replicas < 1 || cfg.Replicas > maxReplicas {
		return nil, fmt.Errorf("replicas: want 1 to %d, got %d", maxReplicas, cfg.Replicas)
	}
	b := &Broker{cfg: cfg, timing: tm, target: target, lost: map[int]lostDeliveries{}, streams: map[string]bool{}}
	b.conns = conn.New(conn.Config[*session]{
		Name: target.name, Shards: cfg.Shards, Pauses: tm.Pauses, Events: cfg.Events, Dial: b.dial,
	})
	b.remote = bus.NewRemote(b.connectBus)
	b.Bus = b.remote
	b.conns.Publishing.Start()
	return b, nil
}

// Ready implements broker.Broker.
func (b *Broker) Ready() error {
	return b.conns.Ready(func(*session) error { return b.full.blocks() })
}

// Consumes implements broker.Queues.
func (b *Broker) Consumes() error { return b.conns.Consumes() }

// Consume implements broker.Broker.
func (b *Broker) Consume(ctx context.Context, shard, prefetch int, deliveries chan<- *message.Delivery) error {
	// The pin outlives the connection, so a consumer that is back at once goes
	// on without waiting for its own pin to expire.
	var pin string
	return b.conns.Consume(ctx, shard, prefetch, func(intake context.Context, s *session) (err error) {
		pin, err = b.subscribe(intake, s, shard, prefetch, pin, deliveries)
		return err
	})
}

// Close implements broker.Broker.
func (b *Broker) Close() error {
	b.remote.Close()
	return b.conns.Close()
}

// stale wraps the reason why a delivery could not be settled.
func stale(err error) error { return conn.Stale(err, nats.ErrConnectionClosed) }
