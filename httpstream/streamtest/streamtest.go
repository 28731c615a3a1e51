// Package streamtest serves tests over connections in memory, so that the clock of
// testing/synctest is that of their deadlines.
package streamtest

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Pipes is a listener of such connections: it accepts what is sent to it.
type Pipes chan net.Conn

// Accept implements net.Listener.
func (p Pipes) Accept() (net.Conn, error) {
	if c, open := <-p; open {
		return c, nil
	}
	return nil, net.ErrClosed
}

// Close implements net.Listener. It is called once.
func (p Pipes) Close() error { close(p); return nil }

// Addr implements net.Listener.
func (p Pipes) Addr() net.Addr { return &net.TCPAddr{} }

// Serve serves with time-outs of a minute until stop is called, which ends all requests.
func Serve(h http.Handler) (p Pipes, stop func()) {
	p = make(Pipes)
	ctx, cancel := context.WithCancelCause(context.Background())
	s := &http.Server{
		Handler: h, ReadTimeout: time.Minute, WriteTimeout: time.Minute,
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

// Get asks for a target with lines in the header, and returns the connection, what has
// read the head of the answer and hardly more, and the head.
func (p Pipes) Get(t testing.TB, target string, lines ...string) (net.Conn, *bufio.Reader, string) {
	t.Helper()
	ours, theirs := net.Pipe()
	p <- theirs
	lines = append([]string{"GET " + target + " HTTP/1.1", "Host: localhost"}, lines...)
	if _, err := io.WriteString(ours, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	in, head := bufio.NewReaderSize(ours, 16), ""
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "\r\n" {
			return ours, in, head
		}
		head += line
	}
}
