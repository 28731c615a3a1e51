package pipeline

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLocalhostIsBoth: a client that looks localhost up meets this program on each
// address that it may get, and no other program.
func TestLocalhostIsBoth(t *testing.T) {
	families := []string{"127.0.0.1"}
	if six, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		families = append(families, "::1")
		six.Close()
	} else if !missing(err) {
		t.Fatal(err)
	}
	l, err := listenTCP("localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil || !strings.HasPrefix(l.Addr().String(), "127.0.0.1:") {
		t.Errorf("it listens on %v", l.Addr())
	}
	for _, host := range families {
		client, err := net.Dial("tcp", net.JoinHostPort(host, port))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		conn, err := l.Accept()
		if err != nil || conn.RemoteAddr().String() != client.LocalAddr().String() {
			t.Errorf("accepted %v, %v; want %v", conn.RemoteAddr(), err, client.LocalAddr())
		}
		conn.Close()
	}
	waiting, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port)) // that is never accepted
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	for range 2 {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	for _, host := range families {
		if _, err := net.Dial("tcp", net.JoinHostPort(host, port)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s after Close: %v", host, err)
		}
	}
}

// TestLocalhostIsTaken: another program on one of the addresses would get what clients
// mean for this one.
func TestLocalhostIsTaken(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		other, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if host == "::1" && missing(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		_, port, _ := net.SplitHostPort(other.Addr().String())
		if l, err := listenTCP("localhost:" + port); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s is taken: %v, %v", host, l, err)
		}
	}
}

// TestIPv4IsNotIPv6: 0.0.0.0 opens no address that its reader did not think of.
func TestIPv4IsNotIPv6(t *testing.T) {
	l, err := listenTCP("0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil || l.Addr().String() != "0.0.0.0:"+port {
		t.Errorf("it listens on %v, %v", l.Addr(), err)
	}
	if conn, err := net.Dial("tcp", "127.0.0.1:"+port); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
	if conn, err := net.Dial("tcp", "[::1]:"+port); err == nil {
		conn.Close()
		t.Error("IPv6 is served, too")
	}
}

// TestFreeGivesUp: folders of a disk that hangs do not hold up the end.
func TestFreeGivesUp(t *testing.T) {
	hangs := make(chan struct{})
	defer close(hangs)
	p := process{closers: []func() error{func() error { <-hangs; return nil }}}
	began := time.Now()
	p.free()
	if took := time.Since(began); took < freeTimeout || took > time.Minute {
		t.Errorf("it took %v", took)
	}
}
