package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"async-data-processor/jobs/frame"
)

// position is the n-th of some positions.
func position(n int) string { return fmt.Sprintf("01J%023d", n) }

// fileOf is the n-th file of a shard. Workers come and go, so their names say nothing.
func fileOf(shard, n int) frame.Published {
	name := fmt.Sprintf("shard-%d/%d-%d_%s.ndjson", shard, shard, 9-n%7, position(n))
	return frame.Published{Name: name, Shard: shard, Lines: n + 1, Bytes: int64(n) << 33}
}

func filesOf(shard int, numbers ...int) (files []frame.Published) {
	for _, n := range numbers {
		files = append(files, fileOf(shard, n))
	}
	return files
}

// fileJob is a run to be made for each file.
func fileJob(job string) New { return New{Job: job, By: "files", Attempts: 5, Backoff: time.Second} }

// spawnAll makes the runs of all files that are recorded.
func (s suite) spawnAll(jobs ...string) (created int) {
	s.t.Helper()
	var news []New
	for _, job := range jobs {
		news = append(news, fileJob(job))
	}
	for {
		n, err := s.Spawn(s.t.Context(), news, 3)
		s.must(err)
		if n == 0 {
			return created
		}
		created += n
	}
}

func TestFiles(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		if got, err := s.Cursor(ctx, 3); got != "" || err != nil {
			t.Errorf("the cursor of an unknown shard: %q, %v", got, err)
		}
		s.must(s.Record(ctx, []Recorded{
			{Shard: 4, Files: filesOf(4, 1)}, // no cursor yet
			{Shard: 3, Cursor: position(2), Files: filesOf(3, 2, 1, 4)},
		}))
		s.must(s.Record(ctx, []Recorded{{Shard: 3, Cursor: position(1), Files: filesOf(3, 1, 2)}})) // again, late
		if got, err := s.Cursor(ctx, 3); got != position(2) || err != nil {
			t.Errorf("the cursor is %s, %v", got, err)
		}
		if got, err := s.Cursor(ctx, 4); got != "" || err != nil {
			t.Errorf("the cursor of a shard without one: %q, %v", got, err)
		}
		if n, err := s.Spawn(ctx, nil, 10); n != 0 || err != nil {
			t.Errorf("without jobs: %d, %v", n, err)
		}
		if n := s.spawnAll("a", "b"); n != 8 {
			t.Errorf("%d runs, want 8", n)
		}
		s.must(s.Record(ctx, []Recorded{{Shard: 3, Cursor: position(5), Files: filesOf(3, 4, 2, 5)}}))
		if n := s.spawnAll("a"); n != 1 {
			t.Errorf("%d more runs, want 1", n)
		}
		runs, err := s.Runs(ctx, Filter{Job: "a", Limit: 100})
		s.must(err)
		var got []string
		for _, r := range runs {
			if want := slices.Index([]frame.Published{fileOf(r.File.Shard, r.File.Lines-1)}, *r.File); want != 0 || r.Key != r.File.Name || r.Attempts != 5 {
				t.Errorf("run %+v of %+v", r, r.File)
			}
			got = append(got, r.Key)
		}
		want := filesOf(3, 5, 4, 2, 1)
		if len(got) != 5 || got[0] != want[0].Name {
			t.Errorf("runs of %v", got)
		}
		for _, bad := range [][]Recorded{
			{{Shard: 3, Files: []frame.Published{{Name: "x.ndjson", Shard: 3}}}},
			{{Shard: 3, Files: []frame.Published{{Name: "1_" + strings.ToLower(position(9)) + ".ndjson", Shard: 3}}}},
			{{Shard: 3, Files: filesOf(4, 9)}},
			{{Shard: 3, Cursor: "x"}},
			{{Shard: 3}, {Shard: 3}},
			{{Shard: 3, Cursor: position(9), Files: make([]frame.Published, MaxRecorded+1)}},
			{{Shard: -1, Files: filesOf(-1, 9)}},
		} {
			s.isErr(s.Record(ctx, bad), ErrInvalid)
		}
		if got, err := s.Cursor(ctx, 3); got != position(5) || err != nil || s.spawnAll("a") != 0 {
			t.Errorf("bad input moved the cursor to %s, %v", got, err)
		}
		_, err = s.Spawn(ctx, []New{{Job: "a"}}, 1)
		s.isErr(err, ErrInvalid)
	})
}

