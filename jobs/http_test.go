package jobs

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"async-data-processor/event"
	"async-data-processor/jobs/store"
)

// TestRunByHTTP goes the way of a first session.
func TestRunByHTTP(t *testing.T) {
	a := newAPI(t, nil)
	list := a.base + "/api/jobs"
	if _, text := send(t, "GET", list, ""); strings.TrimSpace(text) != "[]" {
		t.Errorf("an empty list is %s", text)
	}
	resp, _ := send(t, "POST", list+"/hello-world", `{"name": "Ada"}`, "Content-Type", "application/json")
	if resp.StatusCode != http.StatusAccepted || resp.Header.Get("Location") != "/api/jobs/1" {
		t.Errorf("%d, Location %q", resp.StatusCode, resp.Header.Get("Location"))
	}
	r := want[RunDetail](t, 200, "GET", list+"/1", "")
	if !r.Queuing || r.Running || r.Success || r.Name != "hello-world" || r.By != "ann" || string(r.Args) != `{"name":"Ada"}` || !strings.Contains(r.Why, "no runner is connected") {
		t.Errorf("queued: %+v", r)
	}
	f := a.begin("hello-world")
	if r := want[RunDetail](t, 200, "GET", list+"/1", ""); !r.Running || r.Queuing || r.Attempt != 1 || len(r.History) != 1 || r.History[0].Runner != "r1" {
		t.Errorf("running: %+v", r)
	}
	a.end(f, 0, 0)
	runs := want[[]RunView](t, 200, "GET", list+"?state=succeeded", "")
	if len(runs) != 1 || !runs[0].Success || runs[0].Exit == nil || *runs[0].Exit != 0 {
		t.Errorf("ended: %+v", runs)
	}
	refusedWith(t, 409, "run-state", "POST", list+"/1/retry", "")
	jobs := want[JobsPage](t, 200, "GET", a.base+"/api/v1/jobs", "")
	if len(jobs.Jobs) != 2 || jobs.Jobs[0].Name != "gpu" || jobs.Jobs[1].Counts[store.Succeeded] != 1 || jobs.Jobs[1].Last == nil || jobs.Jobs[1].Env[0] != "GREETING" {
		t.Errorf("jobs: %+v", jobs)
	}
	if page := want[JobsPage](t, 200, "GET", a.base+"/api/v1/jobs?limit=1", ""); page.Next != "gpu" {
		t.Errorf("a page of jobs: %+v", page)
	}
}

