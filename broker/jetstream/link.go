package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// link keeps one connection to the broker, for one role. Each connection is a
// session; nothing of a session survives it.
type link struct {
	broker *Broker
	role   string
	setup  func(*session) error // prepares a session for its role

	stopping chan struct{} // closed by stop
	stopOnce sync.Once

	mu      sync.Mutex    // guards what follows
	session *session      // nil while there is none
	err     error         // why there is none
	changed chan struct{} // closed, and replaced, when session changes
}

func newLink(b *Broker, role string, setup func(*session) error) *link {
	return &link{
		broker: b, role: role, setup: setup,
		stopping: make(chan struct{}), changed: make(chan struct{}),
		err: fmt.Errorf("%s: not connected yet", b.target.name),
	}
}

// stop asks run to give up the session and return. Close must have begun, so
// that no attempt to connect is under way for long.
func (l *link) stop() { l.stopOnce.Do(func() { close(l.stopping) }) }

// run connects and reconnects until stop.
func (l *link) run() {
	failures := 0
	for {
		began := time.Now()
		s, err := l.open(l.broker.ctx)
		if err == nil {
			l.set(s, nil)
			l.notify(broker.Notice{Kind: broker.Connected})
			err = s.watch(l.stopping)
			l.set(nil, err)
			s.shut()
			if time.Since(began) > l.broker.timing.maxDelay {
				failures = 0 // else it flaps, and is treated as failing
			}
		}
		delay := l.broker.timing.delay(failures, err)
		failures++
		l.set(nil, err)
		select {
		case <-l.broker.ctx.Done():
			l.set(nil, broker.ErrClosed)
			return
		default:
		}
		l.notify(broker.Notice{Kind: broker.Lost, Err: err, Retry: delay})
		select {
		case <-time.After(delay):
		case <-l.broker.ctx.Done():
		}
	}
}

func (l *link) open(ctx context.Context) (*session, error) {
	s := &session{
		broker: l.broker, link: l,
		gone: make(chan struct{}), repair: make(chan struct{}, 1),
		subs: map[*subscription]struct{}{},
	}
	err := s.dial(ctx)
	if err == nil {
		end := context.AfterFunc(ctx, s.dialer.cut)
		s.js, err = jetstream.New(s.conn)
		if err == nil {
			err = s.ensure()
		}
		if err == nil {
			err = l.setup(s)
		}
		end()
	}
	if err != nil {
		err = l.broker.target.explain(err)
		s.fail(err)
		s.shut()
		return nil, err
	}
	return s, nil
}

func (l *link) set(s *session, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session, l.err = s, err
	close(l.changed)
	l.changed = make(chan struct{})
}

// current returns the session, or why there is none.
func (l *link) current() (*session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session != nil {
		return l.session, nil
	}
	return nil, l.err
}

// await returns a session that is up, waiting for it until ctx is done or the
// link has stopped.
func (l *link) await(ctx context.Context) (*session, error) {
	for {
		l.mu.Lock()
		s, err, changed := l.session, l.err, l.changed
		l.mu.Unlock()
		if s != nil {
			return s, nil
		}
		if errors.Is(err, broker.ErrClosed) {
			return nil, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (l *link) notify(n broker.Notice) {
	n.Role, n.Shard = l.role, -1
	l.broker.notify(n)
}

// session is one connection and everything that ends with it.
type session struct {
	broker *Broker
	link   *link
	dialer *dialer             // these three are set by open, read-only after
	conn   *nats.Conn          // nil if there was no connection
	js     jetstream.JetStream // for administration
	lane   *lane               // set by setup, read-only after; nil when consuming
	loops  sync.WaitGroup
	repair chan struct{} // asks for the streams to be looked at again

	settling settling // not used when publishing

	once  sync.Once
	cause error         // set before gone is closed, read-only after
	gone  chan struct{} // closed when the session is over

	mu   sync.Mutex                 // guards what follows
	subs map[*subscription]struct{} // those with something unsettled; nil when shut
}

// fail ends the session for the given reason; the first reason counts.
func (s *session) fail(cause error) {
	s.once.Do(func() {
		s.cause = cause
		close(s.gone)
	})
}

// over tells whether the session has ended, or is about to.
func (s *session) over() bool {
	select {
	case <-s.gone:
		return true
	default:
		return s.conn.IsClosed()
	}
}

// watch returns why the session ended.
func (s *session) watch(stopping <-chan struct{}) error {
	b := s.broker
	probe := time.NewTicker(b.timing.probe)
	defer probe.Stop()
	for {
		select {
		case <-probe.C:
			s.probe()
		case <-s.repair:
			if err := s.ensure(); err != nil {
				s.fail(b.target.explain(err))
			}
			s.probe()
		case <-stopping:
			s.fail(broker.ErrClosed)
		case <-s.gone:
			return s.cause
		}
	}
}

// probe looks whether the server's reason to refuse publishes is gone.
func (s *session) probe() {
	b := s.broker
	if s.lane == nil || b.full.reason() == nil {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, b.timing.rpc)
	defer cancel()
	stream, err := s.js.Stream(ctx, ShardStream)
	if err != nil {
		return
	}
	info := stream.CachedInfo()
	room := (info.Config.MaxBytes <= 0 || info.State.Bytes+message.MaxEnvelopeBytes <= uint64(info.Config.MaxBytes)) &&
		(info.Config.MaxMsgs <= 0 || info.State.Msgs < uint64(info.Config.MaxMsgs))
	if b.full.over(room, b.timing.blocked) {
		b.block(&b.full, nil)
	}
}

// shut closes the connection: in order if the broker answers soon, by force if
// not. The session must have failed before.
func (s *session) shut() {
	if s.conn == nil {
		s.loops.Wait()
		return
	}
	force := time.AfterFunc(s.broker.timing.close, s.dialer.cut)
	s.leave()
	s.conn.Close()
	force.Stop()
	s.dialer.cut()
	s.loops.Wait()
}

// flush waits until the server has read what was sent, for a bounded time.
func (s *session) flush() error { return s.conn.FlushTimeout(s.broker.timing.close) }

// askRepair lets the streams be looked at again.
func (s *session) askRepair() {
	select {
	case s.repair <- struct{}{}:
	default: // it is asked for already
	}
}
