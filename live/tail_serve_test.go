package live

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/httpstream"
)

// pipes is a listener of connections that are in memory, so that the clock of synctest
// is that of their deadlines.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, open := <-p; open {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { close(p); return nil } // called once
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// dial asks for the tail, and returns the connection and what has read the head of the
// answer.
func (p pipes) dial(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	ours, theirs := net.Pipe()
	p <- theirs
	if _, err := io.WriteString(ours, "GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReaderSize(ours, 16)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "\r\n" {
			return ours, in
		}
	}
}

// serveTail serves the fake in memory until stop is called, which ends all requests.
func serveTail(t *testing.T, tail *fakeTail) (p pipes, stop func()) {
	p = make(pipes)
	ctx, cancel := context.WithCancelCause(context.Background())
	s := &http.Server{
		Handler: tail.served(t), ReadTimeout: time.Minute, WriteTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(p)
	}()
	return p, func() {
		cancel(errors.New("the process stops"))
		_ = s.Shutdown(context.Background())
		<-served
	}
}

// TestTailOutlivesTimeouts: the time-outs of the server are for requests that end, and a
// stream where nothing happens has a sign of life.
func TestTailOutlivesTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tail := &fakeTail{max: 1}
		p, stop := serveTail(t, tail)
		c, in := p.dial(t)
		var alive int
		go func() {
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				if line == ":\n" {
					alive++
				}
			}
		}()
		time.Sleep(10*time.Minute + time.Second)
		synctest.Wait()
		if len(tail.views()) != 1 || alive != 40 {
			t.Errorf("after 10 minutes there are %d views, and were %d signs of life, want 1 and 40", len(tail.views()), alive)
		}
		stop()
		c.Close()
	})
}

// TestTailSlowClients: clients that do not read lose their places, and nothing else
// waits for them. Clients whose machine is gone are such, too.
func TestTailSlowClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tail := &fakeTail{max: 64}
		p, stop := serveTail(t, tail)
		var conns []net.Conn
		for range 10 {
			c, _ := p.dial(t) // it reads the head, and no more
			conns = append(conns, c)
		}
		synctest.Wait()
		time.Sleep(httpstream.TakeTimeout - time.Millisecond)
		if n := len(tail.views()); n != 10 {
			t.Errorf("%d views within the time, want 10", n)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if n := len(tail.views()); n != 0 {
			t.Errorf("%d views after the time, want none", n)
		}
		stop()
		for _, c := range conns {
			c.Close()
		}
	})
}

// TestTailDrains: a stream ends with a farewell when the process stops, and one whose
// client does not read does not hold that up.
func TestTailDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tail := &fakeTail{max: 2}
		p, stop := serveTail(t, tail)
		reading, in := p.dial(t)
		text := make(chan string)
		go func() {
			got, _ := io.ReadAll(in)
			text <- string(got)
		}()
		stalled, _ := p.dial(t)
		synctest.Wait()
		began := time.Now()
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			stop()
		}()
		if got := <-text; !strings.Contains(got, "retry: 1000\nevent: bye\ndata: {\"type\":\"bye\",\"why\":\"drain\",\"retry_ms\":1000}\n\n") {
			t.Errorf("the stream was %q", got)
		}
		<-stopped
		if took := time.Since(began); took > 2*httpstream.ByeTimeout {
			t.Errorf("the end took %v", took)
		}
		reading.Close()
		stalled.Close()
	})
}
