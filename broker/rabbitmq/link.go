package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
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

// delay is the wait after the given number of failures in a row: at random, so
// that many clients do not come back at once.
func (t timing) delay(failures int, err error) time.Duration {
	if errors.As(err, new(refusal)) || failures >= maxLoginCuts && errors.As(err, new(loginCut)) {
		return t.refused/2 + rand.N(t.refused/2)
	}
	bound := t.maxDelay
	if failures < 30 {
		bound = min(bound, t.minDelay<<failures)
	}
	return rand.N(bound) + 1
}

func (l *link) open(ctx context.Context) (*session, error) {
	conn, sock, err := l.broker.dial(ctx, l.role)
	if err != nil {
		return nil, err
	}
	s := &session{
		broker: l.broker, link: l, conn: conn, sock: sock,
		lost:   conn.NotifyClose(make(chan *amqp.Error, 1)),
		blocks: conn.NotifyBlocked(make(chan amqp.Blocking, 16)),
		gone:   make(chan struct{}),
		repair: make(chan struct{}, 1),
	}
	end := context.AfterFunc(ctx, func() { _ = sock.Close() })
	err = s.declareAll()
	if err == nil {
		err = l.setup(s)
	}
	end()
	if err != nil {
		s.fail(err)
		s.shut()
		return nil, l.broker.target.explain(err)
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
	conn   *amqp.Connection
	sock   *socket
	loops  sync.WaitGroup

	// One or the other, by the link's role, is ready after setup.
	lane     *lane
	settling settling

	lost    chan *amqp.Error       // the library's word that the connection ended
	blocks  chan amqp.Blocking     // the broker's word about publishing
	blocked atomic.Pointer[string] // why it refuses publishes, or nil
	repair  chan struct{}          // asks for the queues to be declared again

	once  sync.Once
	cause error         // set before gone is closed, read-only after
	gone  chan struct{} // closed when the session is over
}

// fail ends the session for the given reason; the first reason counts.
func (s *session) fail(cause error) {
	s.once.Do(func() {
		s.cause = cause
		close(s.gone)
	})
}

// watch returns why the session ended.
func (s *session) watch(stopping <-chan struct{}) error {
	var repair <-chan time.Time
	for {
		select {
		case e := <-s.lost:
			if e == nil {
				e = amqp.ErrClosed
			}
			s.fail(s.broker.target.explain(e))
		case b := <-s.blocks:
			s.block(b)
		case <-s.repair:
			if repair == nil {
				repair = time.After(s.broker.timing.repair)
			}
		case <-repair:
			repair = nil
			if err := s.declareAll(); err != nil {
				s.fail(s.broker.target.explain(err))
			}
		case <-stopping:
			s.fail(broker.ErrClosed)
		case <-s.gone:
			return s.cause
		}
	}
}

func (s *session) block(b amqp.Blocking) {
	if b.Active {
		s.blocked.Store(&b.Reason)
		s.link.notify(broker.Notice{Kind: broker.Blocked, Err: errors.New(b.Reason)})
		return
	}
	if s.blocked.Swap(nil) != nil {
		s.link.notify(broker.Notice{Kind: broker.Unblocked})
	}
}

// shut closes the connection: in order if the broker answers soon, by force if
// not. The session must have failed before.
func (s *session) shut() {
	force := time.AfterFunc(s.broker.timing.close, func() { _ = s.sock.Close() })
	s.acknowledge()
	// Its own deadline cannot be relied on: each frame that arrives resets it.
	_ = s.conn.Close()
	force.Stop()
	_ = s.sock.Close()
	s.loops.Wait()
}

// channel opens a channel.
func (s *session) channel() (ch *amqp.Channel, err error) {
	err = s.rpc(func() error {
		ch, err = s.conn.Channel()
		return err
	})
	return ch, err
}

// rpc bounds a call that waits for the broker's answer, for which the library
// knows no bound. A broker that does not answer loses the connection.
func (s *session) rpc(call func() error) error {
	force := time.AfterFunc(s.broker.timing.rpc, func() { _ = s.sock.Close() })
	defer force.Stop()
	return call()
}
