package store

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store/storetest"
)

// TestCommitUnknown: the server commits, and its answer is lost. Each call is repeated by
// itself, and has its effect once.
func TestCommitUnknown(t *testing.T) {
	direct := storetest.Postgres(t)
	s := suite{t, open(t, direct), direct, nil}
	p := startProxy(t, direct)
	cut := open(t, p.url)
	ctx := t.Context()
	// lose makes the next commit's answer get lost, and tells that this happened.
	lose := func(name string, call func() error) {
		t.Helper()
		p.lose.Store(true)
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if p.lose.Load() {
			t.Errorf("%s: there was no commit", name)
		}
	}
	var run Run
	lose("Create", func() (err error) {
		run, _, err = cut.Create(ctx, New{Job: "a", Attempts: 3})
		return err
	})
	lose("Create with a key", func() error {
		_, _, err := cut.Create(ctx, New{Job: "k", Key: "k", Attempts: 3})
		return err
	})
	lose("Claim", func() error {
		runs, err := cut.Claim(ctx, Claim{Runner: "r1", Jobs: map[string]int{"a": 9}, Max: 1})
		if len(runs) != 1 || runs[0].ID != run.ID || runs[0].Attempt != 1 {
			t.Errorf("claimed %+v", runs)
		}
		return err
	})
	settled := func(f func() (Run, bool, error)) func() error {
		return func() error {
			_, ok, err := f()
			if err == nil && !ok {
				err = errors.New("it is stale")
			}
			return err
		}
	}
	f := Fence{run.ID, 1}
	lose("Start", settled(func() (Run, bool, error) { return cut.Start(ctx, f) }))
	lose("Renew", func() error {
		renewed, _, err := cut.Renew(ctx, "r1", []Fence{f})
		if len(renewed) != 1 {
			t.Errorf("renewed %v", renewed)
		}
		return err
	})
	lose("AppendLog", func() error {
		next, err := cut.AppendLog(ctx, f, 0, []byte("once"), 3)
		if next != 7 {
			t.Errorf("the log is known up to %d", next)
		}
		return err
	})
	lose("End", settled(func() (Run, bool, error) { return cut.End(ctx, f, End{Outcome: frame.Exited, Exit: 1}) }))
	s.sql("UPDATE runs SET due = 1")
	s.claimed(Fence{run.ID, 2})
	lose("Unclaim", settled(func() (Run, bool, error) { return cut.Unclaim(ctx, Fence{run.ID, 2}, "") }))
	s.sql("UPDATE runs SET due = 1")
	s.claimed(Fence{run.ID, 3})
	s.sql("UPDATE runs SET lease_until = 1")
	lose("Expire", func() error { _, err := cut.Expire(ctx, 9); return err })
	lose("Cancel", func() error { _, err := cut.Cancel(ctx, run.ID, "", ""); return err })
	lose("Retry", func() error { _, err := cut.Retry(ctx, run.ID, "", ""); return err })
	lose("Record", func() error {
		return cut.Record(ctx, []Recorded{{Shard: 1, Cursor: position(1), Files: filesOf(1, 1)}})
	})
	lose("Spawn", func() error { _, err := cut.Spawn(ctx, []New{fileJob("f")}, 9); return err })
	lose("Audit", func() error { return cut.Audit(ctx, Audited{ID: "1"}) })
	after, err := s.Run(ctx, run.ID)
	s.must(err)
	counts, err := s.Counts(ctx)
	s.must(err)
	audits, err := s.Audits(ctx, "", 9)
	s.must(err)
	if after.State != Queued || after.Attempt != 3 || len(counts) != 3 || counts["a"][Queued] != 1 || counts["k"][Queued] != 1 || counts["f"][Queued] != 1 || len(audits) != 1 {
		t.Errorf("after all: %+v, %v, %v", after, counts, audits)
	}
	attempts, err := s.Attempts(ctx, run.ID)
	s.must(err)
	if len(attempts) != 3 || attempts[0].Log != 7 || !attempts[0].Spent || attempts[1].Spent || attempts[2].Spent || attempts[2].Outcome != Lost {
		t.Errorf("attempts %+v", attempts)
	}
}