// TestRunRefused: what is wrong is told, and changes nothing.
func TestRunRefused(t *testing.T) {
	a := newAPI(t, nil)
	list := a.base + "/api/jobs"
	if p := refusedWith(t, 404, "not-found", "POST", list+"/hello", ""); p.Detail != `there is no job "hello"; there are hello-world, gpu` {
		t.Errorf("a wrong name: %+v", p)
	}
	for url, kind := range map[string]string{
		"/api/jobs?state=lost": "invalid-query", "/api/jobs?limit=0": "invalid-query", "/api/jobs?limit=1001": "invalid-query", "/api/jobs?before=x": "invalid-query",
		"/api/jobs?jobs=x": "invalid-query", "/api/jobs?name=a&job=b": "invalid-query", "/api/jobs/1?x=1": "invalid-query", "/api/v1/runs?limit=-1": "invalid-query",
		"/api/v1/jobs?before=1": "invalid-query", "/api/workers?limit=x": "invalid-query", "/api/jobs/1/log?attempt=0": "invalid-query", "/api/jobs/1/log?follow=x": "invalid-query",
	} {
		refusedWith(t, 400, kind, "GET", a.base+url, "")
	}
	for _, url := range []string{"/api/jobs/1", "/api/jobs/1/log", "/api/jobs/hello-world", "/api/jobs/01", "/api/jobs/1/cancel", "/api/jobs/99999999999999999999"} {
		refusedWith(t, 404, "not-found", "GET", a.base+url, "")
	}
	for _, url := range []string{"/1/cancel", "/1/retry", "/1/log", "/1", "/hello-world/cancel", "/0/cancel", "/hello-world/", "//"} {
		refusedWith(t, 404, "not-found", "POST", list+url, "")
	}
	for _, body := range []string{"{", "{} {}", "\xff", `"` + "\xff" + `"`} {
		refusedWith(t, 400, "invalid-run", "POST", list+"/hello-world", body)
	}
	for _, pair := range []string{"[]", "{}"} {
		refusedWith(t, 400, "invalid-run", "POST", list+"/hello-world", nestedArgs(MaxArgsDepth+1, pair))
	}
	refusedWith(t, 413, "too-large", "POST", list+"/hello-world", `"`+strings.Repeat("x", MaxArgs)+`"`)
	refusedWith(t, 400, "invalid-run", "POST", list+"/hello-world", "", "Idempotency-Key", strings.Repeat("k", MaxKey+1))
	refusedWith(t, 400, "invalid-run", "POST", list+"/hello-world", "", "Idempotency-Key", "ä")
	refusedWith(t, 400, "invalid-query", "POST", list+"/hello-world?wait=1", "")
	if runs := want[[]RunView](t, 200, "GET", list, ""); len(runs) != 0 {
		t.Errorf("there are %+v", runs)
	}
	want[RunView](t, 202, "POST", list+"/hello-world", "")
	for _, body := range []string{"[]", `{"why":"x"}`, `{} {}`, `{"reason":"` + strings.Repeat("x", MaxReason+1) + `"}`} {
		refusedWith(t, 400, "invalid-run", "POST", list+"/1/cancel", body)
	}
	refusedWith(t, 413, "too-large", "POST", list+"/1/cancel", `{"reason":"`+strings.Repeat("x", maxChangeBody)+`"}`)
	refusedWith(t, 409, "run-state", "POST", list+"/1/retry", "")
	if r := want[RunDetail](t, 200, "GET", list+"/1", ""); r.State != store.Queued || r.Cancelling {
		t.Errorf("the run: %+v", r)
	}
}

// TestRunOnce: a key makes it safe to ask again. A client cannot take the key of a file.
func TestRunOnce(t *testing.T) {
	a := newAPI(t, nil)
	url := a.base + "/api/jobs/hello-world"
	first := want[RunView](t, 202, "POST", url, `{"a": 1}`, "Idempotency-Key", "once")
	if again := want[RunView](t, 202, "POST", url, ` {"a":1}`, "Idempotency-Key", "once"); again.ID != first.ID || again.Key != "once" {
		t.Errorf("asked again: %+v", again)
	}
	refusedWith(t, 409, "run-conflict", "POST", url, `{"a":2}`, "Idempotency-Key", "once")
	const file = "shard-3/3-1_01JD8Y6G5V3X9Q2R7T4B1C0D5E.ndjson"
	stolen := want[RunView](t, 202, "POST", url, "", "Idempotency-Key", file)
	run, created, err := a.store.Create(t.Context(), store.New{Job: "hello-world", Key: file, By: "file", Attempts: 1})
	if err != nil || !created || run.ID == stolen.ID {
		t.Errorf("the run of the file is %d, created: %v, %v", run.ID, created, err)
	}
	if shown := want[RunDetail](t, 200, "GET", path(a.base, stolen.ID, ""), ""); shown.Key != file {
		t.Errorf("a client's key is shown as %q", shown.Key)
	}
}

