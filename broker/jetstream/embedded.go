package jetstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// EmbeddedConfig says where an embedded broker keeps its messages and who may
// reach it.
type EmbeddedConfig struct {
	// Dir is the folder of the store, made if missing. One broker at a time
	// has it.
	Dir string
	// Shards is the number of shards, as in Config.
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
	// Notify hears of the broker's ups and downs. It may be nil, must not block
	// and may be called concurrently.
	Notify func(broker.Notice)
}

// StoreMended: a damaged store was opened because the loss was accepted; Err
// says what it was.
const StoreMended broker.NoticeKind = "broker store mended"

// Embedded is a broker in this process: a server on a folder, and its client.
// It implements broker.Broker and keeps the promises of Broker; moreover:
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
type Embedded struct {
	*Broker

	cfg   EmbeddedConfig
	store *store
	space *space

	mu     sync.Mutex // guards what follows
	server *instance  // nil between the runs of a server
	down   error      // why there is none, or why it takes no publish
	stuck  bool       // one did not stop, and may still use the store

	names   names
	founded atomic.Bool // the folders' own names are durable

	quit    chan struct{}
	watched sync.WaitGroup
	closing sync.Once
	closed  error // what Close returns; set by the first
}

var _ broker.Broker = (*Embedded)(nil)

// OpenEmbedded takes the store, checks it, starts a server on it, and connects
// in the background; Ready tells when it has.
//
// The check reads the whole store. An error wraps ErrStoreInUse if another
// process has it, ErrStoreDamaged if messages are missing or cannot be read,
// or says what is wrong with the folder or the address to listen at. After an
// error nothing runs and nothing is held.
func OpenEmbedded(cfg EmbeddedConfig) (*Embedded, error) { return newEmbedded(cfg, defaultTiming) }

func newEmbedded(cfg EmbeddedConfig, tm timing) (_ *Embedded, err error) {
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
	e := &Embedded{
		cfg: cfg, store: s,
		space: &space{dir: s.dir, minFree: cfg.MinFree},
		names: names{dir: s.path(streamsPath, shardStream, messagesName)},
		quit:  make(chan struct{}),
	}
	defer func() {
		if err != nil && !errors.Is(err, errStuck) {
			err = errors.Join(err, s.unlock())
		}
	}()
	if err := e.start(cfg.AcceptLoss); err != nil {
		return nil, err
	}
	if cfg.Listen != "" {
		e.cfg.Listen = e.server.Addr().String() // a restart keeps a port that was chosen
	}
	e.Broker, err = newBroker(Config{
		Shards:   cfg.Shards,
		Replicas: 1,
		Notify:   cfg.Notify,
		Admit:    e.admit,
		Options:  []nats.Option{nats.InProcessServer(presentServer{e}), nats.Token(cfg.Token)},
	}, tm)
	if err != nil {
		return nil, errors.Join(err, e.stop())
	}
	e.watched.Go(e.watch)
	return e, nil
}

// Publish implements broker.Broker.
func (e *Embedded) Publish(ctx context.Context, envelope message.Envelope) error {
	if err := e.Broker.Publish(ctx, envelope); err != nil {
		return err
	}
	if err := e.durable(); err != nil {
		return unknown(fmt.Errorf("%w: %w", errNames, err))
	}
	return nil
}

// Addr is where the listener listens, nil if there is none.
func (e *Embedded) Addr() net.Addr {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.server == nil || e.cfg.Listen == "" {
		return nil
	}
	return e.server.Addr()
}

// Close ends the client, then the server, and gives the store to the next
// process. It is bounded: if the disk does not answer, it returns an error and
// the store stays locked until this process ends. It may be called more than
// once, and then returns the same.
func (e *Embedded) Close() error {
	e.closing.Do(func() {
		close(e.quit)
		e.watched.Wait()
		// The client first, so that its last settles are stored.
		e.closed = errors.Join(e.Broker.Close(), e.end())
	})
	return e.closed
}

// end stops the server in order and gives the store away.
func (e *Embedded) end() error {
	i := e.running()
	if i != nil {
		i.settle()
	}
	if err := e.stop(); err != nil {
		return err
	}
	if e.stuck { // an earlier one; nobody else writes it any more
		return errStuck
	}
	if i != nil {
		// A store without a manifest is as after a crash: checked, only with
		// less knowledge. That is not worth an error.
		_ = e.store.writeManifest()
	}
	return e.store.unlock()
}

// admit is asked before every publish.
func (e *Embedded) admit() error {
	// First what an operator can mend; it is often the cause of the other.
	if err := e.space.check(); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.down
}

func (e *Embedded) running() *instance {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.server
}

func (e *Embedded) notify(n broker.Notice) {
	if e.cfg.Notify != nil {
		e.cfg.Notify(n)
	}
}

// presentServer gives the client its connections, each to the server that runs
// at the time.
type presentServer struct{ e *Embedded }

// InProcessConn implements nats.InProcessConnProvider.
func (p presentServer) InProcessConn() (net.Conn, error) {
	if i := p.e.running(); i != nil {
		return i.InProcessConn()
	}
	return nil, errors.New("the embedded server is not running")
}
