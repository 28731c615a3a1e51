package server

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections live in a bubble of synctest.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error   { close(p.closed); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// dial returns the client's end of a new connection.
func (p pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours
}

// inBubble runs a test of a server whose time is that of a bubble.
func inBubble(t *testing.T, cfg Config, test func(t *testing.T, s *Server, p pipes)) {
	synctest.Test(t, func(t *testing.T) {
		cfg.Submitter, cfg.Hosts = new(fake), []string{"x"}
		s, p := New(cfg), pipes{make(chan net.Conn), make(chan struct{})}
		served := make(chan error)
		go func() { served <- s.Serve(p) }()
		test(t, s, p)
		must(t, s.Shutdown(context.Background()))
		must(t, <-served)
		if used := s.budget.used.Load(); used != 0 {
			t.Errorf("%d bytes of the budget were not given back", used)
		}
	})
}

// answerOf reads the next answer on a connection, and says how long it took.
func answerOf(t *testing.T, c net.Conn) (a answer, took time.Duration) {
	t.Helper()
	began := time.Now()
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "POST"})
	must(t, err)
	return readAnswer(t, res), time.Since(began)
}

// TestSlowBodies: a body that stalls or trickles is refused in some seconds. One
// that pauses, or comes slowly, is not.
func TestSlowBodies(t *testing.T) {
	for name, tc := range map[string]struct {
		chunk    int // bytes at a time
		every    time.Duration
		times    int
		detail   string // of the 408; empty for a 201
		earliest time.Duration
		latest   time.Duration
	}{
		"silent":         {1, time.Hour, 0, errStalled.Error(), 5 * time.Second, 7 * time.Second},
		"stalls":         {8 << 20, time.Hour, 1, errStalled.Error(), 5 * time.Second, 7 * time.Second},
		"a byte at once": {1, time.Second, 3600, errSlow.Error(), 5 * time.Second, 7 * time.Second},
		"a byte in four": {1, 4 * time.Second, 3600, errSlow.Error(), 5 * time.Second, 7 * time.Second},
		"512 B/s":        {2048, 4 * time.Second, 3600, errSlow.Error(), 5 * time.Second, 30 * time.Second},
		"4 KiB/s":        {4096, time.Second, 40, "", 40 * time.Second, 40 * time.Second},
		"pauses":         {32768, 4 * time.Second, 10, "", 40 * time.Second, 40 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, s *Server, p pipes) {
				c := p.dial()
				defer c.Close()
				body := entry + strings.Repeat(" ", tc.chunk*max(1, tc.times))
				answered := make(chan struct{})
				defer close(answered)
				go func() {
					_, _ = io.WriteString(c, upload(len(body)))
					for sent := 0; sent < tc.chunk*tc.times; sent += tc.chunk {
						if _, err := io.WriteString(c, body[sent:sent+tc.chunk]); err != nil {
							return // it was refused
						}
						select {
						case <-time.After(tc.every):
						case <-answered:
						}
					}
					if tc.detail == "" {
						_, _ = io.WriteString(c, body[tc.chunk*tc.times:])
					}
				}()
				a, took := answerOf(t, c)
				if tc.detail == "" {
					want201(t, a, 1)
				} else if got := wantProblem(t, a, bodyTimeout); !strings.HasPrefix(got.Detail, tc.detail) {
					t.Errorf("got the detail %q, want %q", got.Detail, tc.detail)
				}
				if took < tc.earliest || took > tc.latest {
					t.Errorf("answered after %v, want %v to %v", took, tc.earliest, tc.latest)
				}
			})
		})
	}
}

// TestLookRests: no timer runs while no body arrives, and the next body starts it.
func TestLookRests(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *Server, p pipes) {
		for range 3 {
			c := p.dial()
			go func() { _, _ = io.WriteString(c, upload(len(entry))+entry) }()
			a, _ := answerOf(t, c)
			want201(t, a, 1)
			must(t, c.Close())
			time.Sleep(10 * lookInterval)
			s.mu.Lock()
			if s.looking || len(s.arriving) > 0 {
				t.Errorf("looking: %v, at %d bodies", s.looking, len(s.arriving))
			}
			s.mu.Unlock()
		}
	})
}

// TestIdleTimeout: an idle connection outlives the balancers' sixty seconds.
func TestIdleTimeout(t *testing.T) {
	for set, want := range map[time.Duration]time.Duration{0: 75 * time.Second, 5 * time.Minute: 5 * time.Minute} {
		inBubble(t, Config{IdleTimeout: set}, func(t *testing.T, s *Server, p pipes) {
			c := p.dial()
			defer c.Close()
			go func() { _, _ = io.WriteString(c, upload(len(entry))+entry) }()
			a, _ := answerOf(t, c)
			want201(t, a, 1)
			began := time.Now()
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("got %v, want the end of the connection", err)
			}
			if idle := time.Since(began); idle < want || idle > want+time.Second {
				t.Errorf("closed after %v, want %v", idle, want)
			}
		})
	}
}