// TestCancelAndRetry: what waits is cancelled at once; what runs is told to end. Both are
// passed on to the engine.
func TestCancelAndRetry(t *testing.T) {
	a := newAPI(t, nil)
	list := a.base + "/api/jobs"
	want[RunView](t, 202, "POST", list+"/hello-world", "")
	if r := want[RunView](t, 200, "POST", list+"/1/cancel", `{"reason":"the wrong file"}`); r.State != store.Cancelled || !strings.Contains(r.Why, "the wrong file") {
		t.Errorf("cancelled: %+v", r)
	}
	if r := want[RunView](t, 200, "POST", list+"/1/cancel", ""); r.State != store.Cancelled {
		t.Errorf("cancelled twice: %+v", r)
	}
	if r := want[RunView](t, 200, "POST", list+"/1/retry", ""); r.State != store.Queued {
		t.Errorf("retried: %+v", r)
	}
	a.begin("hello-world")
	resp, text := send(t, "POST", list+"/1/cancel", "")
	if resp.StatusCode != 202 || resp.Header.Get("Location") != "/api/jobs/1" || !strings.Contains(text, `"cancelling":true`) {
		t.Errorf("a run that runs: %d %s", resp.StatusCode, text)
	}
	a.engine.mu.Lock()
	defer a.engine.mu.Unlock()
	last := a.engine.changed[len(a.engine.changed)-1]
	if len(a.engine.changed) < 4 || last.ID != 1 || !last.Cancelling {
		t.Errorf("the engine was told of %+v", a.engine.changed)
	}
}

// TestRunsPages: pages follow by Link, and have every run once.
func TestRunsPages(t *testing.T) {
	a := newAPI(t, nil)
	for range 5 {
		want[RunView](t, 202, "POST", a.base+"/api/jobs/hello-world", "")
	}
	want[RunView](t, 202, "POST", a.base+"/api/jobs/gpu", `"`+strings.Repeat("x", maxListedArgs)+`"`)
	var ids []int64
	for url := a.base + "/api/jobs?limit=2&name=hello-world"; url != ""; {
		resp, _ := send(t, "GET", url, "")
		for _, r := range want[[]RunView](t, 200, "GET", url, "") {
			ids = append(ids, r.ID)
		}
		link := resp.Header.Get("Link")
		url = ""
		if link != "" {
			url = a.base + "/api/jobs" + strings.TrimSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
		}
	}
	if fmt.Sprint(ids) != "[5 4 3 2 1]" {
		t.Errorf("the pages have %v", ids)
	}
	page := want[RunsPage](t, 200, "GET", a.base+"/api/v1/runs?job=gpu", "")
	if len(page.Runs) != 1 || page.Runs[0].Args != nil || page.Next != "" || page.Node != "e1" || !page.Complete {
		t.Errorf("a list: %+v", page)
	}
}

// TestWhyItWaits: a queued run says what it waits for.
func TestWhyItWaits(t *testing.T) {
	a := newAPI(t, nil)
	why := func(id int64) string {
		t.Helper()
		return want[RunDetail](t, 200, "GET", path(a.base, id, ""), "").Why
	}
	want[RunView](t, 202, "POST", a.base+"/api/jobs/gpu", "")
	a.engine.connect(RunnerView{ID: "r1", Slots: 1})
	if got := why(1); got != "no runner with the labels gpu is connected" {
		t.Errorf("without the label: %q", got)
	}
	a.engine.connect(RunnerView{ID: "r2", Slots: 2, Busy: 2, Labels: []string{"gpu", "big"}})
	if got := why(1); got != "every slot of the 1 runners that may run it is taken" {
		t.Errorf("without a slot: %q", got)
	}
	a.engine.connect(RunnerView{ID: "r3", Slots: 1, Labels: []string{"gpu"}})
	if got := why(1); got != "" {
		t.Errorf("it may begin: %q", got)
	}
	want[RunView](t, 202, "POST", a.base+"/api/jobs/hello-world", "")
	f := a.begin("hello-world")
	other := want[RunView](t, 202, "POST", a.base+"/api/jobs/hello-world", "")
	a.local.mu.Lock()
	a.local.counts = nil
	a.local.mu.Unlock()
	if got := why(other.ID); got != "as many of its job run as its concurrency allows: 1" {
		t.Errorf("beside another: %q", got)
	}
	a.end(f, 75, 0)
	if got := why(f.Run); !strings.HasPrefix(got, "it is due at 20") {
		t.Errorf("after a failure that passes: %q", got)
	}
	a.engine.defined = nil
	if got := why(other.ID); got != "its job is not defined any more" {
		t.Errorf("without a job: %q", got)
	}
}

