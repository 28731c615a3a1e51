// Package embedded is a broker in this process: a JetStream server on a folder,
// and the client of package jetstream that is connected to it.
package embedded

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"async-data-processor/broker"
	"async-data-processor/broker/jetstream"
	"async-data-processor/durable"
	"async-data-processor/event"
)

// DefaultMinFree is room for what the server writes besides messages, above
// all acknowledgements, without which a full store could not be drained, and
// for what several publishers send until the next look at the disk.
const DefaultMinFree = 256 << 20

// ServerFolder is the name of the server's own folder in that of a store, by
// which a store is recognised.
const ServerFolder = "jetstream"

// Config says where the broker keeps its messages and who may reach it.
type Config struct {
	// Dir is the folder of the store, made if missing. One broker at a time
	// has it.
	Dir string
	// Shards is the number of shards, 1 to 2000.
	Shards int
	// Listen is the host:port at which other processes may connect; port 0 is
	// any free one. Empty means no listener at all.
	Listen string
	// Token is what other processes have to present, by nats://token@host:port.
	// It is required with Listen, and not used without.
	Token string
	// MinFree is how many bytes of Dir's file system are kept free: below it
	// publishes are refused at once, until there is more again. 0 means
	// DefaultMinFree.
	MinFree int64
	// AcceptLoss lets a damaged store be opened without what is damaged, which
	// is moved to the folder "damaged" in Dir. Without it that is an error.
	AcceptLoss bool
	// Events hears of the broker's connections, dead letters and repairs.
	Events event.Sink
}

// Broker is a server on a folder, and its client. It implements broker.Broker
// and keeps the promises of jetstream.Broker; moreover:
//
//   - An acknowledged publish survives the death of the process and a loss of
//     power.
//   - A full disk refuses publishes at once, and no delivery or settle. When
//     there is space again, the broker goes on by itself, after any error that
//     the server met meanwhile.
//   - A damaged store is refused, never silently short. The exception is a
//     whole block, not the last, that is removed by hand after a crash and
//     before the next start: it looks like one whose messages were all
//     acknowledged.
type Broker struct {
	*jetstream.Broker

	cfg   Config
	store *store
	space *durable.Watermark

	mu     sync.Mutex // guards what follows
	server *instance  // nil between the runs of a server
	down   error      // why there is none, or why it takes no publish
	stuck  bool       // one did not stop, and may still use the store

	names       map[string]*names // by stream; read-only
	namesSynced atomic.Bool       // the folders' own names are durable

	quit    chan struct{}
	watched sync.WaitGroup
	closing sync.Once
	closed  error // what Close returns; set by the first
}

var _ broker.Broker = (*Broker)(nil)

// Open takes the store, checks it, starts a server on it, and connects
// in the background; Ready tells when it has.
//
// The check reads the whole store. An error wraps ErrStoreInUse if another
// process has it, ErrStoreDamaged if messages are missing or cannot be read,
// or says what is wrong with the folder or the address to listen at. After an
// error nothing runs and nothing is held.
func Open(cfg Config) (_ *Broker, err error) {
	if cfg.Listen != "" && cfg.Token == "" {
		return nil, errors.New("embedded listener: a token is required")
	}
	if cfg.MinFree == 0 {
		cfg.MinFree = DefaultMinFree
	}
	if cfg.MinFree < 0 {
		return nil, fmt.Errorf("free space to keep: %d bytes", cfg.MinFree)
	}
	s, err := openStore(cfg.Dir)
	if err != nil {
		return nil, err
	}
	b := &Broker{
		cfg: cfg, store: s,
		space: durable.NewWatermark(s.dir, cfg.MinFree),
		names: map[string]*names{},
		quit:  make(chan struct{}),
	}
	for _, stream := range []string{jetstream.ShardStream, jetstream.DeadStream} {
		b.names[stream] = &names{dir: s.path(streamsPath, stream, messagesName)}
	}
	defer func() {
		if err != nil && !errors.Is(err, errStuck) {
			err = errors.Join(err, s.unlock())
		}
	}()
	if err := b.start(cfg.AcceptLoss); err != nil {
		return nil, err
	}
	if cfg.Listen != "" {
		b.cfg.Listen = b.server.Addr().String() // a restart keeps a port that was chosen
	}
	b.Broker, err = jetstream.New(jetstream.Config{
		Shards:   cfg.Shards,
		Replicas: 1,
		Events:   cfg.Events,
		Admit:    b.admit,
		Stored:   b.durable,
		Options:  []nats.Option{nats.InProcessServer(presentServer{b}), nats.Token(cfg.Token)},
	})
	if err != nil {
		return nil, errors.Join(err, b.stop())
	}
	b.watched.Go(b.watch)
	return b, nil
}

// Addr is where the listener listens, nil if there is none.
func (b *Broker) Addr() net.Addr {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server == nil || b.cfg.Listen == "" {
		return nil
	}
	return b.server.Addr()
}

// Close ends the client, then the server, and gives the store to the next
// process. It is bounded: if the disk does not answer, it returns an error and
// the store stays locked until this process ends. It may be called more than
// once, and then returns the same.
func (b *Broker) Close() error {
	b.closing.Do(func() {
		close(b.quit)
		b.watched.Wait()
		// The client first, so that its last settles are stored.
		b.closed = errors.Join(b.Broker.Close(), b.end())
	})
	return b.closed
}

// end stops the server in order and gives the store away.
func (b *Broker) end() error {
	i := b.running()
	if i != nil {
		i.settle()
	}
	if err := b.stop(); err != nil {
		return err
	}
	if b.stuck { // an earlier one; it has the only writer
		return errStuck
	}
	if i != nil {
		// A store without a manifest is as after a crash: checked, only with
		// less knowledge. That is not worth an error.
		_ = b.store.writeManifest()
	}
	return b.store.unlock()
}

// admit is asked before every publish.
func (b *Broker) admit() error {
	// First what an operator can repair; it is often the cause of the other.
	if err := b.space.Check(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.down
}

func (b *Broker) running() *instance {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.server
}

// presentServer gives the client its connections, each to the server that runs
// at the time.
type presentServer struct{ b *Broker }

// InProcessConn implements nats.InProcessConnProvider.
func (p presentServer) InProcessConn() (net.Conn, error) {
	if i := p.b.running(); i != nil {
		return i.InProcessConn()
	}
	return nil, errors.New("the embedded server is not running")
}
