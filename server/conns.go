package server

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"async-data-processor/event"
)

// bounded is a listener with at most so many open connections, and half of them for
// one address. netutil.LimitListener would let idle connections keep all others out,
// and hide CloseWrite, without which clients may not see an early answer.
type bounded struct {
	net.Listener
	server    *Server
	slots     chan struct{} // has one element for each open connection
	addresses *clients
	closed    chan struct{}
	once      sync.Once
}

// bound returns l with at most Config.MaxConnections open connections.
func (s *Server) bound(l net.Listener) net.Listener {
	if s.cfg.MaxConnections == 0 {
		return l
	}
	return &bounded{
		Listener: l, server: s, slots: make(chan struct{}, s.cfg.MaxConnections),
		addresses: newClients(), closed: make(chan struct{}),
	}
}

// Accept waits for a connection and then for a slot. While there is none, no connection
// is kept alive: the idle ones are closed at once, the others after their answer.
func (l *bounded) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			// net/http tries again. Other parts of the process need files, too.
			l.server.http.SetKeepAlivesEnabled(false)
			l.server.http.SetKeepAlivesEnabled(true)
		}
		if err != nil {
			return nil, err
		}
		client := l.addresses.ofAddress(c.RemoteAddr().String())
		if !within(client, 1, max(1, int64(cap(l.slots))/2)) {
			l.tell("refused a connection from %v: its address has half of the %d there may be", c.RemoteAddr(), cap(l.slots))
			_ = c.Close()
			continue
		}
		if !l.takeSlot() {
			client.Add(-1)
			_ = c.Close()
			return nil, net.ErrClosed
		}
		return &connection{Conn: c, slots: l.slots, client: client}, nil
	}
}

// takeSlot returns false if the listener was closed before there was a slot.
func (l *bounded) takeSlot() bool {
	select {
	case l.slots <- struct{}{}:
		return true
	default:
	}
	l.tell("all %d connections that there may be are open: closing the idle ones, for others wait", cap(l.slots))
	l.server.http.SetKeepAlivesEnabled(false)
	defer l.server.http.SetKeepAlivesEnabled(true)
	select {
	case l.slots <- struct{}{}:
		return true
	case <-l.closed:
		return false
	}
}

func (l *bounded) tell(format string, args ...any) {
	l.server.cfg.Events.Send(event.ConnectionFailed{Err: fmt.Errorf(format, args...)})
}

func (l *bounded) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// connection is one that has a slot until it is closed.
type connection struct {
	net.Conn
	slots  <-chan struct{}
	client *atomic.Int64
	once   sync.Once
}

func (c *connection) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.client.Add(-1)
		<-c.slots
	})
	return err
}

// CloseWrite lets net/http say the last word of a connection before it closes it.
func (c *connection) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
