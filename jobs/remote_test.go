package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"async-data-processor/broker"
	"async-data-processor/jobs/store"
)

// newRemote returns the service of another node, n1, and the base of its URLs.
func (a *api) newRemote(engines ...string) (*Remote, string) {
	r := NewRemote(RemoteConfig{Bus: a.bus, Node: func() string { return "n1" }, Engines: func() []string { return engines }})
	return r, serveJobs(a.t, r)
}

// answering has a service answer other nodes until the test ends.
func answering(t *testing.T, l *Local) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.Answer(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	for deadline := time.Now().Add(time.Minute); ; {
		found := false
		err := askEngines(t.Context(), l.cfg.Bus, question{Node: "test", Do: doEngine}, time.Second, func(r *reply) bool {
			found = r.Node == l.cfg.Node()
			return !found
		})
		if found {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not answer:", err)
		}
	}
}

// TestRemote: what a node without jobs tells is what the engine tells.
func TestRemote(t *testing.T) {
	a := newAPI(t, nil)
	answering(t, a.local)
	_, base := a.newRemote("e1")
	list := base + "/api/jobs"
	refusedWith(t, 404, "not-found", "POST", list+"/hello", "")
	if r := want[RunView](t, 202, "POST", list+"/hello-world", `{"html":"<b>&"}`, "Idempotency-Key", "once"); r.ID != 1 || r.By != "ann" || string(r.Args) != `{"html":"\u003cb\u003e\u0026"}` {
		t.Errorf("started: %+v", r)
	}
	refusedWith(t, 409, "run-conflict", "POST", list+"/hello-world", `{"a":2}`, "Idempotency-Key", "once")
	f := a.begin("hello-world")
	log := strings.Repeat("0123456789", MaxLogPart/4)
	a.end(f, 1, a.write(f, 0, log, 0))
	if _, text := send(t, "GET", list+"/1/log", ""); text != log {
		t.Errorf("a log of %d bytes, want %d", len(text), len(log))
	}
	if r := want[RunDetail](t, 200, "GET", list+"/1", ""); r.State != store.Dead || len(r.History) != 1 || r.History[0].Log != int64(len(log)) {
		t.Errorf("ended: %+v", r)
	}
	want[RunView](t, 200, "POST", list+"/1/retry", "")
	want[RunView](t, 200, "POST", list+"/1/cancel", `{"reason":"enough"}`)
	refusedWith(t, 404, "not-found", "POST", list+"/2/cancel", "")
	if jobs := want[JobsPage](t, 200, "GET", base+"/api/v1/jobs", ""); len(jobs.Jobs) != 2 || jobs.Node != "e1" {
		t.Errorf("jobs: %+v", jobs)
	}
	if runs := want[[]RunView](t, 200, "GET", list, ""); len(runs) != 1 || runs[0].State != store.Cancelled {
		t.Errorf("runs: %+v", runs)
	}
	audits, err := a.store.Audits(t.Context(), "", 1)
	if err != nil || audits[0].Who != "ann" || audits[0].Why != "enough" {
		t.Errorf("audited: %+v, %v", audits, err)
	}
}

// TestRemoteShortens: what is too long for the bus comes in several pages.
func TestRemoteShortens(t *testing.T) {
	a := newAPI(t, nil)
	answering(t, a.local)
	const runs = 400
	args := json.RawMessage(`"` + strings.Repeat("x", maxListedArgs-2) + `"`)
	for i := range runs {
		if _, _, err := a.store.Create(t.Context(), store.New{Job: "hello-world", Args: args, Key: fmt.Sprint(strings.Repeat("k", 100), i), Attempts: 1}); err != nil {
			t.Fatal(err)
		}
	}
	_, base := a.newRemote("e1")
	seen, pages := make(map[int64]bool), 0
	for before := ""; ; {
		page := getPage(t, base+"/api/v1/runs?limit=1000"+before)
		pages++
		for _, r := range page.Runs {
			seen[r.ID] = true
		}
		if page.Next == "" {
			break
		}
		before = "&before=" + page.Next
	}
	if len(seen) != runs || pages < 2 {
		t.Errorf("%d runs on %d pages", len(seen), pages)
	}
}

