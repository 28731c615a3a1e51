package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"async-data-processor/message"
)

// fakeWaiter says of each submission what the test wants, once it is told that it may.
type fakeWaiter struct {
	full     bool
	progress Progress
	after    time.Duration // when told is called; never if negative

	mu       sync.Mutex
	calls    []string // in their order
	awaiting chan struct{}
}

func (f *fakeWaiter) note(call string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
}

func (f *fakeWaiter) Await(_, _ string, told func(Progress)) (Waiting, bool) {
	if f.full {
		return nil, false
	}
	f.note("await")
	if f.after >= 0 {
		time.AfterFunc(f.after, func() { told(f.progress) })
	}
	return fakeWaiting{f}, true
}

type fakeWaiting struct{ *fakeWaiter }

func (f fakeWaiting) Accepted(shards []message.ShardCount) {
	f.note("accepted")
	if f.awaiting != nil {
		close(f.awaiting)
	}
}
func (f fakeWaiting) Progress() Progress { return f.progress }
func (f fakeWaiting) End()               { f.note("end") }

func (f *fakeWaiter) wantCalls(t *testing.T, want string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if got := strings.Join(f.calls, " "); got != want {
		t.Errorf("the waiter was called with %q, want %q", got, want)
	}
}

// startWaiting is a server with a waiter.
func startWaiting(t *testing.T, w *fakeWaiter, cfg Config) *rig {
	cfg.Waiter = w
	return start(t, cfg)
}

// wantProgress checks the answer to a client that prefers to wait.
func wantProgress(t *testing.T, a answer, want Progress, applied string) {
	t.Helper()
	want201(t, a, 1)
	var got struct {
		Written, Dead int
		Done          *bool
	}
	must(t, json.Unmarshal(a.body, &got))
	if (got.Done != nil) != (applied != "") || a.Header.Get("Preference-Applied") != applied {
		t.Fatalf("got %s with %q applied, want %q", a.body, a.Header.Get("Preference-Applied"), applied)
	}
	if applied != "" && (Progress{got.Written, got.Dead, *got.Done}) != want {
		t.Errorf("got %s, want %+v", a.body, want)
	}
}

// TestPreferWait: the answer comes when the submission is done, and says what became of it.
func TestPreferWait(t *testing.T) {
	w := &fakeWaiter{progress: Progress{Written: 1, Done: true}, after: 50 * time.Millisecond}
	rg := startWaiting(t, w, Config{})
	rg.then = func(context.Context, message.Submission) error {
		w.note("publish")
		return nil
	}
	began := time.Now()
	wantProgress(t, rg.post(entry, "Prefer", "respond-async, wait=30"), w.progress, "wait=30")
	if took := time.Since(began); took < w.after || took > 25*time.Second {
		t.Errorf("it took %v", took)
	}
	w.wantCalls(t, "await publish accepted end") // the first before the publish, else something may be missed
}

// TestPreferWaitInTime: the answer comes when the time is up, and says that it is not done.
func TestPreferWaitInTime(t *testing.T) {
	w := &fakeWaiter{progress: Progress{}, after: -1}
	rg := startWaiting(t, w, Config{})
	began := time.Now()
	wantProgress(t, rg.post(entry, "Prefer", "wait=1"), Progress{}, "wait=1")
	if took := time.Since(began); took < time.Second || took > 25*time.Second { // the most that there may be is 30 s
		t.Errorf("it took %v", took)
	}
	wantProgress(t, rg.post(entry, "Prefer", "wait=0"), Progress{}, "wait=0")
}

// TestPreferWaitNotApplied: beyond the bound, without the preference, or when it cannot be
// read, the answer comes at once and says nothing more.
func TestPreferWaitNotApplied(t *testing.T) {
	rg := startWaiting(t, &fakeWaiter{full: true}, Config{})
	wantProgress(t, rg.post(entry, "Prefer", "wait=10"), Progress{}, "")
	w := &fakeWaiter{after: -1}
	rg = startWaiting(t, w, Config{})
	wantProgress(t, rg.post(entry), Progress{}, "")
	wantProgress(t, rg.post(entry, "Prefer", "wait=soon"), Progress{}, "")
	w.wantCalls(t, "")
	wantProgress(t, start(t, Config{}).post(entry, "Prefer", "wait=10"), Progress{}, "") // nothing knows
}

