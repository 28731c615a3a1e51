package store

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store/storetest"
)

// modelRun is a run as the model knows it.
type modelRun struct {
	job             string
	state           State
	attempt, base   int
	spent, attempts int
	due, until      int64
	cancelling      bool
	runner          string
}

func (m *modelRun) active() bool { return m.state == Leased || m.state == Running }

// model is what a store has to be like: runs in memory, and the clock.
type model struct {
	*rapid.T
	s    suite
	runs map[int64]*modelRun
	most map[string]int // how many of a job may run at a time
}

const modelBackoff = time.Second

// TestModel does what it likes to a store and to a model of it, and compares them after each
// step. -rapid.checks asks for more of it.
func TestModel(t *testing.T) {
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if checks := flag.Lookup("rapid.checks").Value; !given {
		was := checks.String()
		must(t, checks.Set("15"))
		defer func() { must(t, checks.Set(was)) }()
	}
	for _, engine := range []struct {
		name string
		url  func(testing.TB) string
	}{{"sqlite", storetest.SQLite}, {"postgres", storetest.Postgres}} {
		t.Run(engine.name, func(t *testing.T) {
			s := suite{t, nil, engine.url(t), nil}
			s.Store = open(t, s.url)
			s.clock = &clock{s.db.dialect, time.Date(2026, 11, 30, 4, 0, 0, 0, time.UTC).UnixMilli()}
			s.clock.advance(0)
			rapid.Check(t, func(r *rapid.T) {
				s.sql("DELETE FROM runs")
				m := &model{r, s, make(map[int64]*modelRun), map[string]int{"a": 1, "b": 2}}
				r.Repeat(map[string]func(*rapid.T){
					"": m.compare, "create": m.create, "claim": m.claim, "start": m.start, "renew": m.renew, "end": m.end,
					"unclaim": m.unclaim, "expire": m.expire, "cancel": m.cancel, "retry": m.retry, "wait": m.wait, "retain": m.retain,
				})
			})
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ok ends the step if there is an error.
func (m *model) ok(err error) {
	if err != nil {
		m.Fatal(err)
	}
}

// some draws a run, or one that is not there, and an attempt of it or of another time.
func (m *model) some(t *rapid.T) (Fence, *modelRun) {
	ids := append(slices.Sorted(maps.Keys(m.runs)), 1<<40)
	id := rapid.SampledFrom(ids).Draw(t, "run")
	run := m.runs[id]
	f := Fence{id, 1}
	if run != nil {
		f.Attempt = run.attempt - rapid.SampledFrom([]int{0, 0, 0, 1, -1}).Draw(t, "before")
	}
	return f, run
}

func (m *model) create(t *rapid.T) {
	job, attempts := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "job"), rapid.IntRange(1, 3).Draw(t, "attempts")
	run, _, err := m.s.Create(m.s.t.Context(), New{Job: job, Attempts: attempts, Backoff: modelBackoff})
	m.ok(err)
	m.runs[run.ID] = &modelRun{job: job, state: Queued, attempts: attempts, due: m.s.clock.ms}
}

func (m *model) claim(t *rapid.T) {
	limit, runner := rapid.IntRange(1, 3).Draw(t, "max"), rapid.SampledFrom([]string{"r1", "r2"}).Draw(t, "runner")
	room := maps.Clone(m.most)
	var due []int64
	for id, r := range m.runs {
		if r.active() {
			room[r.job]--
		}
		if r.state == Queued && r.due <= m.s.clock.ms {
			due = append(due, id)
		}
	}
	slices.SortFunc(due, func(x, y int64) int {
		if m.runs[x].due != m.runs[y].due {
			return int(m.runs[x].due - m.runs[y].due)
		}
		return int(x - y)
	})
	var want []int64
	for _, id := range due {
		if r := m.runs[id]; room[r.job] > 0 && len(want) < limit {
			room[r.job]--
			want = append(want, id)
			r.state, r.attempt, r.runner, r.until = Leased, r.attempt+1, runner, m.s.clock.ms+frame.Lease.Milliseconds()
		}
	}
	runs, err := m.s.Claim(m.s.t.Context(), Claim{Runner: runner, Jobs: m.most, Max: limit})
	m.ok(err)
	var got []int64
	for _, r := range runs {
		got = append(got, r.ID)
	}
	if !slices.Equal(got, want) {
		m.Fatalf("claimed %v, want %v", got, want)
	}
}

// settled compares whether an attempt was current, and tells that.
func (m *model) settled(run *modelRun, f Fence, ok bool, err error) bool {
	m.ok(err)
	want := run != nil && run.active() && run.attempt == f.Attempt
	if ok != want {
		m.Fatalf("%+v of %+v: %v, want %v", f, run, ok, want)
	}
	return want
}

func (m *model) start(t *rapid.T) {
	f, run := m.some(t)
	_, ok, err := m.s.Start(m.s.t.Context(), f)
	if m.settled(run, f, ok, err) {
		run.state = Running
	}
}

func (m *model) renew(t *rapid.T) {
	f, run := m.some(t)
	runner := rapid.SampledFrom([]string{"r1", "r2"}).Draw(t, "runner")
	renewed, cancelling, err := m.s.Renew(m.s.t.Context(), runner, []Fence{f})
	m.ok(err)
	want := run != nil && run.active() && run.attempt == f.Attempt && run.runner == runner
	if (len(renewed) == 1) != want || (len(cancelling) == 1) != (want && run.cancelling) {
		m.Fatalf("%+v renewed: %v, cancelling %v", run, renewed, cancelling)
	}
	if want {
		run.until = m.s.clock.ms + frame.Lease.Milliseconds()
	}
}

// fail is what follows from a failure, or from an attempt that is not spent.
func (m *model) fail(run *modelRun, spent bool, pause time.Duration) {
	n := run.attempt - run.base - run.spent
	if spent {
		run.spent++
		n = run.spent
	}
	for range n - 1 {
		pause = min(2*pause, time.Hour)
	}
	switch {
	case run.cancelling:
		if run.state, run.cancelling = Cancelled, false; !spent {
			run.spent++
		}
	case spent && run.spent >= run.attempts, run.attempt-run.base >= MaxAttempts:
		run.state = Dead
	default:
		run.state, run.due = Queued, m.s.clock.ms+pause.Milliseconds()
	}
}

func (m *model) end(t *rapid.T) {
	f, run := m.some(t)
	outcome := rapid.SampledFrom([]frame.Outcome{
		frame.Exited, frame.Exited, frame.TimedOut, frame.Cancelled, frame.Fault, frame.Fenced, frame.Returned,
	}).Draw(t, "outcome")
	exit := rapid.SampledFrom([]int{0, 1, 75, 78}).Draw(t, "exit")
	// A stale end that happens to be the same as the one before it is no stale one.
	_, ok, err := m.s.End(m.s.t.Context(), f, End{Outcome: outcome, Exit: exit, Why: fmt.Sprint(rapid.Uint64().Draw(t, "why"))})
	if !m.settled(run, f, ok, err) {
		return
	}
	ended := func(state State) { run.state, run.cancelling, run.spent = state, false, run.spent+1 }
	switch {
	case outcome == frame.Exited && exit == 0:
		ended(Succeeded)
	case outcome == frame.TimedOut:
		ended(TimedOut)
	case outcome == frame.Cancelled || run.cancelling:
		ended(Cancelled)
	case outcome == frame.Exited && exit == 78:
		ended(Dead)
	case outcome == frame.Returned:
		m.fail(run, false, 0)
	default:
		m.fail(run, outcome == frame.Fenced || outcome == frame.Exited && exit == 1, modelBackoff)
	}
}

func (m *model) unclaim(t *rapid.T) {
	f, run := m.some(t)
	_, ok, err := m.s.Unclaim(m.s.t.Context(), f, "")
	if !m.settled(run, f, ok, err) {
		return
	}
	if run.attempt-run.base-run.spent > 6 {
		m.Skip("beyond a minute") // TestUnclaim has the numbers
	}
	m.fail(run, false, time.Second)
}

func (m *model) expire(*rapid.T) {
	runs, err := m.s.Expire(m.s.t.Context(), 100)
	m.ok(err)
	n := 0
	for _, run := range m.runs {
		if !run.active() || run.until >= m.s.clock.ms {
			continue
		}
		n++
		m.fail(run, run.state == Running, modelBackoff)
	}
	if n != len(runs) {
		m.Fatalf("%d leases are over, %d were ended", n, len(runs))
	}
}

func (m *model) cancel(t *rapid.T) {
	f, run := m.some(t)
	_, err := m.s.Cancel(m.s.t.Context(), f.Run, "", "")
	ended := run != nil && run.state.Ended() && run.state != Cancelled
	if (err == nil) != (run != nil && !ended) {
		m.Fatalf("%+v: %v", run, err)
	}
	switch {
	case run == nil:
	case run.state == Queued:
		run.state = Cancelled
	case run.active():
		run.cancelling = true
	}
}

func (m *model) retry(t *rapid.T) {
	f, run := m.some(t)
	_, err := m.s.Retry(m.s.t.Context(), f.Run, "", "")
	may := run != nil && run.state.Ended() && run.state != Succeeded
	if (err == nil) != may {
		m.Fatalf("%+v: %v", run, err)
	}
	if may {
		run.state, run.base, run.spent, run.due = Queued, run.attempt, 0, m.s.clock.ms
	}
}

func (m *model) wait(t *rapid.T) {
	m.s.clock.advance(rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, 29 * time.Second, 31 * time.Second, time.Hour}).Draw(t, "for"))
}

func (m *model) retain(*rapid.T) {
	removed, err := m.s.Retain(m.s.t.Context(), map[string]int{"a": 0, "b": 1000}, 100)
	m.ok(err)
	for id, run := range m.runs {
		if run.job == "a" && run.state.Ended() {
			delete(m.runs, id)
			removed--
		}
	}
	if removed != 0 {
		m.Fatalf("%d more runs were removed than ended ones", removed)
	}
}

// compare holds the store to the model.
func (m *model) compare(*rapid.T) {
	runs, err := m.s.Runs(m.s.t.Context(), Filter{Limit: MaxList})
	m.ok(err)
	if len(runs) != len(m.runs) {
		m.Fatalf("%d runs, want %d", len(runs), len(m.runs))
	}
	active := make(map[string]int)
	for _, r := range runs {
		want := *m.runs[r.ID]
		got := modelRun{r.Job, r.State, r.Attempt, want.base, r.Spent, r.Attempts, r.Due.UnixMilli(), want.until, r.Cancelling, want.runner}
		if want.active() {
			got.until, got.runner = r.LeaseUntil.UnixMilli(), r.Runner
			active[r.Job]++
		}
		if got != want || r.State.Ended() == r.Ended.IsZero() {
			m.Fatalf("run %d is\n%+v, want\n%+v", r.ID, got, want)
		}
	}
	for job, n := range active {
		if n > m.most[job] {
			m.Fatalf("%d runs of %s at a time", n, job)
		}
	}
}