// getPage asks again if a busy machine has missed the time of the bus.
func getPage(t *testing.T, url string) (page RunsPage) {
	t.Helper()
	for began := time.Now(); time.Since(began) < 5*time.Minute; {
		resp, text := send(t, "GET", url, "")
		if resp.StatusCode == http.StatusServiceUnavailable {
			time.Sleep(time.Second)
			continue
		}
		must(t, json.Unmarshal([]byte(text), &page))
		return page
	}
	t.Fatal("no engine answers")
	return page
}

// TestNoEngine: without an engine that is told soon, and what would be changed is not.
func TestNoEngine(t *testing.T) {
	a := newAPI(t, nil)
	r, base := a.newRemote()
	p := refusedWith(t, 503, "no-engine", "GET", base+"/api/jobs", "")
	if !strings.Contains(p.Detail, "server --jobs") {
		t.Errorf("told %q", p.Detail)
	}
	began := time.Now()
	for range 50 {
		if _, err := r.Runs(t.Context(), store.Filter{Limit: 1}); !errors.Is(err, ErrNoEngine) {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > missTime {
		t.Errorf("50 more questions took %v", took)
	}
	refusedWith(t, 503, "no-engine", "POST", base+"/api/jobs/hello-world", "")
	r.cfg.ReadOnly = true
	refusedWith(t, 403, "read-only", "POST", base+"/api/jobs/hello-world", "")
}

// TestOneEngineChanges: of several engines one makes a change.
func TestOneEngineChanges(t *testing.T) {
	a := newAPI(t, nil)
	c := a.local.cfg
	c.Node = func() string { return "e2" }
	other := NewLocal(c)
	answering(t, a.local)
	answering(t, other)
	_, base := a.newRemote("e1", "e2")
	for range 20 {
		want[RunView](t, 202, "POST", base+"/api/jobs/hello-world", "")
	}
	if runs := want[[]RunView](t, 200, "GET", base+"/api/jobs", ""); len(runs) != 20 {
		t.Errorf("there are %d runs", len(runs))
	}
	body := broker.Body(question{V: 1, Node: "n9", Do: doStart, Of: json.RawMessage(`{"job":"hello-world"}`)})
	var told reply
	if err := json.Unmarshal(a.local.answer(t.Context(), body), &told); err != nil || told.Kind != "invalid-run" {
		t.Errorf("a change that all are asked for: %+v, %v", told, err)
	}
}

// TestRunnersOfAll: the runners of every engine are told, and whether one is silent.
func TestRunnersOfAll(t *testing.T) {
	a := newAPI(t, nil)
	a.engine.connect(RunnerView{ID: "r2", Slots: 1, Engine: "e1"})
	c := a.local.cfg
	c.Node = func() string { return "e2" }
	c.Engine = &director{runners: []RunnerView{{ID: "r1", Slots: 2, Engine: "a lie"}}}
	other := NewLocal(c)
	answering(t, a.local)
	answering(t, other)
	engines := []string{"e1", "e2"}
	a.local.cfg.Engines = func() []string { return engines[1:] }
	_, remote := a.newRemote(engines...)
	for _, base := range []string{a.base, remote} {
		runners := want[[]RunnerView](t, 200, "GET", base+"/api/workers", "")
		if len(runners) != 2 || runners[0].ID != "r1" || runners[0].Engine != "e2" || runners[1].ID != "r2" {
			t.Errorf("runners: %+v", runners)
		}
	}
	engines = append(engines, "e3") // which is silent
	if page := want[RunnersPage](t, 200, "GET", a.base+"/api/v1/runners", ""); page.Complete || len(page.Runners) != 2 {
		t.Errorf("with a silent engine: %+v", page)
	}
}

// TestHostileEngine: an answer that is no engine's is no answer; nor is one for another.
func TestHostileEngine(t *testing.T) {
	a := newAPI(t, nil)
	remote, base := a.newRemote("e1")
	var says atomic.Pointer[func(q question) []byte]
	defer a.bus.Answer(askTopic, func(body []byte) []byte {
		var q question
		if broker.ReadBody(body, &q) != nil {
			return nil
		}
		return (*says.Load())(q)
	})()
	text := func(r reply) []byte {
		r.V = broker.BusVersion
		return broker.Body(r)
	}
	for name, answer := range map[string]func(question) []byte{
		"no JSON":         func(question) []byte { return []byte("x") },
		"another version": func(question) []byte { return []byte(`{"v":2,"node":"e1","body":{}}`) },
		"without a node":  func(question) []byte { return text(reply{Body: json.RawMessage(`{}`)}) },
		"a node's long name": func(question) []byte {
			return text(reply{Node: strings.Repeat("n", 1000), Body: json.RawMessage(`{}`)})
		},
		"nothing":       func(question) []byte { return text(reply{Node: "e1"}) },
		"another shape": func(question) []byte { return text(reply{Node: "e1", Body: json.RawMessage(`[1]`)}) },
	} {
		says.Store(&answer)
		if _, err := remote.Runs(t.Context(), store.Filter{Limit: 1}); !errors.Is(err, ErrNoEngine) {
			t.Errorf("%s: %v", name, err)
		}
	}
	unknown := func(q question) []byte {
		if q.Do == doEngine {
			return text(reply{Node: "e1", Body: json.RawMessage(`{}`)})
		}
		return text(reply{Node: "e1", Kind: "of-later", Why: strings.Repeat("x", 100_000)})
	}
	says.Store(&unknown)
	refusedWith(t, 503, "outcome-unknown", "POST", base+"/api/jobs/hello-world", "")
	silent := func(q question) []byte {
		if q.Do == doEngine {
			return text(reply{Node: "e1", Body: json.RawMessage(`{}`)})
		}
		return text(reply{Node: "e2", Body: json.RawMessage(`{"id":1}`)}) // was not asked
	}
	says.Store(&silent)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if v, err := remote.Start(ctx, Order{Job: "hello-world"}); err == nil {
		t.Errorf("another engine's answer counts: %+v", v)
	}
}

// TestSlowEngine: an engine that is there has the time for its answer that it would take
// for a client of its own.
func TestSlowEngine(t *testing.T) {
	a := newAPI(t, nil)
	remote, _ := a.newRemote("e1")
	var asked atomic.Int64
	defer a.bus.Answer(askTopic, func(body []byte) []byte {
		var q question
		if broker.ReadBody(body, &q) != nil {
			return nil
		}
		if q.Do == doRuns {
			asked.Add(1)
			time.Sleep(broker.AskTimeout + 500*time.Millisecond)
		}
		return broker.Body(reply{V: broker.BusVersion, Node: "e1", Body: json.RawMessage(`{"node":"e1"}`)})
	})()
	if page, err := remote.Runs(t.Context(), store.Filter{Limit: 1}); err != nil || page.Node != "e1" || asked.Load() != 1 {
		t.Errorf("%+v, %v, after %d questions", page, err, asked.Load())
	}
}

// FuzzQuestion: whatever is asked on the bus is answered with what fits, or not at all.
func FuzzQuestion(f *testing.F) {
	for _, text := range []string{
		`{"v":1,"node":"n","do":"runs","of":{"Limit":10}}`, `{"v":1,"node":"n","do":"log","of":{"run":1,"limit":1}}`, `{"v":1,"node":"n","do":"x"}`,
		`{"v":1,"node":"n","to":"e1","do":"cancel","of":{"run":1,"reason":"x"}}`, `{"v":1,"node":"n","to":"e1","do":"start","of":{"job":"hello-world","args":[1]}}`, `{"v":2}`,
	} {
		f.Add([]byte(text))
	}
	s, err := store.Open(context.Background(), "sqlite:"+f.TempDir()+"/state.db")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	l := NewLocal(fuzzConfig(s))
	f.Fuzz(func(t *testing.T, body []byte) {
		answer := l.answer(t.Context(), body)
		if answer == nil {
			return
		}
		var r reply
		if err := broker.ReadBody(answer, &r); err != nil || len(answer) > broker.MaxBusBody || (r.Kind == "") == (len(r.Body) == 0) {
			t.Errorf("%q is answered with %.200q, %v", body, answer, err)
		}
	})
}
