package pipeline

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ackTimeout is how long a client may confirm nothing of what was sent to it. One whose
// machine or network has gone does not say so, and Linux would send again for 15 minutes.
// Meanwhile it would have one of the places of the live tail.
const ackTimeout = 30 * time.Second

var listener = impatient(ackTimeout)

// impatient makes listeners whose connections break if nothing is confirmed for so long
// (RFC 5482). Linux has connections inherit what is set for their listener.
func impatient(timeout time.Duration) net.ListenConfig {
	return net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		controlled := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(timeout.Milliseconds()))
		})
		return errors.Join(controlled, err)
	}}
}

// listenTCP listens on an address. localhost is both loopback addresses, as RFC 6761
// says: a client may try either first, and must not meet another program there. An IPv4
// address is of that family alone: net.Listen takes 0.0.0.0 for all addresses of both.
func listenTCP(addr string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if ip, e := netip.ParseAddr(host); e == nil && ip.Is4() {
		return listener.Listen(context.Background(), "tcp4", addr)
	}
	if err != nil || host != "localhost" {
		return listener.Listen(context.Background(), "tcp", addr)
	}
	const attempts = 10 // of a free port, which may be taken on the other address
	for range attempts {
		var l net.Listener
		if l, err = listenBoth(port); err == nil || port != "0" {
			return l, err
		}
	}
	return nil, err
}

// listenBoth listens on a port of both loopback addresses, or of the one there is.
func listenBoth(port string) (net.Listener, error) {
	first, err := listener.Listen(context.Background(), "tcp4", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		if missing(err) {
			return listener.Listen(context.Background(), "tcp6", net.JoinHostPort("::1", port))
		}
		return nil, err
	}
	_, port, err = net.SplitHostPort(first.Addr().String())
	var second net.Listener
	if err == nil {
		second, err = listener.Listen(context.Background(), "tcp6", net.JoinHostPort("::1", port))
	}
	switch {
	case err == nil:
		return newBoth(first, second), nil
	case missing(err):
		return first, nil
	}
	return nil, errors.Join(err, first.Close())
}

// missing tells that the machine lacks the family of an address.
func missing(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}

// both accepts connections of two listeners. Its address is that of the first.
type both struct {
	net.Listener
	second   net.Listener
	accepted chan accepted
	closed   chan struct{}
	closing  sync.Once
}

type accepted struct {
	conn net.Conn
	err  error
}

func newBoth(first, second net.Listener) *both {
	b := &both{Listener: first, second: second, accepted: make(chan accepted), closed: make(chan struct{})}
	go b.accept(first)
	go b.accept(second)
	return b
}

// accept passes on what l accepts until Close.
func (b *both) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		select {
		case b.accepted <- accepted{c, err}:
		case <-b.closed:
			if err == nil {
				_ = c.Close() // no one has seen it
			}
			return
		}
	}
}

// Accept implements net.Listener.
func (b *both) Accept() (net.Conn, error) {
	select {
	case a := <-b.accepted:
		return a.conn, a.err
	case <-b.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It may be called more than once.
func (b *both) Close() (err error) {
	b.closing.Do(func() {
		close(b.closed)
		err = errors.Join(b.Listener.Close(), b.second.Close())
	})
	return err
}
