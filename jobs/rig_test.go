package jobs

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
	"async-data-processor/jobs/store/storetest"
)

const testJobs = `
hello: {command: [echo, hello], concurrency: 9}
again: {command: [might, fail], attempts: 3, concurrency: 9}
gpu:   {image: cuda, labels: [gpu], concurrency: 9}
file:  {command: parquet, on: file, concurrency: 9}
`

// rig is engines over one database and one bus. Time is that of a synctest bubble; only
// the database has its own.
type rig struct {
	t     *testing.T
	url   string
	store *store.Store
	bus   *fakeBus
	jobs  string // the path of the file

	mu     sync.Mutex // guards what follows
	events []event.Event
}

// inBubble runs a test with a rig.
func inBubble(t *testing.T, test func(rg *rig)) {
	t.Helper()
	url := storetest.SQLite(t)
	path := filepath.Join(t.TempDir(), "jobs.yaml")
	synctest.Test(t, func(t *testing.T) {
		must(t, os.WriteFile(path, []byte(testJobs), 0o600))
		s, err := store.Open(context.Background(), url)
		must(t, err)
		t.Cleanup(func() { must(t, s.Close()) })
		test(&rig{t: t, url: url, store: s, bus: &fakeBus{}, jobs: path})
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// running is an engine that runs until stop is called, or the test ends.
type running struct {
	*Engine
	rig  *rig
	stop func()
}

// start starts an engine over the rig's store, or another one.
func (rg *rig) start(node string, s Store) *running {
	rg.t.Helper()
	defs, err := LoadDefinitions(rg.jobs)
	must(rg.t, err)
	e := New(Config{
		Store: s, Bus: rg.bus, Node: func() string { return node }, Definitions: defs,
		Events: func(e event.Event) {
			rg.mu.Lock()
			defer rg.mu.Unlock()
			rg.events = append(rg.events, e)
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.Run(ctx)
	}()
	stop := func() {
		cancel()
		<-done
	}
	rg.t.Cleanup(stop)
	return &running{e, rg, stop}
}

// pair starts an engine, and connects the runner r1 to it.
func (rg *rig) pair(slots int) (*running, *peer) {
	rg.t.Helper()
	e := rg.start("node", rg.store)
	p, _ := e.connect("r1", slots, nil)
	return e, p
}

// eventsOf returns the events of a kind.
func eventsOf[E event.Event](rg *rig) (found []E) {
	synctest.Wait() // the engine tells runners first
	rg.mu.Lock()
	defer rg.mu.Unlock()
	for _, e := range rg.events {
		if e, ok := e.(E); ok {
			found = append(found, e)
		}
	}
	return found
}

// create creates a run, of which the engine hears.
func (e *running) create(job string) store.Run {
	e.rig.t.Helper()
	d, ok := e.Definition(job)
	if !ok {
		e.rig.t.Fatal("no job", job)
	}
	run, _, err := e.rig.store.Create(context.Background(), store.New{Job: job, By: "test", Attempts: d.Attempts, Backoff: time.Duration(d.Backoff), Args: json.RawMessage(`{"a":1}`)})
	must(e.rig.t, err)
	e.Changed(run)
	return run
}

// run returns a run as the database has it.
func (rg *rig) run(id int64) store.Run {
	rg.t.Helper()
	run, err := rg.store.Run(context.Background(), id)
	must(rg.t, err)
	return run
}

// set changes rows behind the back of the store: the only way to move its clock.
func (rg *rig) set(columns string) {
	rg.t.Helper()
	db, err := sql.Open("sqlite", strings.TrimPrefix(rg.url, "sqlite:")+"?_pragma=busy_timeout(5000)")
	must(rg.t, err)
	defer db.Close()
	_, err = db.ExecContext(context.Background(), "UPDATE runs SET "+columns)
	must(rg.t, err)
}

// fakeSocket is a server.Socket without a network.
type fakeSocket struct {
	bare     bool
	in       chan []byte
	draining chan struct{}
	closed   chan struct{}
	sent     chan []byte

	mu     sync.Mutex // guards what follows
	code   int
	reason string
}

func newFakeSocket(bare bool) *fakeSocket {
	return &fakeSocket{bare: bare, in: make(chan []byte, 100), draining: make(chan struct{}), closed: make(chan struct{}), sent: make(chan []byte, 10_000)}
}

var errSocket = errors.New("the socket has ended")

func (s *fakeSocket) Read() ([]byte, error) {
	select {
	case text := <-s.in:
		return text, nil
	case <-s.closed:
		return nil, errSocket
	}
}

func (s *fakeSocket) Write(texts ...[]byte) error {
	for _, text := range texts {
		select {
		case s.sent <- bytes.Clone(text):
		case <-s.closed:
			return errSocket
		}
	}
	return nil
}

func (s *fakeSocket) Bare() bool                { return s.bare }
func (s *fakeSocket) Draining() <-chan struct{} { return s.draining }
func (s *fakeSocket) Close(code int, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.code == 0 {
		s.code, s.reason = code, reason
		close(s.closed)
	}
}

// peer is the other end of a runner's connection.
type peer struct {
	t      *testing.T
	socket *fakeSocket
	done   chan struct{} // closed when the handler has returned
}

// dial connects a peer that says nothing.
func (e *running) dial(bare bool) *peer {
	p := &peer{e.rig.t, newFakeSocket(bare), make(chan struct{})}
	go func() {
		defer close(p.done)
		e.Socket(p.socket, httptest.NewRequest("GET", frame.Path, nil))
	}()
	return p
}

// connect is dial that says hello, and waits for the welcome.
func (e *running) connect(name string, slots int, labels []string, had ...frame.Attempt) (*peer, frame.Frame) {
	e.rig.t.Helper()
	p := e.dial(false)
	p.say(frame.Frame{Type: frame.Hello, V: frame.Version, Runner: name, Slots: slots, Labels: labels, Version: "test", Attempts: had})
	return p, p.hear(frame.Welcome)
}

func (p *peer) say(f frame.Frame) {
	p.t.Helper()
	text, err := json.Marshal(f)
	must(p.t, err)
	p.socket.in <- text
}

// hear returns the next frame, which has to be of that type.
func (p *peer) hear(kind string) frame.Frame {
	p.t.Helper()
	var f frame.Frame
	must(p.t, json.Unmarshal(p.text(), &f))
	if f.Type != kind {
		p.t.Fatalf("got %+v, want a frame of type %s", f, kind)
	}
	return f
}

// text returns the next frame as it was sent.
func (p *peer) text() []byte {
	p.t.Helper()
	select {
	case text := <-p.socket.sent:
		return text
	case <-time.After(time.Minute): // of the bubble
		p.t.Fatal("no frame within a minute")
	}
	return nil
}

// silent checks that nothing is said for a while.
func (p *peer) silent(d time.Duration) {
	p.t.Helper()
	select {
	case text := <-p.socket.sent:
		p.t.Fatalf("got %s, want silence", text)
	case <-time.After(d):
	}
}

// take accepts an offer.
func (p *peer) take(offer frame.Frame) {
	p.t.Helper()
	p.say(frame.Frame{Type: frame.Take, Run: offer.Run, Attempt: offer.Attempt})
	if f := p.hear(frame.Take); f.Run != offer.Run || f.Attempt != offer.Attempt {
		p.t.Fatalf("got %+v, want the run %d", f, offer.Run)
	}
}

// end ends an attempt, and waits for the answer of that type.
func (p *peer) end(of frame.Frame, outcome frame.Outcome, exit int, answer string) {
	p.t.Helper()
	p.say(frame.Frame{Type: frame.End, Run: of.Run, Attempt: of.Attempt, Outcome: outcome, Exit: exit})
	p.hear(answer)
}

// leave breaks the connection.
func (p *peer) leave() {
	p.socket.Close(1006, "the connection broke")
	<-p.done
}

// wantClose waits until the connection has ended, and checks how.
func (p *peer) wantClose(code int, reason string) {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(5 * time.Minute): // of the bubble
		p.t.Fatal("the handler has not returned")
	}
	if p.socket.code != code || !strings.Contains(p.socket.reason, reason) {
		p.t.Errorf("it was closed with %d %q, want %d and %q", p.socket.code, p.socket.reason, code, reason)
	}
}

// fakeBus tells at once, on the goroutine that tells.
type fakeBus struct {
	broker.Bus
	mu        sync.Mutex // guards what follows
	listeners []*func(body []byte, missed int)
	told      [][]byte
}

func (b *fakeBus) Tell(_ string, body []byte) error {
	b.mu.Lock()
	b.told = append(b.told, bytes.Clone(body))
	all := slices.Clone(b.listeners)
	b.mu.Unlock()
	for _, hear := range all {
		(*hear)(body, 0)
	}
	return nil
}

func (b *fakeBus) Listen(_ string, hear func(body []byte, missed int)) (stop func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := &hear
	b.listeners = append(b.listeners, at)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.listeners = slices.DeleteFunc(b.listeners, func(other *func([]byte, int)) bool { return other == at })
	}
}

func mustJSON(t testing.TB, text []byte, at any) {
	t.Helper()
	must(t, json.Unmarshal(text, at))
}
