package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/dashboard/openapitest"
	"async-data-processor/event"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
	"async-data-processor/jobs/store/storetest"
)

// director is an engine without runners of its own.
type director struct {
	defined []frame.Definition

	mu      sync.Mutex // guards what follows
	runners []RunnerView
	changed []store.Run
}

func (d *director) Definitions() []frame.Definition { return d.defined }

func (d *director) Definition(name string) (frame.Definition, bool) {
	at := slices.IndexFunc(d.defined, func(one frame.Definition) bool { return one.Name == name })
	if at < 0 {
		return frame.Definition{}, false
	}
	return d.defined[at], true
}

func (d *director) Runners() []RunnerView {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.runners)
}

func (d *director) Changed(runs ...store.Run) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changed = append(d.changed, runs...)
}

func (d *director) connect(r RunnerView) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.runners = append(d.runners, r)
}

// api is an engine's service over a database of its own, and the node that has it.
type api struct {
	t      *testing.T
	store  *store.Store
	engine *director
	local  *Local
	bus    broker.Broker
	base   string // of the URLs of its handler
	told   []event.CommandTaken
	mu     sync.Mutex // guards told
}

func define(name string, change func(*frame.Definition)) frame.Definition {
	d := frame.Definition{Name: name, Command: []string{"true"}, On: frame.Manual, Concurrency: 1, Attempts: 1, Keep: 1000}
	if change != nil {
		change(&d)
	}
	return d
}

func openStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), storetest.SQLite(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// newAPI returns the engine "e1", whose jobs are hello-world and gpu, of which the latter
// needs a label.
func newAPI(t *testing.T, change func(*LocalConfig)) *api {
	t.Helper()
	a := &api{t: t, store: openStore(t), bus: brokertest.NewMemory(1).Open(nil)}
	a.engine = &director{defined: []frame.Definition{
		define("hello-world", func(d *frame.Definition) { d.Env = map[string]string{"GREETING": "hidden"} }),
		define("gpu", func(d *frame.Definition) { d.Labels = []string{"gpu"} }),
	}}
	c := LocalConfig{
		Store: a.store, Engine: a.engine, Bus: a.bus, Node: func() string { return "e1" }, Engines: func() []string { return nil },
		Events: func(e event.Event) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.told = append(a.told, e.(event.CommandTaken))
		},
	}
	if change != nil {
		change(&c)
	}
	a.local = NewLocal(c)
	a.base = serveJobs(t, a.local)
	return a
}

// serveJobs returns the base of the URLs of a service, whose exchanges are held to the
// description.
func serveJobs(t *testing.T, s Service) string {
	t.Helper()
	return serveHandler(t, handlerOf(s))
}

func handlerOf(s Service) *Handler {
	return NewHandler(HandlerConfig{
		Service: func() Service { return s }, Client: func(r *http.Request) string { return r.Header.Get("Client") },
		By: func(*http.Request) string { return "ann" },
	})
}

func serveHandler(t *testing.T, h *Handler) string {
	t.Helper()
	server := httptest.NewServer(openapitest.Handler(t, h))
	t.Cleanup(server.Close)
	return server.URL
}

// send sends a request, and returns the answer, whose body it has read.
func send(t *testing.T, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// want sends a request, and fails unless the answer has the status and, if it is JSON, is
// read into a value.
func want[T any](t *testing.T, status int, method, url, body string, header ...string) (v T) {
	t.Helper()
	resp, text := send(t, method, url, body, header...)
	if resp.StatusCode != status {
		t.Fatalf("%s %s: %d %s, want %d", method, url, resp.StatusCode, text, status)
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s %s: %v in %s", method, url, err, text)
	}
	return v
}

type problemOf struct {
	Type, Detail string
}

// refused fails unless a request is refused with a kind of problem, which it returns.
func refusedWith(t *testing.T, status int, kind, method, url, body string, header ...string) problemOf {
	t.Helper()
	p := want[problemOf](t, status, method, url, body, header...)
	if p.Type != "urn:async-data-processor:problem:"+kind {
		t.Errorf("%s %s: %+v, want %s", method, url, p, kind)
	}
	return p
}

// begin has a runner take the run that is due, and returns its attempt.
func (a *api) begin(jobs ...string) store.Fence {
	a.t.Helper()
	c := store.Claim{Runner: "r1", Engine: "e1", Jobs: make(map[string]int), Max: 1}
	for _, name := range jobs {
		c.Jobs[name] = 100
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		runs, err := a.store.Claim(context.Background(), c)
		if err != nil || time.Now().After(deadline) {
			a.t.Fatalf("claimed %v, %v", runs, err)
		}
		if len(runs) == 0 {
			continue
		}
		f := store.Fence{Run: runs[0].ID, Attempt: runs[0].Attempt}
		if _, ok, err := a.store.Start(context.Background(), f); err != nil || !ok {
			a.t.Fatalf("%v %v", ok, err)
		}
		return f
	}
}

// write adds to the log of an attempt; cut are bytes behind that are thrown away.
func (a *api) write(f store.Fence, offset int64, text string, cut int64) int64 {
	a.t.Helper()
	for len(text) > 0 || cut > 0 {
		part := text[:min(len(text), 60<<10)]
		text = text[len(part):]
		thrown := int64(0)
		if len(text) == 0 {
			thrown, cut = cut, 0
		}
		next, err := a.store.AppendLog(context.Background(), f, offset, []byte(part), thrown)
		if err != nil {
			a.t.Fatal(err)
		}
		offset = next
	}
	return offset
}

func (a *api) end(f store.Fence, exit int, log int64) {
	a.t.Helper()
	if _, ok, err := a.store.End(context.Background(), f, store.End{Outcome: frame.Exited, Exit: exit, Log: log}); err != nil || !ok {
		a.t.Fatalf("%v %v", ok, err)
	}
}

func path(base string, id int64, rest string) string { return fmt.Sprint(base, "/api/jobs/", id, rest) }

var errDown = errors.New("down")

// downStore is a store whose database is away for some of its methods.
type downStore struct {
	RunStore
	audit, all bool
}

func (d downStore) Audit(ctx context.Context, a store.Audited) error {
	if d.audit {
		return errDown
	}
	return d.RunStore.Audit(ctx, a)
}

func (d downStore) Counts(ctx context.Context) (store.Counts, error) {
	if d.all {
		return nil, errDown
	}
	return d.RunStore.Counts(ctx)
}

func (d downStore) Runs(ctx context.Context, f store.Filter) ([]store.Run, error) {
	if d.all {
		return nil, errDown
	}
	return d.RunStore.Runs(ctx, f)
}

func fuzzConfig(s *store.Store) LocalConfig {
	return LocalConfig{
		Store: s, Engine: &director{defined: []frame.Definition{define("hello-world", nil)}},
		Node: func() string { return "e1" }, Engines: func() []string { return nil },
	}
}
