package store

import (
	"flag"
	"strings"
	"testing"
	"time"

	"async-data-processor/jobs/frame"
)

var many = flag.Int("many", 0, "how many ended runs TestMany has; its times are printed, and bounded")

// TestMany: lists, counts and one run stay fast over many ended runs. By default there are
// few of them, and only that it works is tested. 100,000 are measured with
//
//	go test ./jobs/store -run TestMany -many 100000 -v
func TestMany(t *testing.T) {
	each(t, func(s suite) {
		n := max(*many, 1000)
		s.fill("old", n)
		if *many > 0 && !strings.HasPrefix(s.url, sqlitePrefix) {
			if _, err := s.db.write.Exec("VACUUM ANALYZE"); err != nil { // as the server does by itself, in time
				t.Fatal(err)
			}
		}
		ctx := t.Context()
		took := func(name string, f func() error) {
			t.Helper()
			_ = f() // what is measured is not the first call
			best := time.Hour
			for range 5 {
				began := time.Now()
				if err := f(); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				best = min(best, time.Since(began))
			}
			t.Logf("%-22s %v", name, best)
			if *many > 0 && best > 50*time.Millisecond {
				t.Errorf("%s takes %v", name, best)
			}
		}
		list := func(f Filter) func() error {
			return func() error { _, err := s.Runs(ctx, f); return err }
		}
		took("100 newest", list(Filter{Limit: 100}))
		took("100 in the middle", list(Filter{Limit: 100, Before: int64(n / 2)}))
		took("100 of a job", list(Filter{Limit: 100, Job: "old"}))
		took("100 of a job and state", list(Filter{Limit: 100, Job: "old", State: Succeeded}))
		took("none of a state", list(Filter{Limit: 100, State: Dead}))
		took("none of a job and state", list(Filter{Limit: 100, Job: "old", State: Running}))
		took("counts", func() error { _, err := s.Counts(ctx); return err })
		took("one run", func() error { _, err := s.Run(ctx, int64(n/3)); return err })
		took("its attempts", func() error { _, err := s.Attempts(ctx, int64(n/3)); return err })
		took("its log", func() error { _, err := s.Log(ctx, int64(n/3), 0, 0, 1000); return err })
		took("a claim of nothing", func() error {
			_, err := s.Claim(ctx, Claim{Runner: "r1", Jobs: map[string]int{"old": 1, "new": 1}, Max: 1})
			return err
		})
		took("queue, claim, end", func() error {
			s.end(fenceOf(s.begun("new", 1)), frame.Exited, 0)
			return nil
		})
		running := s.begun("new", 1)
		took("renew", func() error { _, _, err := s.Renew(ctx, "r1", []Fence{fenceOf(running)}); return err })
		took("expire nothing", func() error { _, err := s.Expire(ctx, 10); return err })
		began := time.Now()
		removed := 0
		for {
			k, err := s.Retain(ctx, map[string]int{"old": 100}, 1000)
			if s.must(err); k == 0 {
				break
			}
			removed += k
		}
		if removed != n-100 {
			t.Errorf("%d runs were removed, want %d", removed, n-100)
		}
		t.Logf("%d runs removed in %v", removed, time.Since(began))
	})
}
