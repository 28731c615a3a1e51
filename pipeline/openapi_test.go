package pipeline

import (
	"bufio"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"async-data-processor/control"
	"async-data-processor/dashboard/openapitest"
	"async-data-processor/deadletter"
	"async-data-processor/live"
	"async-data-processor/server"
)

// newDescribed is a process with all that can be described, and who may do all of it.
func newDescribed(t *testing.T) *works {
	jobs := withJobs(t, someJobs)
	return newWorks(t, func(c *Config) {
		jobs(c)
		c.AuthTokens, c.ViewTokens, c.AdminTokens = []string{"submits"}, []string{"views"}, []string{"admin"}
		c.CORSOrigins = []string{"https://app.example"}
		c.Pprof = true
	})
}

func described(t *testing.T) *openapitest.Description {
	t.Helper()
	d, err := openapitest.Load()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestRoutesAreDescribed: what a process serves beside what package server has of its own
// is described. TestDescriptionIsExercised is the reverse.
func TestRoutesAreDescribed(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Pprof, cfg.Jobs = true, "jobs.yaml"
	p := &process{cfg: cfg, receipts: &followers{tail: new(live.Tail)}, metrics: server.Route{Method: http.MethodGet, Path: "/metrics"}}
	names := described(t).Operations()
	for _, r := range p.listenConfig(cfg.Listen, nil).Mount {
		if !slices.ContainsFunc(names, func(name string) bool { return serves(r, name) }) {
			t.Errorf("%s %s is not described", r.Method, r.Path)
		}
	}
}

// serves tells whether a route such as "GET /x/*" is for the operation "GET /x/{id}".
func serves(r server.Route, operation string) bool {
	method, path, _ := strings.Cut(operation, " ")
	if r.Method != method && (r.Method != http.MethodHead || method != http.MethodGet) {
		return false
	}
	if prefix, all := strings.CutSuffix(r.Path, "*"); all {
		return strings.HasPrefix(path, prefix)
	}
	return slices.EqualFunc(strings.Split(r.Path, "/"), strings.Split(path, "/"), func(a, b string) bool {
		return a == b || strings.HasPrefix(b, "{")
	})
}

// exercise sends requests that succeed.
type exercise struct {
	*works
	client *http.Client
}

// send sends a request of an administrator, and returns the answer, which it has read.
// header are names and values.
func (x exercise) send(method, path, body string, header ...string) (*http.Response, string) {
	x.t.Helper()
	r, err := http.NewRequestWithContext(x.t.Context(), method, x.base+path, strings.NewReader(body))
	if err != nil {
		x.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer admin")
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := x.client.Do(r)
	if err != nil {
		x.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp, ""
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		x.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp, string(text)
}

// socket opens a WebSocket, and closes it.
func (x exercise) socket(path, protocol string) {
	x.t.Helper()
	resp, text := x.send(http.MethodGet, path, "", "Connection", "Upgrade", "Upgrade", "websocket",
		"Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol", protocol)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		x.t.Errorf("a WebSocket at %s: %d %s", path, resp.StatusCode, text)
	}
}

// events reads events of the stream until each part has told one.
func (x exercise) events() {
	x.t.Helper()
	r, err := http.NewRequestWithContext(x.t.Context(), http.MethodGet, x.base+"/api/v1/events?parts=overview,shards,nodes,workers,series", nil)
	if err != nil {
		x.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer admin")
	resp, err := x.client.Do(r)
	if err != nil {
		x.t.Fatal(err)
	}
	defer resp.Body.Close()
	told := make(map[string]bool)
	for lines := bufio.NewScanner(resp.Body); len(told) < 5 && lines.Scan(); {
		if part, found := strings.CutPrefix(lines.Text(), `data: {"part":`); found {
			told[strings.Split(part, `"`)[1]] = true
		}
	}
	if len(told) < 5 {
		x.t.Errorf("events tell of %v", told)
	}
}

// letters exercises the dead letters.
func (x exercise) letters() {
	x.t.Helper()
	x.memory.PublishForeign(0, "order-1", []byte(`{"timestamp":"yesterday"}`))
	var list deadletter.List
	x.eventually("dead letter", func() bool { list = x.works.letters(x.base, "admin", ""); return len(list.Letters) == 1 })
	key := deadletter.Path + "/" + list.Letters[0].Key
	x.send("GET", deadletter.Path+"?foreign=true&limit=1&shard=0", "")
	x.send("GET", deadletter.Path+"/groups", "")
	x.send("GET", key, "")
	x.send("POST", deadletter.Path+"/tasks", `{"do":"purge","filter":{"ids":["none"]},"preview":true}`)
	resp, _ := x.send("POST", deadletter.Path+"/tasks", `{"do":"purge","filter":{"ids":["none"]}}`)
	x.send("GET", deadletter.Path+"/tasks", "")
	x.send("GET", resp.Header.Get("Location"), "")
	x.send("DELETE", resp.Header.Get("Location"), "")
	x.send("POST", key+"/replay", `{"body":"{\"timestamp\":\"2019-10-12T08:10:54Z\"}"}`)
}

// jobs exercises the jobs.
func (x exercise) jobs() {
	x.t.Helper()
	x.eventually("run", func() bool {
		resp, _ := x.send("POST", "/api/jobs/hello-world", `{"name":"Ada"}`, "Idempotency-Key", "once")
		return resp.StatusCode == http.StatusAccepted
	})
	ran(x.t, x.cfg.StateURL)
	x.send("POST", "/api/jobs/gpu", "")
	x.send("POST", "/api/jobs/2/cancel", `{"reason":"enough"}`)
	x.send("POST", "/api/jobs/2/retry", "")
	for _, path := range []string{
		"/api/jobs?name=gpu&state=queued&limit=1", "/api/jobs/1", "/api/jobs/1/log", "/api/jobs/1/log?attempt=1&follow=true", "/api/workers",
		"/api/v1/jobs?limit=1", "/api/v1/runs?job=gpu&before=9", "/api/v1/runners",
	} {
		x.send("GET", path, "")
	}
	x.send("GET", "/api/jobs/1/log", "", "Range", "bytes=1-")
	x.send("GET", "/api/jobs/1/log", "", "Accept", "text/event-stream")
	x.socket("/runner", "adp.runner.v1")
}

// TestDescriptionIsExercised: each operation that is described is answered by a process as
// it is described.
func TestDescriptionIsExercised(t *testing.T) {
	passes := &openapitest.Transport{Base: exchanges.Base}
	x := exercise{newDescribed(t), &http.Client{Transport: passes}}
	x.send("POST", "/message", body("a"), "Prefer", "wait=30")
	resp, text := x.send("POST", "/message", strings.Trim(body("b"), "[]")+"\n", "Content-Type", "application/x-ndjson")
	place := resp.Header.Get("Location")
	if place == "" {
		t.Fatalf("a submission: %d %s", resp.StatusCode, text)
	}
	for _, form := range []string{"text/event-stream", "application/json", "text/plain", "text/html"} {
		x.send("GET", place+"?indexes=1", "", "Accept", form)
	}
	x.socket("/message?want=written", "adp.ingest.v1")
	x.send("OPTIONS", "/message", "", "Origin", "https://app.example", "Access-Control-Request-Method", "POST")
	x.socket("/live?last=1", "adp.live.v1")
	for _, form := range []string{"text/event-stream", "application/x-ndjson"} {
		x.send("GET", "/live?last=2&limit=2&stage=written&payload=full", "", "Accept", form)
	}
	for _, path := range slices.Concat(control.Paths, []string{
		"/api/v1/series", "/api/v1/settings", "/api/v1/workers?history=1&limit=1024&shard=0", "/api/v1/messages/none", control.CommandPath,
		"/api/v1/messages/" + strings.TrimPrefix(place, server.ReceiptPath) + ".0",
		"/livez", "/readyz?verbose", "/health", "/metrics", "/debug/pprof/goroutine?debug=1", "/", "/page/app.js", "/page/vendor/preact.js", "/openapi.yaml",
	}) {
		x.send("GET", path, "")
	}
	x.send("POST", control.CommandPath, `{"id":"one","verb":"resize","target":"shard:*","args":{"min":1,"max":2}}`)
	x.send("GET", control.CommandPath+"/one", "")
	x.events()
	x.letters()
	x.jobs()
	resp, _ = x.send("POST", "/session", `{"token":"admin"}`, "Authorization", "")
	cookie := resp.Cookies()[0].Name + "=" + resp.Cookies()[0].Value
	x.send("GET", "/session", "", "Cookie", cookie)
	x.send("POST", "/session/logout", "", "Cookie", cookie)
	x.send("DELETE", "/session", "")

	for _, name := range described(t).Operations() {
		if !passes.Seen(name) {
			t.Errorf("%s was not exercised", name)
		}
	}
	for _, err := range passes.Wrong() {
		t.Error(err)
	}
	if err := x.stop(); err != nil {
		t.Error(err)
	}
}
