package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store/storetest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// clock is what {now} is in a test that moves time by hand. It begins at some day of 2026.
type clock struct {
	dialect *dialect
	ms      int64
}

func (c *clock) advance(d time.Duration) {
	c.ms += d.Milliseconds()
	c.dialect.words["{now}"] = fmt.Sprintf("CAST(%d AS bigint)", c.ms)
}

// open opens a database, with an own copy of the dialect so that a test may change it.
func open(t testing.TB, url string) *Store {
	t.Helper()
	s, err := Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	own, words := *s.db.dialect, make(map[string]string)
	maps.Copy(words, own.words)
	own.words = words
	s.db.dialect = &own
	return s
}

// suite is the tools of a test over one engine.
type suite struct {
	t *testing.T
	*Store
	url   string
	clock *clock // nil: the database's
}

// each runs a test over both engines, with a clock that stands still until it is moved.
func each(t *testing.T, test func(s suite)) {
	storetest.Each(t, func(t *testing.T, url string) {
		s := open(t, url)
		c := &clock{s.db.dialect, time.Date(2026, 11, 30, 4, 0, 0, 0, time.UTC).UnixMilli()}
		c.advance(0)
		test(suite{t, s, url, c})
	})
}

// must ends the test if there is an error.
func (s suite) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// isErr ends the test unless the error is the wanted one.
func (s suite) isErr(err, want error) {
	s.t.Helper()
	if !errors.Is(err, want) {
		s.t.Fatalf("the error is %v, want %v", err, want)
	}
}

// queue creates a run of a job with so many attempts and a backoff of a second.
func (s suite) queue(job string, attempts int) Run {
	s.t.Helper()
	run, created, err := s.Create(s.t.Context(), New{Job: job, By: "anna", Attempts: attempts, Backoff: time.Second})
	s.must(err)
	if !created {
		s.t.Fatal("the run was not created")
	}
	return run
}

// claim claims one run of a job; the zero Run if there is none.
func (s suite) claim(job string) Run {
	s.t.Helper()
	runs, err := s.Claim(s.t.Context(), Claim{Runner: "r1", Engine: "e1", Jobs: map[string]int{job: 100}, Max: 1})
	s.must(err)
	if len(runs) == 0 {
		return Run{}
	}
	return runs[0]
}

// begun creates, claims and starts a run.
func (s suite) begun(job string, attempts int) Run {
	s.t.Helper()
	id := s.queue(job, attempts).ID
	run := s.claim(job)
	if run.ID != id || run.State != Leased {
		s.t.Fatalf("claimed %+v, want run %d", run, id)
	}
	run, ok, err := s.Start(s.t.Context(), fenceOf(run))
	s.must(err)
	if !ok || run.State != Running {
		s.t.Fatalf("started: %v, %+v", ok, run)
	}
	return run
}

func fenceOf(r Run) Fence { return Fence{r.ID, r.Attempt} }

// end ends an attempt, which has to be current.
func (s suite) end(f Fence, outcome frame.Outcome, exit int) Run {
	s.t.Helper()
	run, ok, err := s.End(s.t.Context(), f, End{Outcome: outcome, Exit: exit, Why: "because"})
	s.must(err)
	if !ok {
		s.t.Fatalf("the end of %+v is stale", f)
	}
	return run
}

// stateOf reads a run's state.
func (s suite) stateOf(id int64) State {
	s.t.Helper()
	run, err := s.Run(s.t.Context(), id)
	s.must(err)
	return run.State
}

// sql runs a statement outside of the store's methods.
func (s suite) sql(text string, args ...any) {
	s.t.Helper()
	s.must(s.db.update(s.t.Context(), "test", func(q session) error {
		_, err := q.exec(text, args...)
		return err
	}))
}

func TestOpenTwice(t *testing.T) {
	storetest.Each(t, func(t *testing.T, url string) {
		opened := make(chan error)
		for range 4 { // side by side, and one makes the tables
			go func() {
				s, err := Open(context.Background(), url)
				if err == nil {
					_, err = s.Clock(context.Background())
					err = errors.Join(err, s.Close())
				}
				opened <- err
			}()
		}
		for range 4 {
			if err := <-opened; err != nil {
				t.Error(err)
			}
		}
		s := suite{t, open(t, url), url, nil}
		s.sql("UPDATE schema_version SET version = $1", schemaVersion+1)
		if _, err := Open(t.Context(), url); !errors.Is(err, ErrNewer) || Away(err) {
			t.Errorf("a newer database: %v", err)
		}
	})
}

func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	for _, url := range []string{
		"", "mysql://x", "state.db", "sqlite:", "sqlite:" + dir + "/", "sqlite:a?b", "sqlite://host/x", "postgres://h:p:p/x",
		"postgres://u:p@h/x?search_path=%00",
	} {
		if err := Check(url); err == nil {
			t.Errorf("%s is taken", url)
		}
		if _, err := Open(t.Context(), url); err == nil {
			t.Errorf("%s is opened", url)
		}
	}
	if err := os.WriteFile(dir+"/text", []byte(strings.Repeat("this is no database\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), "sqlite:"+dir+"/text"); err == nil || !strings.Contains(err.Error(), "not a database") {
		t.Errorf("a file of text: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := Open(ctx, "postgres://anna:secret@127.0.0.1:1/x?password=secret&sslmode=disable")
	if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "127.0.0.1:1") || !Away(err) {
		t.Errorf("no server: %v", err)
	}
	for url, want := range map[string]string{
		"postgres://anna:secret@h:1/x?password=secret": "postgres://anna:xxxxx@h:1/x",
		"sqlite:data/state.db":                         "sqlite:data/state.db",
		"postgres://anna:secret@h:%zz/x":               "the state database",
	} {
		if got := Redact(url); got != want {
			t.Errorf("%s is shown as %s", url, got)
		}
	}
}

func TestSQLiteIsPrivate(t *testing.T) {
	url := storetest.SQLite(t)
	s := suite{t, open(t, url), url, nil}
	s.queue("a", 1)
	path := strings.TrimPrefix(url, sqlitePrefix)
	for name, want := range map[string]os.FileMode{path: 0o600, path + "-wal": 0o600, path[:strings.LastIndexByte(path, '/')]: 0o700} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", name, err, info.Mode(), want)
		}
	}
	for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "foreign_keys": "1"} {
		var got string
		if err := s.db.write.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s, want %s: %v", pragma, got, want, err)
		}
	}
}
