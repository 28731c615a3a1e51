package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"async-data-processor/event"
	"async-data-processor/message"
)

// from opens a connection from an address of this machine.
func (rg *rig) from(host string) net.Conn {
	rg.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(host)}}
	c, err := d.Dial("tcp", rg.addr)
	must(rg.t, err)
	rg.t.Cleanup(func() { c.Close() })
	must(rg.t, c.SetDeadline(time.Now().Add(20*time.Second)))
	return c
}

// asks sends a request and reads the answer; the connection stays open.
func asks(c net.Conn) error {
	if _, err := io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

// signalIdle tells of each connection that becomes idle in the eyes of net/http.
func signalIdle(idle chan<- struct{}) func(*Server) {
	return func(s *Server) {
		s.http.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateIdle {
				idle <- struct{}{}
			}
		}
	}
}

// TestConnections: idle connections keep no client out, and one address has half of
// them at most.
func TestConnections(t *testing.T) {
	becameIdle := make(chan struct{}, 100)
	rg := start(t, Config{MaxConnections: 6}, signalIdle(becameIdle))
	var idle []net.Conn
	for _, host := range []string{"127.0.0.1", "127.0.0.2"} {
		for range 3 {
			c := rg.from(host)
			must(t, asks(c))
			<-becameIdle
			idle = append(idle, c)
		}
	}
	if err := asks(rg.from("127.0.0.1")); err == nil {
		t.Error("an address has more than half of the connections")
	}
	for range 3 {
		must(t, asks(rg.from("127.0.0.3"))) // makes room for itself
	}
	for _, c := range idle[:3] {
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("an idle connection: got %v, want its end", err)
		}
	}
	told := map[bool]int{}
	for len(rg.events) > 0 {
		if e, ok := (<-rg.events).(event.ConnectionFailed); ok {
			told[strings.Contains(e.Err.Error(), "half of the 6")]++
		}
	}
	if told[true] != 1 || told[false] == 0 {
		t.Errorf("told %v, want one refusal, and that the connections were used up", told)
	}
	// Slots are given back: more connections than there may be at a time. The server may
	// take a moment to see that one has ended.
	for range 10 {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			c := rg.from("127.0.0.4")
			err := asks(c)
			must(t, c.Close())
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("no slot is given back: %v", err)
			}
		}
	}
}

// scarce is a listener of a process that has no descriptors left, at first.
type scarce struct {
	net.Listener
	failures atomic.Int32
}

func (s *scarce) Accept() (net.Conn, error) {
	if s.failures.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return s.Listener.Accept()
}

// TestOutOfDescriptors: a lack of descriptors ends nothing, and costs the idle
// connections.
func TestOutOfDescriptors(t *testing.T) {
	becameIdle := make(chan struct{}, 100)
	rg := start(t, Config{MaxConnections: 10}, signalIdle(becameIdle))
	idle := rg.from("127.0.0.1")
	must(t, asks(idle))
	<-becameIdle
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	second := &scarce{Listener: l}
	second.failures.Store(2)
	served := make(chan error, 1)
	go func() { served <- rg.server.Serve(second) }()
	rg.addr = l.Addr().String()
	must(t, asks(rg.from("127.0.0.1")))
	if _, err := idle.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("an idle connection: got %v, want its end", err)
	}
	must(t, rg.server.Shutdown(t.Context()))
	must(t, <-served)
}

// TestShareOfOneClient: what one client holds leaves room for the others.
func TestShareOfOneClient(t *testing.T) {
	rg := start(t, Config{Tokens: []string{"a", "b"}})
	largest := func(value string) string {
		text := `{"timestamp":"2019-10-12T08:10:54Z","value":"` + value + `"}`
		return text + strings.Repeat(" ", MaxBodyBytes-len(text))
	}
	greedy := largest("greedy")
	entered, release, answers := make(chan bool), make(chan bool), make(chan answer, 4)
	rg.then = func(_ context.Context, s message.Submission) error {
		if strings.Contains(string(s.Messages[0].Line), "greedy") {
			entered <- true
			<-release
		}
		return nil
	}
	defer close(release)
	for i, authorization := range []string{"Bearer a", "bearer  a", "BEARER a", "Bearer a"} { // one token
		go func() { answers <- rg.post(greedy, "Authorization", authorization) }()
		select {
		case <-entered:
			if i == 3 {
				t.Fatal("one client has more than half")
			}
		case a := <-answers:
			if wantProblem(t, a, overloaded); i < 3 {
				t.Fatalf("body %d is refused", i)
			}
		}
	}
	if used, share := rg.server.budget.used.Load(), rg.server.budget.share; used > share {
		t.Errorf("one client has %d bytes, its share is %d", used, share)
	}
	want201(t, rg.post(largest("modest"), "Authorization", "Bearer b"), 1)
	for range 3 {
		release <- true
		want201(t, <-answers, 1)
	}
}

// TestClients: a client is an address without its port; an IPv6 network of /64 is one.
func TestClients(t *testing.T) {
	c := newClients()
	for _, same := range [][2]string{
		{"192.0.2.1:1", "192.0.2.1:65535"},
		{"192.0.2.1:1", "[::ffff:192.0.2.1]:1"},
		{"[2001:db8::1]:1", "[2001:db8::ffff:ffff:ffff:ffff]:2"},
		{"[fe80::1%eth0]:1", "[fe80::1%eth1]:1"},
		{"@", "@"},
	} {
		if c.ofAddress(same[0]) != c.ofAddress(same[1]) {
			t.Errorf("%s and %s are two clients", same[0], same[1])
		}
	}
	seen := map[*atomic.Int64]bool{}
	for i := range 1000 {
		seen[c.ofAddress(fmt.Sprintf("192.0.%d.%d:1", i/256, i%256))] = true
		seen[c.ofAddress(fmt.Sprintf("[2001:db8:0:%x::1]:1", i))] = true
	}
	if len(seen) < 1400 { // by chance two have one counter
		t.Errorf("2000 clients have %d counters", len(seen))
	}
	if n := testing.AllocsPerRun(100, func() { c.ofAddress("[2001:db8::1]:1") }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// TestConnectionFailed: what net/http has to report, here a panic outside of the
// server's handlers, is an event.
func TestConnectionFailed(t *testing.T) {
	rg := start(t, Config{}, func(s *Server) {
		s.http.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("outside") })
	})
	c := rg.conn("GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Log(err) // the connection was cut, as expected
	}
	if e := told[event.ConnectionFailed](rg); !strings.Contains(e.Err.Error(), "outside") {
		t.Errorf("got %v", e.Err)
	}
}
