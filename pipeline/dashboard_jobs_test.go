package pipeline

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/dashboard"
	"async-data-processor/jobs"
	"async-data-processor/jobs/store"
)

// jobsDouble is a Service of which a stream asks the lists. The others are not called.
type jobsDouble struct {
	jobs.Service

	mu    sync.Mutex // guards what follows
	takes time.Duration
	away  error
	asked int
}

func (d *jobsDouble) service() jobs.Service { return d }

// set has it answer after a time, and returns how often it was asked since the last set.
func (d *jobsDouble) set(takes time.Duration, away error) (asked int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	asked, d.asked = d.asked, 0
	d.takes, d.away = takes, away
	return asked
}

func (d *jobsDouble) answer(ctx context.Context) (jobs.Head, error) {
	d.mu.Lock()
	takes, away := d.takes, d.away
	d.asked++
	d.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return jobs.Head{}, ctx.Err()
	}
	return jobs.Head{AsOf: time.Now(), Node: "engine", Complete: true}, away
}

func (d *jobsDouble) Jobs(ctx context.Context, _ jobs.JobsQuery) (a jobs.JobsPage, err error) {
	a.Jobs = []jobs.JobView{{Name: "hello"}}
	a.Head, err = d.answer(ctx)
	return a, err
}

func (d *jobsDouble) Runs(ctx context.Context, f store.Filter) (a jobs.RunsPage, err error) {
	for id := range f.Limit {
		a.Runs = append(a.Runs, jobs.RunView{ID: int64(id + 1), Why: "a <b>reason</b>"})
	}
	a.Next = "1"
	a.Head, err = d.answer(ctx)
	return a, err
}

func (d *jobsDouble) Runners(ctx context.Context) (a jobs.RunnersPage, err error) {
	a.Runners = []jobs.RunnerView{{ID: "one"}}
	a.Head, err = d.answer(ctx)
	return a, err
}

// TestFeedTellsJobs: a stream tells jobs, the newest runs and runners, as HTTP does.
func TestFeedTellsJobs(t *testing.T) {
	for i, want := range []struct {
		name, key string
		rows      int
		more      bool
		text      string
	}{
		{"jobs", `"hello"`, 1, false, `"name":"hello"`},
		{"runs", "1", maxRuns, true, `"why":"a \u003cb\u003ereason\u003c/b\u003e"`},
		{"runners", `"one"`, 1, false, `"id":"one"`},
	} {
		part := jobsParts((&jobsDouble{}).service)[i]
		s := part.Look()
		if part.Name != want.name || part.Form != dashboard.Rows || !s.Complete || s.Node != "engine" || len(s.Rows) != want.rows || s.More != want.more ||
			s.Rows[0].Key != want.key || !strings.Contains(string(s.Rows[0].Text()), want.text) {
			t.Errorf("%s: it tells %+v", part.Name, s)
		}
	}
}

// TestFeedOfSilentEngine: an engine that does not answer keeps no part of a stream waiting.
// What it told before stays, and is said to be incomplete.
func TestFeedOfSilentEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engine := &jobsDouble{takes: 10 * time.Millisecond}
		part := jobsParts(engine.service)[0]
		// look looks twice a second, as a stream does, and returns what it sees at last.
		look := func(d time.Duration) (s dashboard.State) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
				began := time.Now()
				s = part.Look()
				if took := time.Since(began); took > jobsWait {
					t.Fatalf("a look takes %v", took)
				}
			}
			return s
		}
		if s := look(10 * time.Second); !s.Complete || len(s.Rows) != 1 {
			t.Errorf("it tells %+v", s)
		}
		if asked := engine.set(0, errors.New("away")); asked > 11 {
			t.Errorf("in 10 s it asks %d times", asked)
		}
		if s := look(30 * time.Second); s.Complete || len(s.Rows) != 1 {
			t.Errorf("of an engine without a database it tells %+v", s)
		}
		engine.set(0, nil)
		if s := look(jobsAway + time.Second); !s.Complete {
			t.Errorf("after the database was away it tells %+v", s)
		}
		engine.set(time.Hour, nil)
		if s := look(30 * time.Second); s.Complete || len(s.Rows) != 1 {
			t.Errorf("of a silent engine it tells %+v", s)
		}
		if asked := engine.set(0, nil); asked > 6 {
			t.Errorf("in 30 s it asks a silent engine %d times", asked)
		}
		if s := look(jobsAway + jobsLimit + time.Second); !s.Complete {
			t.Errorf("after the engine was silent it tells %+v", s)
		}
		time.Sleep(jobsLimit) // no question is left
	})
}
