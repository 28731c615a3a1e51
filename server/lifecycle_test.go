package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/event"
	"async-data-processor/message"
)

func TestPublishFails(t *testing.T) {
	for name, tc := range map[string]struct {
		err    error
		header []string
		kind   kind
		detail string
	}{
		"no room":           {fmt.Errorf("%w: 3 MiB are free", message.ErrNoRoom), nil, notPublished, "the output takes nothing new now; nothing was published"},
		"not published":     {fmt.Errorf("broker is down: %w", message.ErrNotPublished), nil, notPublished, "nothing was published"},
		"unknown, no key":   {errors.New("connection lost"), nil, outcomeUnknown, "may be written twice"},
		"unknown, with key": {errors.New("connection lost"), []string{"Idempotency-Key", "k"}, outcomeUnknown, "is safe"},
	} {
		t.Run(name, func(t *testing.T) {
			rg := start(t, Config{})
			rg.then = func(context.Context, message.Submission) error { return tc.err }
			p := wantProblem(t, rg.post(entry, tc.header...), tc.kind)
			if !strings.Contains(p.Detail, tc.detail) {
				t.Errorf("got the detail %q, want %q", p.Detail, tc.detail)
			}
			if e := told[event.Refused](rg); !errors.Is(e.Err, tc.err) || e.Kind != tc.kind.name || e.Submission == "" || e.Bytes != len(entry) {
				t.Errorf("got %+v", e)
			}
		})
	}
}

// TestPublishTimeout has a broker that never answers.
func TestPublishTimeout(t *testing.T) {
	for _, timeout := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			var told event.Refused
			s := New(Config{
				Submitter: &fake{then: func(ctx context.Context, _ message.Submission) error {
					<-ctx.Done()
					return ctx.Err()
				}},
				PublishTimeout: timeout,
				Events:         func(e event.Event) { told = e.(event.Refused) },
			})
			want := timeout
			if want == 0 {
				want = DefaultPublishTimeout
			}
			for range 2 { // a later one has as long
				began := time.Now()
				w := httptest.NewRecorder()
				s.http.Handler.ServeHTTP(w, jsonRequest(entry))
				wantProblem(t, readAnswer(t, w.Result()), outcomeUnknown)
				if got := time.Since(began); got != want || told.Elapsed != want {
					t.Errorf("answered after %v, told %v, want %v", got, told.Elapsed, want)
				}
			}
			if !errors.Is(told.Err, context.DeadlineExceeded) || !strings.Contains(told.Err.Error(), "no confirm within") {
				t.Errorf("got the error %v", told.Err)
			}
		})
	}
}