// TestAudited: what is not in the audit is not done.
func TestAudited(t *testing.T) {
	a := newAPI(t, nil)
	want[RunView](t, 202, "POST", a.base+"/api/jobs/hello-world", "")
	want[RunView](t, 200, "POST", a.base+"/api/jobs/1/cancel", `{"reason":"why not"}`)
	audits, err := a.store.Audits(t.Context(), "", 10)
	if err != nil || len(audits) != 2 {
		t.Fatalf("%+v, %v", audits, err)
	}
	if got := audits[0]; got.What != "cancel run:1" || got.Who != "ann" || got.Why != "why not" || !strings.HasPrefix(got.From, "127.0.0.1:") || got.Outcome != "run 1 is cancelled" {
		t.Errorf("the audit has %+v", got)
	}
	if got := a.told[0]; got.Verb != "run" || got.Target != "job:hello-world" || got.By != "ann" || got.ID != audits[1].ID {
		t.Errorf("the log has %+v", got)
	}
	down := newAPI(t, func(c *LocalConfig) { c.Store = downStore{RunStore: c.Store, audit: true} })
	p := refusedWith(t, 503, "state-database-away", "POST", down.base+"/api/jobs/hello-world", "")
	if strings.Contains(p.Detail, errDown.Error()) {
		t.Errorf("the client sees the error of the database: %+v", p)
	}
	if runs := want[[]RunView](t, 200, "GET", down.base+"/api/jobs", ""); len(runs) != 0 {
		t.Errorf("not audited, and done: %+v", runs)
	}
	if _, _, err := down.store.Create(t.Context(), store.New{Job: "hello-world", Attempts: 1}); err != nil {
		t.Fatal(err)
	}
	refusedWith(t, 503, "state-database-away", "POST", down.base+"/api/jobs/1/cancel", "")
	if r := want[RunDetail](t, 200, "GET", down.base+"/api/jobs/1", ""); r.State != store.Queued {
		t.Errorf("not audited, and done: %+v", r)
	}
}

// TestJobsReadOnly: a process that takes no commands changes nothing, and is not audited.
func TestJobsReadOnly(t *testing.T) {
	a := newAPI(t, func(c *LocalConfig) {
		c.ReadOnly, c.Events = true, func(event.Event) { t.Error("it is told") }
	})
	for _, url := range []string{"/hello-world", "/1/cancel", "/1/retry"} {
		refusedWith(t, 403, "read-only", "POST", a.base+"/api/jobs"+url, "")
	}
}

// TestJobsAway: without its database an engine says so, and nothing of it.
func TestJobsAway(t *testing.T) {
	a := newAPI(t, func(c *LocalConfig) { c.Store = downStore{RunStore: c.Store, all: true} })
	for _, url := range []string{"/api/jobs", "/api/v1/jobs", "/api/v1/runs"} {
		resp, text := send(t, "GET", a.base+url, "")
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || strings.Contains(text, errDown.Error()) {
			t.Errorf("%s: %d %s", url, resp.StatusCode, text)
		}
	}
	base := serveJobs(t, Away{})
	for _, url := range []string{"/api/jobs", "/api/jobs/1", "/api/jobs/1/log", "/api/workers", "/api/v1/jobs", "/api/v1/runs", "/api/v1/runners"} {
		refusedWith(t, 503, "state-database-away", "GET", base+url, "")
	}
	for _, url := range []string{"/api/jobs/hello-world", "/api/jobs/1/cancel", "/api/jobs/1/retry"} {
		refusedWith(t, 503, "state-database-away", "POST", base+url, "")
	}
}