// TestRecordIsOneTransaction: a cursor never goes beyond a file that is not recorded.
func TestRecordIsOneTransaction(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		s.must(s.Record(ctx, []Recorded{{Shard: 1, Cursor: position(1)}, {Shard: 2, Cursor: position(1)}}))
		// The last file cannot be written.
		bad := fileOf(2, 3).Name
		if strings.HasPrefix(s.url, sqlitePrefix) {
			s.sql("CREATE TRIGGER refuse BEFORE INSERT ON files WHEN new.name = '" + bad + "' BEGIN SELECT raise(ABORT, 'disk'); END")
		} else {
			s.sql("ALTER TABLE files ADD CHECK (name <> '" + bad + "')")
		}
		err := s.Record(ctx, []Recorded{{Shard: 1, Cursor: position(3), Files: filesOf(1, 2, 3)}, {Shard: 2, Cursor: position(3), Files: filesOf(2, 2, 3)}})
		if err == nil || !Away(err) {
			t.Fatalf("the error is %v", err)
		}
		for shard := 1; shard <= 2; shard++ {
			if got, err := s.Cursor(ctx, shard); got != position(1) || err != nil {
				t.Errorf("the cursor of shard %d is %s, %v, though its files are not recorded", shard, got, err)
			}
		}
		if n := s.spawnAll("a"); n != 0 {
			t.Errorf("%d files of a failed call are recorded", n)
		}
	})
}

// TestFilesSideBySide: two processes believe that they own a shard, and two engines make runs.
func TestFilesSideBySide(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		const files = 60
		other := suite{t, open(t, s.url), s.url, nil}
		var wg sync.WaitGroup
		var created atomic.Int64
		var done atomic.Int64
		for _, s := range []suite{s, other} {
			wg.Go(func() {
				for n := 0; n < files; n += 4 {
					if err := s.Record(ctx, []Recorded{{Shard: 1, Cursor: position(n + 3), Files: filesOf(1, n, n+1, n+2, n+3)}}); err != nil {
						t.Error(err)
					}
				}
				done.Add(1)
			})
			wg.Go(func() {
				for last := false; ; {
					n, err := s.Spawn(ctx, []New{fileJob("a")}, 7)
					if err != nil {
						t.Error(err)
						return
					}
					created.Add(int64(n))
					if n == 0 && last {
						return
					}
					last = done.Load() == 2
				}
			})
		}
		wg.Wait()
		created.Add(int64(s.spawnAll("a"))) // what the other had locked
		counts, err := s.Counts(ctx)
		s.must(err)
		if counts["a"][Queued] != files || created.Load() != files {
			t.Errorf("%v, %d created, want %d runs", counts, created.Load(), files)
		}
		if got, err := s.Cursor(ctx, 1); got != position(files-1) || err != nil {
			t.Errorf("the cursor is %s, %v", got, err)
		}
	})
}

// TestForget: a file is forgotten only where it cannot become a second run.
func TestForget(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		all := Recorded{Shard: 1, Cursor: position(2), Files: filesOf(1, 1, 2, 3)}
		s.must(s.Record(ctx, []Recorded{all}))
		left := func(want int) {
			s.t.Helper()
			var n int
			s.must(s.db.view(ctx, "test", func(q session) error {
				_, err := q.one("SELECT count(*) FROM files", nil, &n)
				return err
			}))
			if n != want {
				s.t.Errorf("%d files are known, want %d", n, want)
			}
		}
		retain := func() {
			s.t.Helper()
			_, err := s.Retain(ctx, map[string]int{"a": 0}, 100)
			s.must(err)
		}
		s.clock.advance(fileAge + time.Hour)
		retain()
		left(3) // none has its run yet
		if n := s.spawnAll("a"); n != 3 {
			t.Fatalf("%d runs", n)
		}
		for id := range int64(3) {
			_, err := s.Cancel(ctx, id+1, "", "")
			s.must(err)
		}
		retain()
		left(1) // the third is beyond the cursor, which may be found again
		if runs, err := s.Runs(ctx, Filter{Limit: 10}); err != nil || len(runs) != 0 {
			t.Errorf("%d runs are left, %v", len(runs), err)
		}
		s.must(s.Record(ctx, []Recorded{all})) // by a process that was stopped meanwhile
		if n := s.spawnAll("a"); n != 0 {
			t.Errorf("%d runs were made a second time", n)
		}
		s.must(s.Record(ctx, []Recorded{{Shard: 1, Cursor: position(4), Files: filesOf(1, 4)}}))
		if n := s.spawnAll("a"); n != 1 {
			t.Errorf("%d new runs", n)
		}
		retain()
		left(1) // the new one is younger than a day
	})
}

func TestPosition(t *testing.T) {
	if got, err := Position(fileOf(3, 7).Name); got != position(7) || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	for _, name := range []string{"", ".ndjson", "_.ndjson", position(1), position(1) + ".ndjson", "1_" + position(1), "1_" + position(1)[1:] + ".ndjson", "1_\xff" + position(1)[1:] + ".ndjson"} {
		if got, err := Position(name); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %s, %v", name, got, err)
		}
	}
}
