package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"async-data-processor/faults/rig"
)

// A system whose jobs' state is in a database of this kind.
var (
	sqlite   = engine{name: "sqlite", open: rig.NewStore}
	postgres = engine{name: "postgres", open: rig.NewNATS}
)

// witnessed is a job of the campaign, what it does, and how its runs end.
type witnessed struct {
	name          string
	chunks, lines int
	pause         float64
	fails, code   int
	attempts      int
	state         string
}

var witnesses = []witnessed{
	{name: "quick", chunks: 1, lines: 3, pause: .02, attempts: 100, state: "succeeded"},
	{name: "slow", chunks: 15, lines: 10, pause: .1, attempts: 100, state: "succeeded"},
	{name: "loud", chunks: 4, lines: 3000, pause: .05, attempts: 100, state: "succeeded"},
	{name: "wavering", chunks: 2, lines: 3, pause: .02, fails: 1, attempts: 100, state: "succeeded"},
	{name: "failing", chunks: 1, lines: 2, code: 7, attempts: 3, state: "dead"},
	{name: "hopeless", chunks: 1, lines: 1, code: 78, attempts: 100, state: "dead"},
}

// definitionsOf is the jobs.yaml of jobs.
func definitionsOf(jobs []witnessed) string {
	var b strings.Builder
	for _, w := range jobs {
		fmt.Fprintf(&b, "- name: %s\n  command: [sh, WITNESS/witness.sh, \"%d\", \"%g\", \"%d\", \"%d\", \"%d\"]\n"+
			"  attempts: %d\n  backoff: 1s\n  concurrency: 50\n  keep: 10000\n",
			w.name, w.chunks, w.pause, w.lines, w.fails, w.code, w.attempts)
	}
	return b.String()
}

// TestJobs kills runners, engines and their database at random moments, while runs are
// asked for and done. No two attempts of a run are ever at work at a time; each run ends,
// as its job says; and of each attempt's log there is all, or it is said to be cut.
func TestJobs(t *testing.T) {
	on(t, "kill -9 of runners, engines and their database", func(c *campaign) {
		j := newJobs(c, definitionsOf(witnesses))
		hurts := []func(){
			func() { j.crash(j.runners[j.rng.IntN(len(j.runners))], time.Second) },
			func() { j.crash(j.engines[j.rng.IntN(len(j.engines))], time.Second) },
		}
		if j.postgres == nil {
			j.addEngine("standalone")
		} else {
			j.addEngine("server")
			j.addEngine("server")
			hurts = append(hurts, func() { j.crashDatabase(time.Second) })
		}
		for i := range 3 {
			j.addRunner(j.urls[i%len(j.urls)], "--slots=4")
		}
		load := j.load(either(36, 2000))
		for n := range either(2*len(hurts), 200) {
			j.moment(either(500*time.Millisecond, 2*time.Second))
			hurts[n%len(hurts)]()
			j.cycle()
		}
		load.wait()
		for id := range load.runs {
			j.awaitRun(id, "end of a run", jobRun.ended)
		}
		j.judge(load)
		j.stopAll()
	}, sqlite, postgres)
}

// jobLoad is runs that are asked for, again and again until there is an answer.
type jobLoad struct {
	runs map[int64]witnessed // by id; read it after wait
	done sync.WaitGroup
}

// load asks for so many runs.
func (j *jobSystem) load(runs int) *jobLoad {
	l := &jobLoad{runs: make(map[int64]witnessed)}
	pause := either(50*time.Millisecond, 100*time.Millisecond)
	l.done.Go(func() {
		for n := range runs {
			w := witnesses[n%len(witnesses)]
			r, err := j.insist(n, w.name)
			if err != nil {
				j.Error(err)
				return
			}
			if _, again := l.runs[r.ID]; again {
				j.Errorf("run %d is of two keys", r.ID)
			}
			l.runs[r.ID] = w
			time.Sleep(pause)
		}
	})
	j.Cleanup(l.done.Wait)
	return l
}

func (l *jobLoad) wait() { l.done.Wait() }

