package store

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store/storetest"
)

// TestWritable: a database that answers and refuses a change is not writable, until it takes one.
func TestWritable(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		change := func() error {
			_, _, err := s.Create(ctx, New{Job: "a", Args: json.RawMessage("1"), Attempts: 1})
			return err
		}
		s.must(change())
		s.sql("ALTER TABLE schema_version RENAME TO away_version")
		s.must(s.Writable(ctx)) // it asks only if there is a reason
		s.sql("ALTER TABLE inputs RENAME TO away_inputs")
		if change() == nil || s.Writable(ctx) == nil {
			t.Fatal("it takes changes")
		}
		s.sql("ALTER TABLE away_version RENAME TO schema_version")
		before := logSize(s)
		s.must(s.Writable(ctx))
		if path, ok := strings.CutPrefix(s.url, sqlitePrefix); ok && logSize(s) <= before {
			t.Errorf("nothing was written to the log of %s: a full disk would not be found", path)
		}
	})
}

// logSize returns the size of SQLite's log; 0 with another database.
func logSize(s suite) int64 {
	info, err := os.Stat(strings.TrimPrefix(s.url, sqlitePrefix) + "-wal")
	if err != nil {
		return 0
	}
	return info.Size()
}

// TestChangedRows: what another hand has written can be told in JSON.
func TestChangedRows(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		run, _, err := s.Create(ctx, New{Job: "a", Args: json.RawMessage(`{"a":1}`), Attempts: 1})
		s.must(err)
		if s.db.dialect.loose { // PostgreSQL takes no text that is not UTF-8
			s.sql("UPDATE inputs SET args = CAST(x'22ff22' AS text)")
			got, err := s.Run(ctx, run.ID)
			s.must(err)
			if !utf8.Valid(got.Args) || !json.Valid(got.Args) {
				t.Errorf("arguments that are not UTF-8 are read as %q", got.Args)
			}
		}
		s.sql("UPDATE inputs SET args = '{bad'")
		for _, ms := range []int64{math.MaxInt64, math.MinInt64, latest + 1} {
			s.sql("UPDATE runs SET ended = $1, created = $1, due = $1", ms)
			got, err := s.Run(ctx, run.ID)
			s.must(err)
			if text, err := json.Marshal(got); err != nil || string(got.Args) != `"{bad"` {
				t.Errorf("%d: %s: %v", ms, text, err)
			}
		}
	})
}

// TestOddRow: a row that another hand has made unreadable says so, and keeps no other one from
// anyone. PostgreSQL takes no such values.
func TestOddRow(t *testing.T) {
	for _, change := range []string{
		"runs SET created = 'x'", "runs SET cancelling = 'x'", "runs SET backoff = 'x'", "runs SET due = 1.5", "runs SET spent = 'x', attempts = x'ff'",
		"inputs SET lines = 'x'", "attempts SET leased = 'x', spent = 'x'",
	} {
		t.Run(change, func(t *testing.T) {
			url := storetest.SQLite(t)
			s, ctx := suite{t, open(t, url), url, nil}, t.Context()
			(&clock{s.db.dialect, 1e12}).advance(0) // else the first run may be due before the second one begins
			for range 2 {
				run := s.begun("a", 9)
				s.end(fenceOf(run), frame.Fault, 0)
			}
			s.sql("INSERT INTO inputs (run, name) SELECT id, 'a_file' FROM runs")
			s.sql("UPDATE runs SET due = 1")
			s.sql("UPDATE " + change + " WHERE rowid = 1")
			runs, err := s.Runs(ctx, Filter{Limit: 10})
			s.must(err)
			attempts, err := s.Attempts(ctx, 1)
			s.must(err)
			const says = "its row in the database has no valid "
			why := runs[1].Why
			if strings.HasPrefix(change, "attempts") {
				why = attempts[0].Why
			}
			if len(runs) != 2 || strings.Contains(runs[0].Why, says) || !strings.Contains(why, says) && !strings.Contains(change, "1.5") {
				t.Errorf("the runs are %+v, the attempts %+v", runs, attempts)
			}
			claimed, err := s.Claim(ctx, Claim{Runner: "r1", Engine: "e1", Jobs: map[string]int{"a": 9}, Max: 9})
			s.must(err)
			if len(claimed) != 2 {
				t.Fatalf("claimed %+v", claimed)
			}
			fences := []Fence{fenceOf(claimed[0]), fenceOf(claimed[1])}
			renewed, _, err := s.Renew(ctx, "r1", fences)
			s.must(err)
			if len(renewed) != 2 {
				t.Errorf("renewed %v", renewed)
			}
			for _, f := range fences {
				s.end(f, frame.Exited, 0)
			}
		})
	}
}

// TestRowsByHand: what another hand may write in any database.
func TestRowsByHand(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		run := s.begun("a", 1)
		s.end(fenceOf(run), frame.Exited, 1)
		s.sql("UPDATE runs SET state = 'queued', attempt = 0, spent = 0") // tried again by hand
		if n, err := s.Retain(ctx, map[string]int{"a": 0}, 10); n != 0 || err != nil {
			s.t.Errorf("a queued run was removed: %d, %v", n, err)
		}
		again := s.claim("a")
		if again.Attempt != 2 {
			s.t.Fatalf("claimed %+v, want attempt 2", again)
		}
		if n, err := s.Retain(ctx, map[string]int{"a": 0}, 10); n != 0 || err != nil {
			s.t.Errorf("a leased run was removed: %d, %v", n, err)
		}
		s.end(fenceOf(again), frame.Exited, 0)

		broken := s.queue("b", 1)
		s.sql("UPDATE runs SET attempt = -5 WHERE id = $1", broken.ID)
		next := s.queue("b", 1)
		if got := s.claim("b"); got.ID != next.ID {
			s.t.Errorf("claimed %+v, no runner takes the attempt -4", got)
		}
		s.sql("UPDATE runs SET state = 'weird' WHERE id = $1", broken.ID)
		s.sql("INSERT INTO inputs (run, name) VALUES ($1, 'a_file')", broken.ID)
		got, err := s.Cancel(ctx, broken.ID, "anna", "")
		s.must(err)
		if got.State != Cancelled || got.Ended.IsZero() || got.File == nil {
			s.t.Errorf("a state that there is not: %+v", got)
		}
		_, err = s.AppendLog(ctx, fenceOf(again), 0, []byte("0123456789"), 0)
		s.must(err)
		s.sql("UPDATE logs SET data = $1", []byte("012"))
		part, err := s.Log(ctx, again.ID, again.Attempt, 8, 10)
		s.must(err)
		if len(part.Data) != 0 {
			s.t.Errorf("a part that is cut has %q", part.Data)
		}
	})
}
