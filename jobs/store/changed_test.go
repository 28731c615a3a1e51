package store

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"
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
