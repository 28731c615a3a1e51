package runner

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/runner/guard"
)

// patience bounds every wait. It is no expectation of speed.
const patience = time.Minute

// TestMain lets the test binary be a guard, and a runner of its own, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == guard.Arg {
		os.Exit(guard.Main())
	}
	if text := os.Getenv("TEST_RUNNER"); text != "" {
		os.Exit(asProcess(text))
	}
	os.Exit(m.Run())
}

// engine speaks the protocol, and keeps in memory what runners tell it.
type engine struct {
	t    *testing.T
	http *httptest.Server

	mu      sync.Mutex
	defs    []frame.Definition
	changed chan struct{}
	conn    *websocket.Conn // the last one
	away    bool            // no connection is taken
	deaf    bool            // a beat has no answer
	noEnds  bool            // an end has no answer
	took    map[frame.Attempt]bool
	stale   map[frame.Attempt]bool
	logs    map[frame.Attempt][]byte
	cuts    map[frame.Attempt]int64
	beat    map[frame.Attempt]time.Time // the last that was answered
	ends    []frame.Frame
	refused []frame.Frame
	hellos  []frame.Frame
	drained bool
}

func newEngine(t *testing.T, defs ...frame.Definition) *engine {
	e := &engine{
		t: t, defs: defs, changed: make(chan struct{}), took: make(map[frame.Attempt]bool), stale: make(map[frame.Attempt]bool),
		logs: make(map[frame.Attempt][]byte), cuts: make(map[frame.Attempt]int64), beat: make(map[frame.Attempt]time.Time),
	}
	e.http = httptest.NewServer(http.HandlerFunc(e.serve))
	t.Cleanup(e.http.Close)
	return e
}

func (e *engine) serve(w http.ResponseWriter, req *http.Request) {
	e.mu.Lock()
	away := e.away
	e.mu.Unlock()
	if away || req.URL.Path != "/base/runner" || req.Header.Get("Authorization") != "Bearer secret-token" {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	ws, err := websocket.Accept(w, req, &websocket.AcceptOptions{Subprotocols: []string{frame.Protocol}})
	if err != nil {
		return
	}
	defer ws.CloseNow()
	ws.SetReadLimit(frame.MaxRunnerFrame)
	for {
		_, text, err := ws.Read(context.Background())
		var f frame.Frame
		if err != nil || json.Unmarshal(text, &f) != nil {
			return
		}
		e.mu.Lock()
		for _, answer := range e.take(ws, f) {
			e.write(ws, answer)
		}
		close(e.changed)
		e.changed = make(chan struct{})
		e.mu.Unlock()
	}
}

func (e *engine) write(ws *websocket.Conn, f frame.Frame) {
	text, _ := json.Marshal(f)
	_ = ws.Write(context.Background(), websocket.MessageText, text) // the reader finds out
}

// take returns the answers to a frame. mu is locked.
func (e *engine) take(ws *websocket.Conn, f frame.Frame) []frame.Frame {
	id := frame.Attempt{Run: f.Run, Attempt: f.Attempt}
	if e.stale[id] && f.Type != frame.Log {
		e.ends = append(e.ends, f)
		return []frame.Frame{{Type: frame.Stale, Run: f.Run, Attempt: f.Attempt}}
	}
	switch f.Type {
	case frame.Hello:
		e.hellos = append(e.hellos, f)
		e.conn = ws
		welcome := frame.Frame{Type: frame.Welcome, Node: "engine-1", Definitions: e.defs}
		for _, a := range f.Attempts {
			a.Log = int64(len(e.logs[frame.Attempt{Run: a.Run, Attempt: a.Attempt}]))
			if !e.stale[frame.Attempt{Run: a.Run, Attempt: a.Attempt}] {
				welcome.Attempts = append(welcome.Attempts, a)
			}
		}
		return []frame.Frame{welcome}
	case frame.Take:
		e.took[id] = true
		return []frame.Frame{f}
	case frame.Refuse:
		e.refused = append(e.refused, f)
	case frame.BeatFrame:
		f.Attempts = slices.DeleteFunc(f.Attempts, func(a frame.Attempt) bool { return e.stale[a] })
		if e.deaf {
			return nil
		}
		for _, a := range f.Attempts {
			e.beat[a] = time.Now()
		}
		return []frame.Frame{f}
	case frame.Log:
		if have := int64(len(e.logs[id])) + e.cuts[id]; f.Offset == have {
			e.logs[id] = append(e.logs[id], f.Data...)
			e.cuts[id] += f.Cut
		}
		f.Offset, f.Data = int64(len(e.logs[id]))+e.cuts[id], nil
		return []frame.Frame{f}
	case frame.End:
		e.ends = append(e.ends, f)
		if !e.noEnds {
			return []frame.Frame{{Type: frame.End, Run: f.Run, Attempt: f.Attempt}}
		}
	case frame.Drain:
		e.drained = true
	}
	return nil
}

// tell sends a frame to the runner.
func (e *engine) tell(f frame.Frame) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.write(e.conn, f)
}

func (e *engine) offer(run int64, job string) {
	e.tell(frame.Frame{Type: frame.Offer, Run: run, Attempt: 1, Job: job})
}

// until waits for a condition, which it asks with mu locked.
func (e *engine) until(what string, met func() bool) {
	e.t.Helper()
	late := time.After(patience)
	for {
		e.mu.Lock()
		done, changed := met(), e.changed
		e.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-late:
			e.t.Fatalf("no %s", what)
		}
	}
}

// connected waits for a runner.
func (e *engine) connected() {
	e.t.Helper()
	e.until("connection", func() bool { return e.conn != nil })
}

// ended waits for the end of a run's first attempt.
func (e *engine) ended(run int64) (end frame.Frame) {
	e.t.Helper()
	e.until(fmt.Sprintf("end of run %d", run), func() bool {
		for _, f := range e.ends {
			if f.Run == run {
				end = f
				return true
			}
		}
		return false
	})
	return end
}

func (e *engine) log(run int64) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return string(e.logs[frame.Attempt{Run: run, Attempt: 1}])
}

// set changes how the engine behaves.
func (e *engine) set(change func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change()
}

// shell is a job that runs a script.
func shell(name, script string) frame.Definition {
	return frame.Definition{
		Name: name, Command: []string{"sh", "-c", script}, On: frame.Manual, Timeout: frame.Seconds(time.Hour), Grace: frame.Seconds(200 * time.Millisecond),
	}
}

// start runs a Runner in this process.
func start(t *testing.T, e *engine, change func(*Config)) (r *Runner, stop func()) {
	t.Helper()
	cfg := Config{URL: e.http.URL + "/base", Token: "secret-token", Name: "test", Slots: 4, Drain: time.Second, Private: []string{"RUNNER_TOKEN"}}
	cfg.Tell = func(n Notice) { t.Logf("%+v", n) }
	if change != nil {
		change(&cfg)
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	e.connected()
	return r, stop
}