func jsonRequest(body string) *http.Request {
	r := httptest.NewRequest("POST", "http://localhost/message", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	return r
}

func TestPanic(t *testing.T) {
	rg := start(t, Config{})
	rg.then = func(context.Context, message.Submission) error { panic("boom") }
	wantProblem(t, rg.post(entry), internalError)
	if e := told[event.Refused](rg); e.Status != 500 || !strings.Contains(e.Err.Error(), "panic: boom") || !strings.Contains(string(e.Stack), "lifecycle_test.go") {
		t.Errorf("got %+v with the stack %s", e, e.Stack)
	}
	rg.then = nil
	want201(t, rg.post(entry), 1)
	if e := told[event.Submitted](rg); e.Err != nil {
		t.Errorf("got %+v", e)
	}
}

func TestEvents(t *testing.T) {
	rg := start(t, Config{})
	id := want201(t, rg.post(gzipOf(t, entry), "X-Request-Id", "req-1._Z", "Content-Encoding", "gzip"), 1)
	e := told[event.Submitted](rg)
	if e.Elapsed <= 0 || e.Peer == "" {
		t.Errorf("got %+v", e)
	}
	e.Elapsed, e.Peer = 0, ""
	want := event.Submitted{
		Request:    event.Request{ID: "req-1._Z", Method: "POST", Path: "/message", Route: "/message", Status: 201, Bytes: len(entry)},
		Submission: id, Accepted: 1,
	}
	if e != want {
		t.Errorf("got %+v, want %+v", e, want)
	}

	rg.do("GET", "/%0a"+strings.Repeat("x", 1000)+"?token=1", nil)
	if e := told[event.Refused](rg); !strings.HasPrefix(e.Path, "/%0Axxx") && !strings.HasPrefix(e.Path, "/%0axxx") || len(e.Path) > 150 || strings.Contains(e.Path, "token") {
		t.Errorf("got the path %q", e.Path)
	}
	for _, path := range []string{"/", "/messag", "/message/", "/message/x", "/livez/x", "/%2e%2e/message"} {
		rg.do("GET", path, nil)
		if e := told[event.Refused](rg); e.Route != "" {
			t.Errorf("%s has the route %q", path, e.Route)
		}
	}
	rg.do("DELETE", "/message", nil)
	if e := told[event.Refused](rg); e.Route != "/message" {
		t.Errorf("a wrong method has the route %q", e.Route)
	}

	// The names in a body are the client's data as much as the values.
	rg.post(`[{"timestamp":"2019-10-12T08:10:54Z","p4yload":1,"p4yload":"p4yload"}]`)
	if e := told[event.Refused](rg); e.Err == nil || strings.Contains(e.Err.Error(), "p4yload") {
		t.Errorf("got the error %v", e.Err)
	}
}

func TestRequestID(t *testing.T) {
	rg := start(t, Config{})
	for id, taken := range map[string]bool{
		"abc.DEF_0-9": true, strings.Repeat("x", 128): true,
		strings.Repeat("x", 129): false, "a b": false, "": false, "ä": false, "a\"b": false, "a,b": false,
	} {
		for _, path := range []string{"/livez", "/nowhere"} {
			a := rg.do("GET", path, nil, "X-Request-Id", id)
			got := a.Header.Values("X-Request-Id")
			if len(got) != 1 || (got[0] == id) != taken || got[0] == "" {
				t.Errorf("%s: got X-Request-Id %q for %q", path, got, id)
			}
		}
	}
	if got := rg.do("GET", "/livez", nil, "X-Request-Id", "a", "X-Request-Id", "b").Header.Get("X-Request-Id"); len(got) != 26 {
		t.Errorf("got %q for two ids, want a new one", got)
	}
}

func TestReceipt(t *testing.T) {
	const id = "01JD8Y6G5V3X9Q2R7T4B1C0D5E"
	shards := []message.ShardCount{{Shard: 0, Messages: 1}, {Shard: 2, Messages: 2}, {Shard: 10, Messages: 3}}
	const want = `{"id":"01JD8Y6G5V3X9Q2R7T4B1C0D5E","accepted":6,"shards":{"0":1,"2":2,"10":3}}` + "\n"
	if location, got := receipt(id, 6, shards, nil); got != want || location != "/submissions/"+id {
		t.Errorf("got %s and %s, want %s", location, got, want)
	}
	const waited = `{"id":"01JD8Y6G5V3X9Q2R7T4B1C0D5E","accepted":6,"shards":{},"written":5,"dead":1,"done":true}` + "\n"
	if _, got := receipt(id, 6, nil, &Progress{Written: 5, Dead: 1, Done: true}); got != waited {
		t.Errorf("got %s, want %s", got, waited)
	}
	if n := testing.AllocsPerRun(100, func() { receipt(id, 6, shards, nil) }); n > 1 {
		t.Errorf("%v allocations, want the text's", n)
	}
}

func TestHealth(t *testing.T) {
	down := errors.New("broker is away")
	var checks []Check
	var probed event.Probed // the last one
	cfg := Config{Loopback: true, Ready: func() []Check { return checks }, Events: func(e event.Event) { probed, _ = e.(event.Probed) }}
	for name, s := range map[string]*Server{"server": New(cfg), "admin": NewAdmin(cfg)} {
		t.Run(name, func(t *testing.T) {
			get := func(method, path string) answer {
				w := httptest.NewRecorder()
				s.http.Handler.ServeHTTP(w, httptest.NewRequest(method, "http://localhost"+path, nil))
				return readAnswer(t, w.Result())
			}
			want := func(path string, status int, body string) {
				t.Helper()
				a := get("GET", path)
				if a.StatusCode != status || string(a.body) != body+"\n" || (a.Header.Get("Retry-After") != "") != (status == 503) {
					t.Errorf("%s: got %d %s %v, want %d %s", path, a.StatusCode, a.body, a.Header, status, body)
				}
				if probed.Status != status || (probed.Err != nil) != (status == 503) || probed.Readiness != (path != "/livez") {
					t.Errorf("%s: told %+v", path, probed)
				}
				if a := get("HEAD", path); a.StatusCode != status {
					t.Errorf("HEAD %s: got %d, want %d", path, a.StatusCode, status)
				}
			}
			checks = []Check{{Name: "broker"}}
			want("/livez", 200, `{"status":"ok"}`)
			want("/readyz", 200, `{"status":"ok"}`)
			want("/health?verbose", 200, `{"status":"ok","checks":{"broker":"ok"}}`)
			checks = []Check{{Name: "broker"}, {Name: "jobs", Err: down, Aside: true}}
			want("/readyz?verbose", 200, `{"status":"ok","checks":{"broker":"ok","jobs":"broker is away"}}`)
			checks = []Check{{Name: "broker", Err: down}, {Name: "output"}, {Name: "a", Err: down}}
			want("/livez", 200, `{"status":"ok"}`)
			want("/readyz", 503, `{"status":"unavailable"}`)
			want("/readyz?verbose=1", 503, `{"status":"unavailable","checks":{"broker":"broker is away","output":"ok","a":"broker is away"}}`)
			if got := probed.Err.Error(); got != "broker: broker is away\na: broker is away" {
				t.Errorf("told %q, want the order of the checks", got)
			}
			checks = nil
			want("/readyz?verbose", 200, `{"status":"ok"}`)
			checks = []Check{{Name: "broker"}}
			s.Drain()
			want("/livez", 200, `{"status":"ok"}`)
			want("/readyz", 503, `{"status":"unavailable"}`)
			want("/health?verbose", 503, `{"status":"unavailable","checks":{"server":"the server is stopping","broker":"ok"}}`)
		})
	}
	w := httptest.NewRecorder()
	NewAdmin(Config{}).http.Handler.ServeHTTP(w, jsonRequest(entry))
	wantProblem(t, readAnswer(t, w.Result()), notFound)
}

func TestDrain(t *testing.T) {
	rg := start(t, Config{Tokens: []string{"x"}})
	entered, release := rg.hold()
	underWay := make(chan answer)
	go func() { underWay <- rg.post(entry, "Authorization", "Bearer x") }()
	<-entered
	rg.server.Drain()
	a := rg.post(entry, "Authorization", "Bearer x")
	wantProblem(t, a, draining)
	if !a.Close {
		t.Error("a draining server keeps the connection")
	}
	wantProblem(t, rg.post(entry), unauthorized)

	stopped := make(chan error)
	go func() { stopped <- rg.server.Shutdown(context.Background()) }()
	<-rg.server.closing.Done()
	close(release)
	want201(t, <-underWay, 1)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	rg.wantSubmitted(1)
}

// TestShutdownWithUpload has a client that never finishes its body.
func TestShutdownWithUpload(t *testing.T) {
	reading := make(chan struct{}, 100)
	rg := start(t, Config{}, signalReads(reading), func(s *Server) { s.bodyGrace = 0 })
	c := rg.conn(upload(100) + "[")
	<-reading
	if err := rg.server.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	wantProblem(t, readConn(t, c, "POST"), draining)
	rg.wantSubmitted(0)
}

func TestSlowUpload(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *Server, p pipes) {
		s.http.ReadTimeout = 2 * time.Second // less than what a body may stall
		c := p.dial()
		defer c.Close()
		go func() { _, _ = io.WriteString(c, upload(100)+"[") }()
		a, took := answerOf(t, c)
		wantProblem(t, a, bodyTimeout)
		if took != s.http.ReadTimeout {
			t.Errorf("answered after %v", took)
		}
	})
}

