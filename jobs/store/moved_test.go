package store

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"async-data-processor/jobs/store/storetest"
)

// TestMoved: nothing is written to a file of SQLite that has lost its name, until it has it again.
func TestMoved(t *testing.T) {
	for _, name := range beside {
		t.Run("state.db"+name, func(t *testing.T) {
			url := storetest.SQLite(t)
			path := strings.TrimPrefix(url, sqlitePrefix) + name
			s, ctx := suite{t, open(t, url), url, nil}, t.Context()
			s.queue("a", 1)
			n := New{Job: "a", Attempts: 1}
			refused := func(how string) {
				t.Helper()
				_, _, err := s.Create(ctx, n)
				_, reading := s.Clock(ctx)
				for _, err := range []error{err, reading, s.Writable(ctx)} {
					if err == nil || !Away(err) || !strings.Contains(err.Error(), path+" is in use and was removed or replaced") {
						t.Fatalf("%s: %v", how, err)
					}
				}
			}
			s.must(os.Rename(path, path+".away"))
			refused("removed")
			s.must(os.WriteFile(path, nil, 0o600))
			refused("replaced")
			s.must(os.Rename(path+".away", path))
			s.must(s.Writable(ctx))
			if run := s.queue("a", 1); run.ID != 2 {
				t.Errorf("put back, the next run is %+v", run)
			}
		})
	}
}

// TestForeign: a database of something else, or one that has lost a table, is not begun with.
func TestForeign(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := suite{t, open(t, url), url, nil}
		var names []string
		if s.db.dialect.otherTable != "" {
			s.must(s.db.view(t.Context(), "test", func(q session) error {
				return q.each(q.dialect.otherTable, nil, func(scan func(...any) error) error {
					names = append(names, "")
					return scan(&names[len(names)-1])
				})
			}))
			if slices.Sort(names); !slices.Equal(names, slices.Sorted(slices.Values(tables))) {
				t.Fatalf("the schema has %v, known are %v", names, tables)
			}
		}
		s.sql("ALTER TABLE cursors RENAME TO others")
		if _, err := Open(t.Context(), url); !errors.Is(err, ErrForeign) || Away(err) || !strings.Contains(err.Error(), "lacks the table cursors") {
			t.Errorf("without a table: %v", err)
		}
		s.sql("DELETE FROM schema_version")
		if _, err := Open(t.Context(), url); err == nil || names != nil && !errors.Is(err, ErrForeign) {
			t.Errorf("without a version: %v", err)
		}
		s.sql("INSERT INTO schema_version (version) VALUES (1)")
		s.sql("ALTER TABLE others RENAME TO cursors")
		again, err := Open(t.Context(), url)
		s.must(err)
		s.must(again.Close())
	})
}
