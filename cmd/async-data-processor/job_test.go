package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"async-data-processor/faults/rig"
)

// jobRig is a process that may have jobs, and the command line beside it.
type jobRig struct {
	*testing.T
	p *rig.Process
}

// newJobRig starts a process in a folder of its own, with a file of jobs unless that is
// empty.
func newJobRig(t *testing.T, jobs string) jobRig {
	t.Helper()
	t.Chdir(t.TempDir())
	settings := []string{"BROKER_URL=embedded:data/broker", "DATA_OUTPUT_DIR=data", "EMBEDDED_MIN_FREE=1048576", "OUTPUT_MIN_FREE=0"}
	if jobs != "" {
		if err := os.WriteFile("jobs.yaml", []byte(jobs), 0o600); err != nil {
			t.Fatal(err)
		}
		settings = append(settings, "JOBS=jobs.yaml")
	}
	return jobRig{t, rig.Start(t, "standalone", settings...)}
}

// ctl runs a command of ctl job by the socket of the store, and checks its exit code.
func (j jobRig) ctl(code int, args ...string) (out, told string) {
	j.Helper()
	return runs(j.T, code, append([]string{"ctl", "job"}, args...)...)
}

// refused is a command that fails with a text.
func (j jobRig) refused(code int, text string, args ...string) {
	j.Helper()
	if out, told := j.ctl(code, args...); out != "" || !strings.Contains(told, text) {
		j.Errorf("%q printed %q and told %q, want %q", args, out, told, text)
	}
}

// await repeats a command until it prints a text.
func (j jobRig) await(text string, args ...string) (out string) {
	j.Helper()
	for end := time.Now().Add(rig.Patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if out, _ = j.ctl(exitClean, args...); strings.Contains(out, text) {
			return out
		}
	}
	j.Fatalf("%q printed %q, want %q", args, out, text)
	return ""
}

const jobsOfTest = `
hello: {command: [sh, -c, 'echo "hello $ADP_ARGS"; echo again']}
fails: {command: [sh, -c, 'exit 4'], attempts: 2, backoff: 1s}
fails-once: {command: [sh, -c, 'exit 4']}
late: {command: [sleep, "1000"], timeout: 1s}
steps: {command: [sh, -c, 'echo one; sleep 1; echo two']}
stays: {command: [sleep, "1000"]}
words: {command: echo hello}
gpu: {command: [echo], labels: [gpu]}
`

// TestJob runs jobs by the command line, and looks at them.
func TestJob(t *testing.T) {
	j := newJobRig(t, jobsOfTest)
	if out, _ := j.ctl(exitClean, "list"); out != "ID  JOB  STATE  ATTEMPTS  THAT COUNT  RUNNER  CREATED  WHY\n" {
		t.Errorf("without runs: %q", out)
	}
	if out, _ := j.ctl(exitClean, "list", "--json"); out != "" {
		t.Errorf("without runs, as JSON: %q", out)
	}
	const lonely = "run 1 of hello: queued: no runner is connected; start one: async-data-processor runner URL\n"
	if out, told := j.ctl(exitClean, "run", "hello", "--args", `{"name":"Ada"}`, "--key", "k"); out != lonely || told != "" {
		t.Errorf("without a runner: %q, %q", out, told)
	}
	if out, told := j.ctl(exitClean, "log", "1"); out != "" || told != lonely {
		t.Errorf("the log of a run that waits: %q, %q", out, told)
	}
	name := fmt.Sprintf("job-test-%d", os.Getpid())
	runner := rig.SpawnWith(t, []string{"runner", "http://" + j.p.Addr, "--name", name, "--engine", "none", "--slots", "4"})
	runner.Await("a connection", func(l rig.Line) bool { return l.Message == "connected to an engine" })
	j.await("run 1 of hello: succeeded, exit 0\nargs: {\"name\":\"Ada\"}\nATTEMPT ", "show", "1")
	if out, _ := j.ctl(exitClean, "log", "1"); out != "hello {\"name\":\"Ada\"}\nagain\n" {
		t.Errorf("the log is %q", out)
	}
	if out, _ := j.ctl(exitClean, "run", "hello", "--args", `{"name":"Ada"}`, "--key", "k", "--wait"); out != "run 1 of hello: succeeded, exit 0\n" {
		t.Errorf("with the same key: %q", out)
	}
	j.refused(exitFailure, "other arguments", "run", "hello", "--key", "k")
	if out, _ := j.ctl(exitClean, "runners"); !strings.HasPrefix(out, "RUNNER") || !strings.Contains(out, name+"  0 of 4  -") {
		t.Errorf("the runners: %q", out)
	}

	out, told := j.ctl(4, "run", "fails", "--wait")
	if out != "run 2 of fails: dead, exit 4: all 2 attempts failed\n" {
		t.Errorf("what fails printed %q", out)
	}
	if !strings.Contains(told, "run 2 of fails: queued, exit 4: it is due at ") || !strings.Contains(told, "; before that: it exited with 4\n") {
		t.Errorf("while it waited it told %q", told)
	}
	if out, _ := j.ctl(4, "run", "fails-once", "--wait"); out != "run 3 of fails-once: dead, exit 4: its only attempt failed\n" {
		t.Errorf("what fails once printed %q", out)
	}
	if out, _ := j.ctl(exitFailure, "run", "late", "--wait"); out != "run 4 of late: timed-out, exit 143: it took longer than its timeout, 1s; killed by signal 15 (terminated)\n" {
		t.Errorf("what is late printed %q", out)
	}
	j.ctl(exitClean, "run", "steps")
	if out, _ := j.ctl(exitClean, "log", "5", "--follow"); out != "one\ntwo\n" {
		t.Errorf("followed: %q", out)
	}
	j.ctl(exitClean, "run", "stays")
	j.await("running", "show", "6")
	if out, _ := j.ctl(exitClean, "cancel", "6", "--reason", "a test"); !strings.HasSuffix(out, ": cancelled: a test\n") {
		t.Errorf("cancel printed %q", out)
	}
	j.await("run 6 of stays: cancelled, exit 143: cancelled: a test\n", "show", "6")
	j.ctl(exitClean, "run", "words")
	j.await(`no shell reads a command: write [a, list, of, words], or [sh, -c, "…"]`, "show", "7")
	if out, _ := j.ctl(exitClean, "run", "gpu"); out != "run 8 of gpu: queued: no runner with the labels gpu is connected\n" {
		t.Errorf("without the label: %q", out)
	}
	if out, _ := j.ctl(exitClean, "retry", "3", "--reason", "mended"); !strings.HasPrefix(out, "run 3 of fails-once: queued") || !strings.Contains(out, "tried again: mended") {
		t.Errorf("retry printed %q", out)
	}
	j.refusals()
	j.asJSON(name)
}