// TestPreferWaitFails: a submission that is not accepted is not waited for.
func TestPreferWaitFails(t *testing.T) {
	w := &fakeWaiter{after: -1}
	rg := startWaiting(t, w, Config{})
	rg.then = func(context.Context, message.Submission) error { return errors.New("no confirm") }
	wantProblem(t, rg.post(entry, "Prefer", "wait=10"), outcomeUnknown)
	w.wantCalls(t, "await end")
	wantProblem(t, rg.post("[]", "Prefer", "wait=10"), invalidSubmission)
	w.wantCalls(t, "await end")
}

// TestPreferWaitHoldsNothing: a client that waits holds no room for bodies. A shutdown
// answers it at once, and one that goes away ends its wait.
func TestPreferWaitHoldsNothing(t *testing.T) {
	for _, way := range []string{"shutdown", "gone"} {
		t.Run(way, func(t *testing.T) {
			w := &fakeWaiter{after: -1, awaiting: make(chan struct{})}
			rg := startWaiting(t, w, Config{})
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			r, err := http.NewRequestWithContext(ctx, "POST", "http://"+rg.addr+"/message", strings.NewReader(entry))
			must(t, err)
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Prefer", "wait=30")
			answers := make(chan answer, 1)
			go func() {
				res, err := rg.client.Do(r)
				if err != nil {
					close(answers)
					return
				}
				answers <- readAnswer(t, res)
			}()
			<-w.awaiting
			began := time.Now()
			for rg.server.budget.used.Load() > 0 && time.Since(began) < 25*time.Second {
				time.Sleep(time.Millisecond)
			}
			if used := rg.server.budget.used.Load(); used > 0 {
				t.Errorf("it holds %d bytes of the budget", used)
			}
			began = time.Now()
			if way == "gone" {
				leave()
				<-answers
			} else {
				must(t, rg.server.Shutdown(t.Context()))
				wantProgress(t, <-answers, Progress{}, "wait=30")
			}
			<-rg.events
			if took := time.Since(began); took > 25*time.Second {
				t.Errorf("it took %v", took)
			}
			w.wantCalls(t, "await accepted end")
		})
	}
}

// TestPreferSyntax: what RFC 7240 allows, and what no client should send.
func TestPreferSyntax(t *testing.T) {
	const none = time.Duration(-1)
	for _, tt := range []struct {
		lines []string
		want  time.Duration
	}{
		{nil, none},
		{[]string{"wait=10"}, 10 * time.Second},
		{[]string{"WAIT = \"7\""}, 7 * time.Second},
		{[]string{"respond-async, wait=10"}, 10 * time.Second},
		{[]string{"respond-async", "wait=10"}, 10 * time.Second},
		{[]string{"wait=10; why=\"a, wait=3; b\""}, 10 * time.Second},
		{[]string{`foo="bar, wait=3\", wait=4", wait=5`}, 5 * time.Second},
		{[]string{",, ,wait=1"}, time.Second},
		{[]string{"wait=2, wait=3", "wait=4"}, 2 * time.Second},
		{[]string{"wait=30"}, 30 * time.Second},
		{[]string{"wait=31"}, 30 * time.Second},
		{[]string{"wait=" + strings.Repeat("9", 100_000)}, 30 * time.Second},
		{[]string{"wait=007"}, 7 * time.Second},
		{[]string{"wait=0"}, 0},
		{[]string{"wait"}, none},
		{[]string{"wait="}, none},
		{[]string{`wait=""`}, none},
		{[]string{"wait=-1"}, none},
		{[]string{"wait=1.5"}, none},
		{[]string{"wait=1 2"}, none},
		{[]string{"wait=soon, wait=5"}, none},
		{[]string{"waiting=5"}, none},
		{[]string{"a=wait=5"}, none},
		{[]string{`"wait=5"`}, none},
		{[]string{`a="`}, none},
		{[]string{`a="\`}, none},
	} {
		got, asked := PreferWait(http.Header{"Prefer": tt.lines})
		if asked != (tt.want != none) || asked && got != tt.want {
			t.Errorf("%.80q: got %v %v, want %v", tt.lines, got, asked, tt.want)
		}
	}
	h := http.Header{"Content-Type": {"application/json"}}
	if n := testing.AllocsPerRun(100, func() { PreferWait(h) }); n > 0 {
		t.Errorf("%v allocations without the header", n)
	}
}
