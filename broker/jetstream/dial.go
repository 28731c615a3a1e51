package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"async-data-processor/broker/conn"
	"async-data-processor/message"
)

// socket is the connection below NATS and TLS. A write that fails ends it: the
// library would drop what it could not write and go on.
type socket struct{ conn.Socket }

func (s *socket) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	if err != nil {
		_ = s.Close()
	}
	return n, err
}

// dialer opens the sockets of one connection, which tries one server after the
// other, and keeps them in reach: the library knows no context.
type dialer struct {
	ctx     context.Context
	timeout time.Duration

	mu     sync.Mutex // guards what follows
	socket *socket    // the latest
	closed bool
	err    error // why the latest attempt failed, which the library does not tell
}

// Dial implements nats.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: d.timeout}
	c, err := dialer.DialContext(d.ctx, network, address)
	if err != nil {
		d.mu.Lock()
		d.err = err
		d.mu.Unlock()
		return nil, err
	}
	s := &socket{conn.Socket{Conn: c}}
	d.mu.Lock()
	d.socket = s
	closed := d.closed
	d.mu.Unlock()
	if closed {
		_ = s.Close()
	}
	return s, nil
}

// cut closes the socket, and those to come.
func (d *dialer) cut() {
	d.mu.Lock()
	d.closed = true
	s := d.socket
	d.mu.Unlock()
	if s != nil {
		_ = s.Close()
	}
}

// reason is the error of dialing where the library only says that no server
// was there.
func (d *dialer) reason(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if errors.Is(err, nats.ErrNoServers) && d.err != nil {
		return d.err
	}
	return err
}

// dial opens a connection for a role, in bounded time.
func (b *Broker) dial(ctx context.Context, role string) (*session, error) {
	s := &session{
		Life: conn.NewLife(), broker: b, role: role,
		dialer: &dialer{ctx: ctx, timeout: b.timing.dial},
	}
	options := []nats.Option{
		nats.Name("async-data-processor " + role),
		nats.NoReconnect(),
		nats.SetCustomDialer(s.dialer),
		nats.Timeout(b.timing.handshake),
		nats.FlusherTimeout(b.timing.write),
		nats.PingInterval(b.timing.heartbeat),
		nats.MaxPingsOutstanding(2),
		nats.ClosedHandler(s.ended),
		nats.ErrorHandler(s.failed),
		nats.LameDuckModeHandler(func(*nats.Conn) { s.giveUp(errLameDuck) }),
	}
	options = append(options, b.target.options...)

	end := context.AfterFunc(ctx, s.dialer.cut)
	c, err := nats.Connect(b.target.servers, options...)
	if others := b.others(); err != nil && others != "" && ctx.Err() == nil {
		var second error
		if c, second = nats.Connect(others, options...); second == nil {
			err = nil
		}
	}
	if !end() {
		if c != nil {
			c.Close()
		}
		return nil, b.target.explain(context.Cause(ctx))
	}
	if err != nil {
		s.dialer.cut() // the library does not in all cases
		return nil, b.target.explain(s.dialer.reason(err))
	}
	s.conn = c
	b.learn(c.DiscoveredServers())
	return s, nil
}

// checkServer returns why the server cannot carry envelopes.
func (s *session) checkServer() error {
	const largest = message.MaxEnvelopeBytes + headerRoom
	switch {
	case !s.conn.HeadersSupported():
		return conn.Refused(errors.New("the server does not support headers"))
	case s.conn.MaxPayload() < largest:
		return conn.Refused(fmt.Errorf("the server's max_payload is %d, want at least %d", s.conn.MaxPayload(), largest))
	default:
		return nil
	}
}

var errLameDuck = errors.New("the server is about to stop")

// ended hears that the connection is closed, by either side.
func (s *session) ended(c *nats.Conn) {
	s.giveUp(cmp.Or(c.LastError(), errors.New("the connection was closed")))
}

// failed hears of errors that do not close the connection. Without a permission
// nothing would ever answer, but on the bus.
func (s *session) failed(_ *nats.Conn, _ *nats.Subscription, err error) {
	switch {
	case !errors.Is(err, nats.ErrPermissionViolation) || harmless(err):
	case s.role == conn.Bus:
		if b := s.bus.Load(); b != nil { // else Prepare fails
			b.deny(err)
		}
	default:
		s.giveUp(err)
	}
}

// learn remembers the servers that a cluster tells of. They are tried after
// those of the URL, since their addresses may not be reachable from here.
func (b *Broker) learn(servers []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, server := range servers {
		_, address, ok := strings.Cut(server, "://")
		server = b.target.scheme + "://" + address
		if ok && !strings.Contains(b.target.servers, server) && !slices.Contains(b.servers, server) {
			b.servers = append(b.servers, server)
		}
	}
}

func (b *Broker) others() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.servers, ",")
}