// refusals are commands that cannot be done: 2 if the command line is wrong.
func (j jobRig) refusals() {
	const who = "job: the process of data/broker answers "
	j.refused(exitFailure, who+"409 Conflict: the state of the run does not allow that: it has succeeded", "retry", "1")
	j.refused(exitFailure, "does not allow that: it has ended, as succeeded", "cancel", "1")
	j.refused(exitFailure, who+"404 Not Found: there is no such run", "show", "99")
	j.refused(exitFailure, "there is no such run", "log", "99")
	j.refused(exitFailure, "run 1 has no attempt 7", "log", "1", "--attempt", "7")
	j.refused(exitFailure, "there is no job \"nope\"; there are hello, fails", "run", "nope")
	j.refused(exitFailure, "want one of [queued", "list", "--state", "bogus")
	j.refused(exitUsage, `"abc" is no id of a run`, "show", "abc")
	j.refused(exitUsage, "want the id of a run, got 0 arguments", "cancel")
	j.refused(exitUsage, "want the name of a job, got 2 arguments", "run", "a", "b")
	j.refused(exitUsage, "want a JSON text", "run", "hello", "--args", "{")
	j.refused(exitUsage, "unknown flag: --id", "run", "hello", "--id", "x") // it would promise what only --key does
	j.refused(exitUsage, "unknown flag: --reason", "list", "--reason", "x")
	j.refused(exitUsage, "unknown command", "lst")
	j.refused(exitFailure, "cannot ask http://127.0.0.1:1: dial tcp", "list", "--url", "http://127.0.0.1:1")
}

// asJSON looks at what programs read.
func (j jobRig) asJSON(runner string) {
	out, _ := j.ctl(exitClean, "list", "--json", "--job", "fails")
	var r struct {
		ID      int64
		State   string
		Exit    *int
		History []struct{ Runner, Outcome string }
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.ID != 2 || r.State != "dead" || r.Exit == nil || *r.Exit != 4 || strings.Count(out, "\n") != 1 {
		j.Errorf("list --json: %v, %q", err, out)
	}
	out, _ = j.ctl(exitClean, "show", "2", "--json")
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.History) != 2 || r.History[1].Runner != runner || r.History[1].Outcome != "exited" {
		j.Errorf("show --json: %v, %q", err, out)
	}
	out, _ = j.ctl(exitClean, "runners", "--json")
	if !strings.HasPrefix(out, `{"id":"`+runner+`","working":`) || strings.Count(out, "\n") != 1 {
		j.Errorf("runners --json: %q", out)
	}
}

// TestJobWithoutEngine: where no process has jobs, each command says so.
func TestJobWithoutEngine(t *testing.T) {
	j := newJobRig(t, "")
	for _, args := range [][]string{{"list"}, {"run", "hello"}, {"show", "1"}, {"cancel", "1"}, {"retry", "1"}, {"log", "1"}} {
		j.refused(exitFailure, "no process with jobs answers; start one with server --jobs, or standalone --jobs", args...)
	}
	if out, _ := j.ctl(exitClean); !strings.Contains(out, "runners     Print the runners") {
		t.Errorf("without a command: %q", out)
	}
}

// TestJobLogEnds: what the run says to be all of a log is not asked for more.
func TestJobLogEnds(t *testing.T) {
	const text = "hello\n"
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/log") {
			fmt.Fprintf(w, `{"id":1,"state":"succeeded","attempt":2,"history":[{"attempt":1,"log":0,"whole":true},{"attempt":2,"log":%d,"whole":true}]}`, len(text))
			return
		}
		asked++
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
	}))
	defer s.Close()
	j := jobRig{T: t}
	for _, c := range []struct {
		want  string
		asked int
		args  []string
	}{{text, 1, nil}, {text, 1, []string{"-f"}}, {"", 0, []string{"--attempt", "1"}}} {
		asked = 0
		if out, _ := j.ctl(exitClean, append([]string{"log", "1", "--url", s.URL}, c.args...)...); out != c.want || asked != c.asked {
			t.Errorf("%q printed %q and asked %d times, want %q and %d", c.args, out, asked, c.want, c.asked)
		}
	}
}
