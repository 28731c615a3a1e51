package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

// fake is a server that does what a real one cannot be made to do. It lives in a bubble
// of synctest, with pipes for a network.
type fake struct {
	t      tester
	limits Limits
	dedupe int
	speak  string                  // the subprotocol, if another one
	serve  func(*peer)             // behind the handshake; its end cuts the connection
	wrap   func(net.Conn) net.Conn // the client's end of each connection

	listener *pipes

	mu     sync.Mutex // guards what follows
	answer func(w http.ResponseWriter, r *http.Request) bool
	dials  int               // connections
	frames map[string]string // entries, by session and reference
	stored map[string]int    // how often each entry is durable
}

// tester is what a test or a check of the model is to a fake.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Cleanup(func())
}

var fakeLimits = Limits{Frame: 4096, Entries: 100, Entry: 1024, Window: 8, WindowBytes: 16384}

// newFake starts a server that accepts what comes, unless serve is set.
func newFake(t tester) *fake {
	f := &fake{
		t: t, limits: fakeLimits, dedupe: 3600, speak: Subprotocol,
		frames: make(map[string]string), stored: make(map[string]int),
		listener: &pipes{conns: make(chan net.Conn), closed: make(chan struct{})},
	}
	f.serve = func(p *peer) {
		for in, ok := p.read(); ok; in, ok = p.read() {
			p.accept(in)
		}
	}
	server := &http.Server{Handler: f}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(f.listener)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	return f
}

// config is of a client of the server.
func (f *fake) config() Config {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		select {
		case f.listener.conns <- theirs:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		f.mu.Lock()
		f.dials++
		f.mu.Unlock()
		if f.wrap != nil {
			return f.wrap(ours), nil
		}
		return ours, nil
	}}
	f.t.Cleanup(transport.CloseIdleConnections)
	return Config{URL: "http://fake", HTTP: &http.Client{Transport: transport}, Token: "hunter2"}
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	answer := f.answer
	f.mu.Unlock()
	if answer != nil && answer(w, r) {
		return
	}
	if r.URL.Path != "/message" || r.Header.Get("Authorization") != "Bearer hunter2" || len(r.URL.Query().Get("session")) != 26 {
		f.t.Errorf("%s with %v, want /message with a session and the token", r.URL, r.Header)
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{f.speak}})
	if err != nil {
		return // the client has gone
	}
	defer ws.CloseNow()
	ws.SetReadLimit(int64(f.limits.Frame))
	f.mu.Lock()
	p := &peer{fake: f, ws: ws, session: r.URL.Query().Get("session"), number: f.dials}
	f.mu.Unlock()
	p.say("handshake", map[string]any{"node": "fake", "limits": f.limits, "dedupe_s": f.dedupe, "ping_s": 20, "new": "member"})
	f.serve(p)
}

// answers has requests answered before the upgrade; true is the whole answer.
func (f *fake) answers(answer func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

// count is how many connections there were.
func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dials
}

// exactly checks that each of the entries is stored once, and no other.
func (f *fake) exactly(entries ...string) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range entries {
		if n := f.stored[e]; n != 1 {
			f.t.Errorf("%s is stored %d times", e, n)
		}
	}
	if len(f.stored) != len(entries) {
		f.t.Errorf("%d entries are stored, want %d", len(f.stored), len(entries))
	}
}

// peer is the server's end of a connection.
type peer struct {
	*fake
	ws      *websocket.Conn
	session string
	number  int // of the connection, from 1 on
}

// sent is a frame of the client.
type sent struct {
	Ref     string            `json:"ref"`
	Entries []json.RawMessage `json:"entries"`
}

// read returns the next frame. It checks that one with a known reference has not changed.
func (p *peer) read() (in sent, ok bool) {
	typ, text, err := p.ws.Read(context.Background())
	if err != nil {
		if websocket.CloseStatus(err) == -1 && errors.Is(err, websocket.ErrMessageTooBig) {
			p.t.Errorf("a frame is too long")
		}
		return in, false
	}
	if json.Unmarshal(text, &in) != nil {
		// The library takes the end of the connection, within a frame, for its end.
		if _, _, err := p.ws.Read(context.Background()); err == nil {
			p.t.Errorf("the frame is %q", text)
		}
		return in, false
	}
	if typ != websocket.MessageText || in.Ref == "" || len(in.Entries) == 0 {
		p.t.Errorf("the frame is %q", text)
		return in, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	key := p.session + "/" + in.Ref
	if before, known := p.frames[key]; known && before != string(text) {
		p.t.Errorf("%s was sent as %s, and is %s now", key, before, text)
	}
	p.frames[key] = string(text)
	return in, true
}

// store makes the entries durable, unless they are under this reference.
func (p *peer) store(in sent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	done := "stored " + p.session + "/" + in.Ref
	if _, known := p.frames[done]; known {
		return
	}
	p.frames[done] = ""
	for _, e := range in.Entries {
		p.stored[strings.TrimSpace(string(e))]++
	}
}

func (p *peer) accept(in sent) {
	p.store(in)
	p.accepted(in)
}

func (p *peer) accepted(in sent) {
	p.say("accepted", map[string]any{"ref": in.Ref, "id": "ID" + in.Ref, "accepted": len(in.Entries), "shards": map[string]int{"0": len(in.Entries)}})
}

// reject names the bad entries by their index.
func (p *peer) reject(in sent, bad ...int) {
	errs := []map[string]any{}
	for _, i := range bad {
		errs = append(errs, map[string]any{"index": i, "pointer": fmt.Sprintf("/%d/timestamp", i), "detail": "it is wrong"})
	}
	p.say("rejected", map[string]any{"ref": in.Ref, "problem": map[string]any{
		"type": "urn:async-data-processor:problem:invalid-submission", "status": 400, "detail": "errors lists some", "errors": errs,
	}})
}

func (p *peer) failed(in sent, retry time.Duration) {
	p.say("failed", map[string]any{"ref": in.Ref, "kind": "unknown", "retry_ms": retry.Milliseconds()})
}

func (p *peer) say(kind string, members map[string]any) {
	members["type"] = kind
	text, err := json.Marshal(members)
	if err != nil {
		panic(err)
	}
	_ = p.ws.Write(context.Background(), websocket.MessageText, text) // the client may be gone
}

// pipes is a listener.
type pipes struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: "pipes"} }

// answers collects what a session is told.
type answers struct {
	mu  sync.Mutex
	all []Answer
}

func (a *answers) take(one Answer) []Batch {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, one)
	return nil
}

// kinds is what was told of batches, by tag.
func (a *answers) kinds(tag any) (kinds []Kind) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, one := range a.all {
		if one.Tag == tag {
			kinds = append(kinds, one.Kind)
		}
	}
	return kinds
}

// open begins a session, which the test's end closes.
func open(t testing.TB, cfg Config) *Session {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// batch is one of entries with their numbers; its tag is the first of them.
func batch(numbers ...int) Batch {
	var texts []string
	for _, n := range numbers {
		texts = append(texts, numbered(n))
	}
	return Batch{Array: []byte("[" + strings.Join(texts, ",") + "]"), Count: len(numbers), Tag: numbers[0]}
}

func numbered(n int) string { return fmt.Sprintf(`{"value":"%d"}`, n) }

// bubble runs a test with a clock of its own.
func bubble(t *testing.T, test func(t *testing.T)) { t.Helper(); synctest.Test(t, test) }
