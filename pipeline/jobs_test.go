package pipeline

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"async-data-processor/event"
	"async-data-processor/jobs"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
)

const someJobs = `
hello-world:
  command: [echo, hello]
gpu:
  command: [train]
  labels: [gpu]
`

// withJobs gives a process jobs, over a database of its own.
func withJobs(t *testing.T, defined string) func(*Config) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "jobs.yaml")
	if err := os.WriteFile(path, []byte(defined), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.Jobs, c.StateURL = path, "sqlite:"+filepath.Join(dir, "state.db") }
}

// ran is what a runner would have done: it ends the oldest run that is due.
func ran(t *testing.T, url string) (id int64) {
	t.Helper()
	s, err := store.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	runs, err := s.Claim(t.Context(), store.Claim{Runner: "r1", Engine: "e1", Jobs: map[string]int{"hello-world": 1}, Max: 1})
	if err != nil || len(runs) != 1 {
		t.Fatalf("claimed %v, %v", runs, err)
	}
	f := store.Fence{Run: runs[0].ID, Attempt: runs[0].Attempt}
	if _, ok, err := s.Start(t.Context(), f); err != nil || !ok {
		t.Fatal(ok, err)
	}
	log, err := s.AppendLog(t.Context(), f, 0, []byte("hello\n"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.End(t.Context(), f, store.End{Outcome: frame.Exited, Log: log}); err != nil || !ok {
		t.Fatal(ok, err)
	}
	return f.Run
}

// TestEngineBeforeListening: no client of a process that listens is told that a database
// is away which is open.
func TestEngineBeforeListening(t *testing.T) {
	p := &process{cfg: DefaultConfig(), events: func(event.Event) {}}
	withJobs(t, someJobs)(&p.cfg)
	if err := errors.Join(openState(t.Context(), p, false), takeJobs(p)); err != nil {
		t.Fatal(err)
	}
	defer p.database.close()
	if _, here := p.runs.service().(*jobs.Local); !here {
		t.Errorf("clients ask %T", p.runs.service())
	}
}

// TestJobsAccess: viewers see jobs, and admins change them, at every listener. Each change
// is in the log and in the database before it is made.
func TestJobsAccess(t *testing.T) {
	jobs := withJobs(t, someJobs)
	w := newWorks(t, func(c *Config) {
		jobs(c)
		c.AuthTokens, c.ViewTokens, c.AdminTokens, c.RunnerTokens = []string{"submits"}, []string{"views"}, []string{"ops:admin"}, []string{"works"}
	})
	w.eventually("engine", func() bool {
		code, _, _ := w.request("GET", w.base+"/api/jobs", "views", nil)
		return code == http.StatusOK
	})
	if code, text := w.change("POST", w.base+"/api/jobs/hello-world", "admin", ""); code != http.StatusAccepted || !strings.Contains(text, `"by":"ops"`) || !strings.Contains(text, "no runner is connected") {
		t.Errorf("%d %s", code, text)
	}
	for _, base := range []string{w.base, w.adminBase()} {
		for _, path := range []string{"/api/jobs", "/api/jobs/1", "/api/jobs/1/log", "/api/workers", "/api/v1/jobs", "/api/v1/runs", "/api/v1/runners"} {
			w.opens(base+path, map[string]int{"": 401, "x": 401, "submits": 403, "works": 403, "views": 200, "admin": 200})
		}
		for _, path := range []string{"/hello-world", "/1/cancel", "/1/retry"} {
			for token, want := range map[string]int{"": 401, "x": 401, "submits": 403, "works": 403, "views": 403} {
				if code, text := w.change("POST", base+"/api/jobs"+path, token, ""); code != want {
					t.Errorf("POST %s with %q: %d %s, want %d", path, token, code, text, want)
				}
			}
		}
		w.opens(base+frame.Path, map[string]int{"": 401, "views": 403, "submits": 403, "works": 400, "admin": 400})
		_, cookies, _ := w.request("POST", base+"/session", "admin", nil)
		if code, _, text := w.request("POST", base+"/api/jobs/hello-world", "", cookies, "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"); code != http.StatusForbidden {
			t.Errorf("another page has run a job: %d %s", code, text)
		}
	}
	if code, text := w.change("POST", w.base+"/api/jobs/1/cancel", "admin", `{"reason":"enough"}`); code != http.StatusOK {
		t.Errorf("%d %s", code, text)
	}
	if code, text := w.change("POST", w.base+"/api/v1/commands", "admin", `{"verb":"flush","target":"shard:0"}`); code != http.StatusOK {
		t.Errorf("%d %s", code, text)
	}
	w.eventually("audit in the log", func() bool {
		return w.logged(`"target":"job:hello-world"`) && w.logged(`"verb":"cancel","target":"run:1"`)
	})
	s, err := store.Open(t.Context(), w.cfg.StateURL)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	audits, err := s.Audits(t.Context(), "", 10)
	if err != nil || len(audits) != 3 || audits[0].What != "flush shard:0" || audits[1].What != "cancel run:1" || audits[1].Why != "enough" || audits[2].Who != "ops" {
		t.Errorf("audited: %+v, %v", audits, err)
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

// TestJobsOfAnother: a process without jobs says that there is no engine, and is ready.
func TestJobsOfAnother(t *testing.T) {
	w := newWorks(t, nil)
	code, _, text := w.request("GET", w.base+"/api/jobs", "", nil)
	if code != http.StatusServiceUnavailable || !strings.Contains(text, "problem:no-engine") {
		t.Errorf("%d %s", code, text)
	}
	if code, _, text := w.request("GET", w.base+frame.Path, "", nil); code != http.StatusNotFound {
		t.Errorf("a runner is taken: %d %s", code, text)
	}
	if _, err := os.Stat("data"); err == nil {
		t.Error("a database was made")
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

// TestJobsWithoutDatabase: entries do not wait for the database of jobs, and what asks for
// jobs is told.
func TestJobsWithoutDatabase(t *testing.T) {
	jobs := withJobs(t, someJobs)
	w := newWorks(t, func(c *Config) {
		jobs(c)
		c.StateURL = "postgres://user:secret@127.0.0.1:1/none?connect_timeout=1"
	})
	if code := w.post(body("a")); code != http.StatusCreated {
		t.Errorf("a submission: %d", code)
	}
	w.eventually("file", func() bool { return len(w.values()) == 1 })
	code, _, text := w.request("POST", w.base+"/api/jobs/hello-world", "", nil)
	if code != http.StatusServiceUnavailable || !strings.Contains(text, "problem:state-database-away") {
		t.Errorf("%d %s", code, text)
	}
	if code, _, text := w.request("GET", w.base+"/readyz?verbose", "", nil); code != http.StatusOK || strings.Contains(text, `"jobs":"ok"`) || strings.Contains(text, "secret") {
		t.Errorf("ready: %d %s", code, text)
	}
	if code, text := w.change("POST", w.base+"/api/v1/commands", "", `{"verb":"flush","target":"shard:0"}`); code != http.StatusOK {
		t.Errorf("a command: %d %s", code, text)
	}
	w.eventually("lines of the log", func() bool { return w.logged("the state database does not take the command into its audit") })
	if w.logged("secret") {
		t.Error("the log has the password")
	}
	_, _, scraped := w.request("GET", w.base+"/metrics", "", nil)
	if up, found := metric(t, scraped, "adp_state_database_up"); !found || up != 0 {
		t.Errorf("adp_state_database_up is %v, %v", up, found)
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

// TestJobMetrics: runs are counted by job and state.
func TestJobMetrics(t *testing.T) {
	w := newWorks(t, withJobs(t, someJobs))
	w.eventually("run", func() bool {
		code, _, _ := w.request("POST", w.base+"/api/jobs/hello-world", "", nil)
		return code == http.StatusAccepted
	})
	id := ran(t, w.cfg.StateURL)
	w.eventually("count of it", func() bool {
		_, _, scraped := w.request("GET", w.base+"/metrics", "", nil)
		n, found := metric(t, scraped, "adp_runs", `job="hello-world"`, `state="succeeded"`)
		idle, known := metric(t, scraped, "adp_runners", `state="idle"`)
		up, _ := metric(t, scraped, "adp_state_database_up")
		return found && n == 1 && known && idle == 0 && up == 1
	})
	var r JobRunDetail
	_, _, text := w.request("GET", w.base+"/api/jobs/1", "", nil)
	if err := json.Unmarshal([]byte(text), &r); err != nil || r.ID != id || !r.Success {
		t.Errorf("%s, %v", text, err)
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

// TestCheckJobs: what can never work fails before the process begins.
func TestCheckJobs(t *testing.T) {
	onFile := "index:\n  command: [index]\n  on: file\n"
	for name, tt := range map[string]struct {
		defined string
		writes  bool
		state   string
		want    string
	}{
		"a job by hand":               {someJobs, false, "", ""},
		"a job for files, standalone": {onFile, true, "", ""},
		"a job for files, by itself":  {onFile, false, "", "--jobs: the job index begins on a file"},
		"with a database for both":    {onFile, false, "postgres://host/db", ""},
		"an unknown member":           {"a:\n  comand: [x]\n", true, "", "line 2"},
	} {
		c := DefaultConfig()
		withJobs(t, tt.defined)(&c)
		c.StateURL = tt.state
		err := c.CheckJobs(tt.writes)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	c := DefaultConfig()
	c.StateURL = "mysql://user:secret@host/db"
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "--state-url") || strings.Contains(err.Error(), "secret") {
		t.Errorf("another database: %v", err)
	}
	if got := RedactStateURL("postgres://user:secret@host/db?password=secret"); strings.Contains(got, "secret") {
		t.Errorf("redacted: %s", got)
	}
}