// insist asks the engines in turn for a run until one answers.
func (j *jobSystem) insist(n int, job string) (r jobRun, err error) {
	for try, began := 0, time.Now(); ; try++ {
		status, text := j.ask(http.MethodPost, j.urls[(n+try)%len(j.urls)]+"/api/jobs/"+job, "", "Idempotency-Key", fmt.Sprint("key-", n))
		switch {
		case status == http.StatusAccepted || status == http.StatusOK:
			return r, json.Unmarshal(text, &r)
		case status >= 400 && status < 500 && status != http.StatusTooManyRequests:
			return r, fmt.Errorf("POST of %s: %d %s", job, status, text)
		case time.Since(began) > rig.Patience:
			return r, fmt.Errorf("no answer to a POST of %s: %d %s", job, status, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// judge holds all runs to what their witnesses noted.
func (j *jobSystem) judge(l *jobLoad) {
	j.Helper()
	lost, cut := 0, 0
	for id, w := range l.runs {
		r := j.run(id)
		if r.State != w.state || r.Job != w.name || r.Success != (w.state == "succeeded") || r.Running || r.Queuing {
			j.Errorf("a run of %s is %+v, want %s", w.name, r, w.state)
		}
		lines := j.lines(id)
		if i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "twice") }); i >= 0 {
			j.twice++
			j.Errorf("run %d was executed twice at a time: %q", id, lines)
		}
		if len(r.History) != r.Attempt {
			j.Errorf("run %d has %d attempts in its history, want %d", id, len(r.History), r.Attempt)
		}
		for _, a := range r.History {
			if a.Attempt == r.Attempt && a.Outcome != "exited" && w.attempts < 100 {
				continue // a fault has ended the last one that it had
			}
			if a.Attempt == r.Attempt && (r.Exit == nil || *r.Exit != w.code || len(lines) == 0 || lines[len(lines)-1] != fmt.Sprintf("end %d %d", a.Attempt, w.code)) {
				j.Errorf("run %d ended as %+v, and its witness has %q", id, r, lines)
			}
			if a.Outcome != "exited" {
				lost++
			}
			if !j.judgeLog(r, a, wantLog(id, a.Attempt, w.chunks, w.lines)) {
				cut++
			}
		}
	}
	j.accepted = len(l.runs)
	j.lost = j.unknown(l)
	j.note("%d runs, %d attempts were lost or given back, the log of %d is not whole", len(l.runs), lost, cut)
}

// judgeLog tells whether the log of an attempt is whole. If it is said to be, it is.
func (j *jobSystem) judgeLog(r jobRun, a jobAttempt, want []byte) bool {
	j.Helper()
	got := j.log(r.ID, a.Attempt)
	switch {
	case a.Whole && a.Cut == 0 && a.Outcome == "exited" && !bytes.Equal(got, want):
		j.Errorf("the log of run %d, attempt %d, is said to be whole, and has %d bytes of %d", r.ID, a.Attempt, len(got), len(want))
	case !bytes.HasPrefix(want, got):
		j.Errorf("the log of run %d, attempt %d, is not what it has printed: %d bytes, %.200q", r.ID, a.Attempt, len(got), got)
	case a.Attempt == r.Attempt && !a.Whole:
		j.Errorf("the log of run %d, attempt %d, is not whole, though its runner told its end", r.ID, a.Attempt)
	}
	return a.Whole
}

// unknown counts the runs that the list has and that were not asked for, or the other way
// round.
func (j *jobSystem) unknown(l *jobLoad) (n int) {
	j.Helper()
	seen := make(map[int64]bool)
	for before := int64(0); ; {
		path := "/api/jobs?limit=500"
		if before > 0 {
			path += fmt.Sprint("&before=", before)
		}
		var page []jobRun
		if err := j.get(path, &page); err != nil {
			j.Fatal(err)
		}
		for _, r := range page {
			if _, asked := l.runs[r.ID]; !asked || seen[r.ID] {
				n++
				j.Errorf("run %d was not asked for, or is listed twice", r.ID)
			}
			seen[r.ID], before = true, r.ID
		}
		if len(page) == 0 {
			break
		}
	}
	if missing := len(l.runs) - len(seen); missing > 0 {
		n += missing
		j.Errorf("%d runs are not listed", missing)
	}
	return n
}
