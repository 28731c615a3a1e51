package runner

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"async-data-processor/client"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/runner/guard"
)

// TestProcesses: how a process ends is told as it is, with what it has printed.
func TestProcesses(t *testing.T) {
	t.Setenv("API_KEY", "hunter2-hunter2")
	t.Setenv("OTHER", "not for jobs")
	t.Setenv("RUNNER_TOKEN", "nor this")
	env := shell("env", `echo "$ADP_RUN $ADP_ATTEMPT $ADP_JOB $COLOR [$OTHER$RUNNER_TOKEN]"; echo "key $API_KEY" >&2; printf 'torn \377'`)
	env.Env, env.Secrets = map[string]string{"COLOR": "red"}, []string{"API_KEY"}
	token := shell("token", "true")
	token.Secrets = []string{"RUNNER_TOKEN"}
	late := shell("late", "trap '' TERM; sleep 1000")
	late.Timeout = frame.Seconds(100 * time.Millisecond)
	missing := shell("missing", "")
	missing.Command = []string{"/no/such/program"}
	words := shell("words", "")
	words.Command = []string{"echo hello"}
	image := shell("image", "true")
	image.Image = "busybox"
	daemon := shell("daemon", "setsid sleep 1000 & exit 3")
	e := newEngine(t, env, token, late, missing, words, image, daemon, shell("again", "exit 75"), shell("killed", "kill -9 $$"))
	r, _ := start(t, e, func(c *Config) { c.Slots = 8 })
	for i, tc := range []struct {
		job     string
		outcome frame.Outcome
		exit    int
		why     string
	}{
		{"env", frame.Exited, 0, ""},
		{"again", frame.Exited, 75, ""},
		{"killed", frame.Exited, 137, "killed by signal 9 (killed)"},
		{"late", frame.TimedOut, 137, "it took longer than its timeout, 100ms; killed by signal 9 (killed)"},
		{"missing", frame.Fault, 0, "cannot start: "},
		{"words", frame.Fault, 0, "cannot start: exec: \"echo hello\": executable file not found in $PATH; no shell reads a command"},
		{"daemon", frame.Exited, 3, ""},
	} {
		e.offer(int64(1+i), tc.job)
		end := e.ended(int64(1 + i))
		if end.Outcome != tc.outcome || end.Exit != tc.exit || !strings.HasPrefix(end.Why, tc.why) || tc.why == "" && end.Why != "" {
			t.Errorf("%s: %+v, want %+v", tc.job, end, tc)
		}
	}
	if got, want := e.log(1), "1 1 env red []\nkey ***\ntorn \xff"; got != want {
		t.Errorf("the log is %q, want %q", got, want)
	}
	for run, job := range map[int64]string{100: "token", 101: "image", 102: "unknown"} {
		e.offer(run, job)
	}
	e.until("refusals", func() bool { return len(e.refused) == 3 })
	e.until("rest", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.attempts) == 0
	})
}

// TestSurvivesTheEngine: a process goes on while the engine is away, and its log from where
// the engine has it. Its end is sent until it is acknowledged.
func TestSurvivesTheEngine(t *testing.T) {
	gate := t.TempDir() + "/gate"
	e := newEngine(t, shell("job", "echo before; until test -e "+gate+"; do sleep 0.02; done; seq 1 20000"))
	r, _ := start(t, e, nil)
	e.set(func() { e.noEnds = true })
	e.offer(1, "job")
	e.until("first line", func() bool { return len(e.logs[frame.Attempt{Run: 1, Attempt: 1}]) > 0 })
	e.set(func() {
		e.away = true
		_ = e.conn.CloseNow()
		e.conn = nil
	})
	write(t, gate)
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		ended := r.attempts[0].state == over
		r.mu.Unlock()
		if ended {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the process does not end without the engine")
		}
	}
	e.set(func() { e.away = false })
	e.ended(1)
	e.set(func() {
		e.noEnds, e.ends = false, nil
		_ = e.conn.CloseNow() // before it has acknowledged the end
		e.conn = nil
	})
	if end := e.ended(1); end.Offset != int64(len(e.log(1))) {
		t.Errorf("the log has %d bytes, want %d", len(e.log(1)), end.Offset)
	}
	var want bytes.Buffer
	want.WriteString("before\n")
	for n := 1; n <= 20000; n++ {
		want.WriteString(itoa(n) + "\n")
	}
	if e.log(1) != want.String() {
		t.Error("the log is not what was printed")
	}
	if len(e.hellos) != 3 || len(e.hellos[1].Attempts) != 1 {
		t.Errorf("it has said %+v", e.hellos)
	}
}

