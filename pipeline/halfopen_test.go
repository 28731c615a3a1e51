package pipeline

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// withFD calls f with the descriptor of a connection.
func withFD(t *testing.T, c net.Conn, f func(fd int) error) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) { err = f(int(fd)) }), err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// vanish has a client receive nothing any more, and so confirm nothing, as if its machine
// was gone.
func vanish(fd int) error {
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
}

// TestHalfOpen: the connections of ten clients that are gone without a word break soon,
// although what is sent to them is little; that of one that is there does not.
func TestHalfOpen(t *testing.T) {
	const timeout = 500 * time.Millisecond
	config := impatient(timeout)
	l, err := config.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var conns []net.Conn // of the server
	for i := range 11 {
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
		if i > 0 {
			withFD(t, client, vanish)
		}
	}
	for end := time.Now().Add(time.Minute); len(conns) > 1; time.Sleep(timeout / 10) {
		left := conns[:1]
		for _, c := range conns[1:] {
			_, err := c.Write([]byte("x"))
			switch {
			case err == nil:
				left = append(left, c)
			case !errors.Is(err, syscall.ETIMEDOUT):
				t.Fatal(err)
			}
		}
		if conns = left; time.Now().After(end) {
			t.Fatalf("%d connections are left", len(conns)-1)
		}
	}
	if _, err := conns[0].Write([]byte("x")); err != nil {
		t.Errorf("a client that is there: %v", err)
	}
}

// TestListenersAreImpatient: every listener of ours has the time-out.
func TestListenersAreImpatient(t *testing.T) {
	for _, addr := range []string{"localhost:0", "127.0.0.1:0", ":0"} {
		l, err := listenTCP(addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		client, err := net.Dial("tcp4", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		withFD(t, conn, func(fd int) error {
			got, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
			if got != int(ackTimeout.Milliseconds()) {
				t.Errorf("%s: the time-out is %d ms", addr, got)
			}
			return err
		})
	}
}