func TestBrokenUpload(t *testing.T) {
	rg := start(t, Config{})
	p := wantProblem(t, rg.raw("POST /message HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), unreadableBody)
	if len(p.Errors) != 1 || p.Errors[0].Index != -1 {
		t.Errorf("got the errors %+v", p.Errors)
	}
	c := rg.conn(upload(100) + "[")
	must(t, c.(*net.TCPConn).CloseWrite())
	wantProblem(t, readConn(t, c, "POST"), unreadableBody)
	rg.wantSubmitted(0)
}

// signalReads tells when a body is about to be read.
func signalReads(reading chan<- struct{}) func(*Server) {
	return func(s *Server) {
		inner := s.http.Handler
		s.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Body = signalBody{r.Body, reading}
			inner.ServeHTTP(w, r)
		})
	}
}

type signalBody struct {
	io.ReadCloser
	reading chan<- struct{}
}

func (b signalBody) Read(p []byte) (int, error) {
	b.reading <- struct{}{}
	return b.ReadCloser.Read(p)
}

// TestShutdownDeadline has a broker that takes longer than the drain may.
func TestShutdownDeadline(t *testing.T) {
	rg := start(t, Config{})
	entered, release := rg.hold()
	c := rg.conn(upload(len(entry)) + entry)
	<-entered
	deadline := errors.New("the drain took too long")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(deadline)
	if err := rg.server.Shutdown(ctx); !errors.Is(err, deadline) {
		t.Errorf("got %v, want the context's cause", err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
	close(release)
	if e := told[event.Submitted](rg); e.Accepted != 1 {
		t.Errorf("got %+v", e)
	}
}

// TestShutdownUnread: a client that reads no answer holds a shutdown up for a moment,
// and one that waits for its outcome is waited for.
func TestShutdownUnread(t *testing.T) {
	rg := start(t, Config{})
	go func() {
		for range rg.events { // as many as answers
		}
	}()
	defer close(rg.events)
	c, err := net.Dial("tcp", rg.addr)
	must(t, err)
	defer c.Close()
	request := []byte("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
	for err == nil { // until neither side takes more
		must(t, c.SetWriteDeadline(time.Now().Add(time.Second)))
		_, err = c.Write(bytes.Repeat(request, 100))
	}
	entered, release := rg.hold()
	underWay := make(chan answer)
	go func() { underWay <- rg.post(entry) }()
	<-entered
	stopped := make(chan error)
	go func() { stopped <- rg.server.Shutdown(context.Background()) }()
	select {
	case err := <-stopped:
		t.Errorf("Shutdown has not waited for a submission: %v", err)
	case <-time.After(answerGrace + time.Second):
	}
	close(release)
	want201(t, <-underWay, 1)
	select {
	case err := <-stopped:
		must(t, err)
	case <-time.After(30 * time.Second): // the time-out of a write ends it after 75 s
		t.Fatal("Shutdown waits for a client that reads nothing")
	}
}

func TestShutdownBeforeServe(t *testing.T) {
	s := New(Config{Submitter: new(fake)})
	for range 2 {
		must(t, s.Shutdown(context.Background()))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	if err := s.Serve(l); err != nil {
		t.Errorf("Serve after Shutdown: %v, want nil", err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the listener is still open")
	}
}

func TestServeFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	l.Close()
	if err := New(Config{}).Serve(l); !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v, want an error with the address", err)
	}
}