// TestCancel: the engine ends an attempt, and makes another one stale.
func TestCancel(t *testing.T) {
	e := newEngine(t, shell("job", "sleep 1000"))
	r, _ := start(t, e, nil)
	e.offer(1, "job")
	e.offer(2, "job")
	e.until("both", func() bool { return len(e.beat) == 2 })
	e.tell(frame.Frame{Type: frame.Cancel, Run: 1, Attempt: 1})
	if end := e.ended(1); end.Outcome != frame.Cancelled {
		t.Errorf("%+v, want it cancelled", end)
	}
	e.set(func() { e.stale[frame.Attempt{Run: 2, Attempt: 1}] = true })
	e.tell(frame.Frame{Type: frame.Stale, Run: 2, Attempt: 1})
	if end := e.ended(2); end.Outcome != frame.Fenced {
		t.Errorf("%+v, want it fenced", end)
	}
	r.await(time.Now().Add(patience), func() bool { return len(r.attempts) == 0 })
	if len(r.attempts) > 0 {
		t.Error("a stale attempt is remembered")
	}
}

// TestSlots: an offer beyond the slots, and a later attempt beside an earlier one, are refused.
func TestSlots(t *testing.T) {
	e := newEngine(t, shell("job", "sleep 1000"))
	start(t, e, func(c *Config) { c.Slots = 2 })
	e.offer(1, "job")
	e.tell(frame.Frame{Type: frame.Offer, Run: 1, Attempt: 2, Job: "job"})
	e.offer(2, "job")
	e.offer(3, "job")
	e.until("refusals", func() bool { return len(e.refused) == 2 })
	if e.refused[0].Attempt != 2 || e.refused[1].Run != 3 {
		t.Errorf("refused are %+v", e.refused)
	}
}

// TestStartsWithALease: no process starts before its lease is known.
func TestStartsWithALease(t *testing.T) {
	e := newEngine(t, shell("job", "true"))
	r, _ := start(t, e, nil)
	e.set(func() { e.deaf = true })
	e.offer(1, "job")
	e.until("answer", func() bool { return e.took[frame.Attempt{Run: 1, Attempt: 1}] })
	time.Sleep(50 * time.Millisecond)
	r.mu.Lock()
	waits := len(r.attempts) == 1 && r.attempts[0].state == offered
	r.mu.Unlock()
	if !waits {
		t.Fatal("it has started")
	}
	e.set(func() {
		_ = e.conn.CloseNow()
		e.conn, e.deaf = nil, false
	})
	if end := e.ended(1); end.Outcome != frame.Returned {
		t.Errorf("%+v, want it returned", end)
	}
}

// TestFence: the deadline counts from the start of the beat that was answered, however long
// the answer was on its way.
func TestFence(t *testing.T) {
	r, err := New(Config{URL: "http://localhost", Slots: 1})
	if err != nil {
		t.Fatal(err)
	}
	a := &attempt{run: 7, number: 2, state: started, log: newSpool()}
	l := &link{r: r, wake: make(chan struct{}, 1)}
	r.attempts = []*attempt{a}
	began := guard.Now() - int64(9*time.Second)
	l.beats.begin(began-int64(time.Second), []frame.Attempt{a.id()})
	f := l.beats.begin(began, []frame.Attempt{a.id()})
	l.renewed(frame.Frame{Type: frame.BeatFrame, Seq: f.Seq, Attempts: []frame.Attempt{a.id()}})
	if want := began + int64(frame.Fence); a.lease.Fence != want || a.lease.Kill >= began+int64(frame.Lease) {
		t.Errorf("the fence is %v after the start of the beat, want %v", time.Duration(a.lease.Fence-began), frame.Fence)
	}
	if len(l.beats.open) != 0 {
		t.Error("an earlier beat is waited for")
	}
}

// TestDrain: what ends in time is told as it has ended, and the rest is given back.
func TestDrain(t *testing.T) {
	e := newEngine(t, shell("short", "sleep 0.3; exit 5"), shell("long", "trap '' TERM; while :; do sleep 1000; done"))
	_, stop := start(t, e, func(c *Config) { c.Drain = 2 * time.Second })
	e.offer(1, "short")
	e.offer(2, "long")
	e.until("both", func() bool { return len(e.beat) == 2 })
	stop()
	if end := e.ended(1); end.Outcome != frame.Exited || end.Exit != 5 {
		t.Errorf("%+v, want exit 5", end)
	}
	if end := e.ended(2); end.Outcome != frame.Returned {
		t.Errorf("%+v, want it returned", end)
	}
	if !e.drained {
		t.Error("the engine was not told")
	}
}

// TestRefusedForGood: a server that is none of this protocol ends the runner at its start.
func TestRefusedForGood(t *testing.T) {
	e := newEngine(t)
	r, err := New(Config{URL: e.http.URL + "/base", Token: "secret-token", Name: "x", Slots: 1})
	if err != nil {
		t.Fatal(err)
	}
	r.url = strings.Replace(r.url, "/base/runner", "/elsewhere", 1)
	e.http.Config.Handler = nil // 404 for all
	if err := r.Run(t.Context()); err == nil || !strings.Contains(err.Error(), client.ErrRefused.Error()) {
		t.Errorf("%v, want a refusal", err)
	}
}
