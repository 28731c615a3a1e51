package store

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"async-data-processor/jobs/frame"
)

// twice opens the database a second time, as another process does. Time is the database's,
// as two clocks that a test moves would not be one.
func (s suite) twice() [2]*Store {
	s.t.Helper()
	stores := [2]*Store{open(s.t, s.url), open(s.t, s.url)}
	return stores
}

// TestClaimersSideBySide: no attempt is given to two, and no more of a job run at a time than
// may, though each claimer counts by itself.
func TestClaimersSideBySide(t *testing.T) {
	each(t, func(s suite) {
		const runs, claimers, concurrency = 40, 6, 2
		for range runs {
			s.queue("narrow", 1)
			s.queue("wide", 1)
		}
		stores := s.twice()
		var mu sync.Mutex
		taken := make(map[Fence]string)
		active, ended := 0, 0
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		var wg sync.WaitGroup
		for i := range claimers {
			wg.Go(func() {
				store, runner := stores[i%2], fmt.Sprint("r", i)
				over := func() bool { mu.Lock(); defer mu.Unlock(); return ended == 2*runs }
				for !over() && ctx.Err() == nil && !t.Failed() {
					claimed, err := store.Claim(ctx, Claim{Runner: runner, Jobs: map[string]int{"narrow": concurrency, "wide": 1000}, Max: 3})
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					for _, r := range claimed {
						if by, ok := taken[fenceOf(r)]; ok {
							t.Errorf("%+v was given to %s and %s", fenceOf(r), by, runner)
						}
						taken[fenceOf(r)] = runner
						if r.Job == "narrow" {
							active++
						}
					}
					if active > concurrency {
						t.Errorf("%d runs of a job at a time, %d may", active, concurrency)
					}
					mu.Unlock()
					for _, r := range claimed {
						mu.Lock()
						if r.Job == "narrow" {
							active-- // before its end, so that it is never counted too long
						}
						mu.Unlock()
						if _, ok, err := store.End(ctx, fenceOf(r), End{Outcome: frame.Exited}); !ok || err != nil {
							t.Errorf("end: %v, %v", ok, err)
						}
						mu.Lock()
						ended++
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		if counts, err := s.Counts(t.Context()); err != nil || counts["narrow"][Succeeded] != runs || counts["wide"][Succeeded] != runs || len(taken) != 2*runs {
			t.Errorf("%v, %v, %d were taken", counts, err, len(taken))
		}
	})
}

// TestOneWins: of two calls side by side that exclude each other, one has an effect.
func TestOneWins(t *testing.T) {
	each(t, func(s suite) {
		stores := s.twice()
		both := func(first, second func()) {
			var wg sync.WaitGroup
			begin := make(chan struct{})
			for _, f := range []func(){first, second} {
				wg.Go(func() { <-begin; f() })
			}
			close(begin)
			wg.Wait()
		}
		ctx := t.Context()
		for range 10 {
			run := s.begun("a", 5)
			s.sql("UPDATE runs SET lease_until = 1 WHERE id = $1", run.ID)
			var ok bool
			var lost []Run
			both(func() {
				var err error
				_, ok, err = stores[0].End(ctx, fenceOf(run), End{Outcome: frame.Exited})
				s.must(err)
			}, func() {
				var err error
				lost, err = stores[1].Expire(ctx, 10)
				s.must(err)
			})
			if state := s.stateOf(run.ID); ok == (len(lost) == 1) || ok != (state == Succeeded) {
				t.Fatalf("End %v against Expire %v: %v", ok, lost, state)
			}
			s.sql("DELETE FROM runs")

			run = s.begun("b", 5)
			both(func() {
				_, ok, err := stores[0].End(ctx, fenceOf(run), End{Outcome: frame.Exited, Exit: 1})
				if s.must(err); !ok {
					t.Error("the end is stale")
				}
			}, func() {
				_, err := stores[1].Cancel(ctx, run.ID, "", "")
				s.must(err)
			})
			if state := s.stateOf(run.ID); state != Cancelled {
				t.Fatalf("End against Cancel: %v", state)
			}

			id := s.queue("c", 1).ID
			var claimed []Run
			var after Run
			both(func() {
				var err error
				claimed, err = stores[0].Claim(ctx, Claim{Runner: "r1", Jobs: map[string]int{"c": 1}, Max: 1})
				s.must(err)
			}, func() {
				var err error
				after, err = stores[1].Cancel(ctx, id, "", "")
				s.must(err)
			})
			if (len(claimed) == 1) == (after.State == Cancelled) || after.State != Cancelled && !after.Cancelling && claimed == nil {
				t.Fatalf("Claim %v against Cancel %+v", claimed, after)
			}
			s.sql("DELETE FROM runs")
		}
	})
}

// TestRetainBesideClaims: old runs go while others are claimed and end.
func TestRetainBesideClaims(t *testing.T) {
	each(t, func(s suite) {
		const old, keep = 2000, 100
		s.fill("a", old)
		stores := s.twice()
		ctx := t.Context()
		done := make(chan error, 1)
		removed := 0
		go func() {
			var err error
			for err == nil {
				var n int
				if n, err = stores[0].Retain(ctx, map[string]int{"a": keep}, 500); n == 0 {
					break
				}
				removed += n
			}
			done <- err
		}()
		claims := 0
		for over := false; !over; claims++ {
			select {
			case err := <-done:
				s.must(err)
				over = true
			default:
			}
			run := s.begun("b", 1)
			s.end(fenceOf(run), frame.Exited, 0)
		}
		counts, err := s.Counts(ctx)
		s.must(err)
		if removed != old-keep || counts["a"][Succeeded] != keep || counts["b"][Succeeded] != claims {
			t.Errorf("%d removed, %v, %d claims", removed, counts, claims)
		}
		runs, err := s.Runs(ctx, Filter{Job: "a", Limit: MaxList})
		s.must(err)
		if len(runs) != keep || runs[0].ID != old || runs[keep-1].ID != old-keep+1 {
			t.Errorf("not the newest are kept: %d, the first %d", len(runs), runs[0].ID)
		}
		var rest int
		s.must(s.db.view(ctx, "test", func(q session) error {
			_, err := q.one(`SELECT (SELECT count(*) FROM attempts WHERE run NOT IN (SELECT id FROM runs)) +
				(SELECT count(*) FROM inputs WHERE run NOT IN (SELECT id FROM runs)) + (SELECT count(*) FROM logs WHERE run NOT IN (SELECT id FROM runs))`, nil, &rest)
			return err
		}))
		if rest > 0 {
			t.Errorf("%d rows of removed runs are left", rest)
		}
	})
}

// fill makes n runs of a job that have succeeded, each with an attempt, arguments and a log.
func (s suite) fill(job string, n int) {
	s.t.Helper()
	numbers := "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < " + fmt.Sprint(n) + ") "
	s.sql(`INSERT INTO runs (job, key, by_whom, state, attempt, spent, attempts, backoff, created, due, leased, started, ended, outcome, exit)
		`+numbers+`SELECT CAST($1 AS text), '~' || CAST(n AS text), 'anna', 'succeeded', 1, 1, 1, 0, n, n, n, n, n, 'exited', 0 FROM numbers`, job)
	s.sql("INSERT INTO attempts (run, number, runner, engine, leased, ended) SELECT id, 1, 'r1', 'e1', leased, ended FROM runs WHERE job = $1", job)
	s.sql("INSERT INTO inputs (run, args) SELECT id, '{}' FROM runs WHERE job = $1", job)
	s.sql("INSERT INTO logs (run, number, at, size, data) SELECT id, 1, 0, 1, $2 FROM runs WHERE job = $1", job, []byte("x"))
}