// claimed claims one run, which has to be that attempt.
func (s suite) claimed(f Fence) {
	s.t.Helper()
	if run := s.claim("a"); fenceOf(run) != f {
		s.t.Fatalf("claimed %+v, want %+v", run, f)
	}
}

// proxy stands between the store and the server. It passes everything on, until it is to lose
// the answer to a commit: then it waits for that, and cuts the connection.
type proxy struct {
	url  string
	lose atomic.Bool
}

func startProxy(t *testing.T, to string) *proxy {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	server := u.Host
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	u.Host = l.Addr().String()
	p := &proxy{url: u.String()}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(client, server)
		}
	}()
	return p
}

func (p *proxy) serve(client net.Conn, server string) {
	defer client.Close()
	up, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer up.Close()
	var losing atomic.Bool
	go func() {
		defer client.Close()
		b := make([]byte, 64<<10)
		for {
			n, err := up.Read(b)
			if err != nil || losing.Load() {
				return
			}
			if _, err := client.Write(b[:n]); err != nil {
				return
			}
		}
	}()
	b := make([]byte, 64<<10)
	for {
		n, err := client.Read(b)
		if err != nil {
			return
		}
		if bytes.Contains(bytes.ToLower(b[:n]), []byte("commit\x00")) && p.lose.CompareAndSwap(true, false) {
			losing.Store(true)
		}
		if _, err := up.Write(b[:n]); err != nil {
			return
		}
	}
}

// TestConnectionsLost: the server ends the connections, as when it stops, and is used again.
func TestConnectionsLost(t *testing.T) {
	direct := storetest.Postgres(t)
	s := suite{t, open(t, direct), direct, nil}
	name := rand.Text()
	other := suite{t, open(t, direct+"&application_name="+name), direct, nil}
	for range 5 {
		var ended int
		s.must(s.db.view(t.Context(), "test", func(q session) error {
			_, err := q.one("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1", []any{name}, &ended)
			return err
		}))
		if ended == 0 {
			t.Error("no connection was ended")
		}
		other.queue("a", 1)
	}
	if counts, err := other.Counts(t.Context()); err != nil || counts["a"][Queued] != 5 {
		t.Errorf("%v, %v", counts, err)
	}
}

// TestBusy: another process has the lock of a SQLite file for longer than SQLite waits.
func TestBusy(t *testing.T) {
	url := storetest.SQLite(t)
	s := suite{t, open(t, url), url, nil}
	other := open(t, url)
	locked, release := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	go func() {
		done <- other.db.update(t.Context(), "test", func(session) error {
			close(locked)
			<-release
			return nil
		})
	}()
	<-locked
	time.AfterFunc(6*time.Second, func() { close(release) })
	s.queue("a", 1)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := s.stateOf(1); n != Queued {
		t.Error("the run is not there")
	}
}

// TestTransient: what is tried again.
func TestTransient(t *testing.T) {
	for err, want := range map[error]bool{
		io.ErrUnexpectedEOF: true, &net.OpError{Op: "read", Err: errors.New("reset")}: true, ErrState: false, errors.New("x"): false,
	} {
		if got := transientPostgres(err); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}

// TestRemovedMeanwhile: what is told of an attempt changes nothing, and says so, if the run
// is removed between two tries.
func TestRemovedMeanwhile(t *testing.T) {
	each(t, func(s suite) {
		run := s.begun("a", 1)
		dialect := *s.db.dialect
		dialect.transient = func(err error) bool { // asked when the try is over
			s.sql("DELETE FROM runs")
			return !errors.Is(err, ErrNotFound)
		}
		cut := database{write: s.db.write, read: s.db.read, dialect: &dialect}
		after, ok, err := cut.settle(t.Context(), "test", fenceOf(run), func(session, Run) (bool, error) {
			return true, errors.New("the connection is lost")
		})
		if ok || err != nil || after.ID != 0 {
			t.Errorf("got %+v, %v, %v", after, ok, err)
		}
	})
}
