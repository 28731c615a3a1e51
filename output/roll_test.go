package output

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// neverFull rolls its files only at the end.
var neverFull = Roll{Bytes: 1 << 40}

// rollingShard opens shard 0 of the output folder at path, with files that roll.
func rollingShard(t testing.TB, path string, r Roll) *Shard {
	t.Helper()
	d := openTestDir(t, path)
	d.roll = r
	return takeShard(t, d)
}

// hiddenFile returns the name of the rolling file of shard 0, or nothing.
func hiddenFile(t testing.TB, path string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(path, "shard-0", ".*"+rollingSuffix))
	if err != nil || len(names) > 1 {
		t.Fatalf("rolling files: %q, %v", names, err)
	}
	return strings.Join(names, "")
}

// TestRollBytes: batches gather in a file that is hidden until it is full.
func TestRollBytes(t *testing.T) {
	path := t.TempDir()
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 30)
	s := rollingShard(t, path, Roll{Bytes: int64(len(content(lines[:11])))})
	var first string
	for i := range 3 { // 15 lines are the first that are at least 11
		if hidden := hiddenFile(t, path); (hidden != "") != (i > 0) {
			t.Errorf("before batch %d the hidden file is %q", i, hidden)
		}
		checkOnce(t, path)
		b := newBatch(lines[5*i : 5*i+5]...)
		b.Size = 5 // matters to files of a batch only
		name := mustWrite(t, s, b)
		if first = name; ParseName(filepath.Base(name)) != Visible {
			t.Errorf("Write returned the name %s", name)
		}
	}
	if _, err := os.Stat(filepath.Join(path, first)); err != nil {
		t.Error(err)
	}
	checkFolder(t, path, content(lines[:15]))

	write(t, s, 5, lines[10:20]...)
	checkOnce(t, path, lines[:15]...)
	must(t, s.RollErr())
	must(t, s.Close())
	checkFolder(t, path, content(lines[:15]), content(lines[15:20]))
}

// TestRollInterval: a file is published once its first message is as old, by
// Roll or after an append.
func TestRollInterval(t *testing.T) {
	path := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := rollingShard(t, path, Roll{Interval: time.Minute})
		defer s.Close()
		lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 30)
		roll := func(want ...string) {
			t.Helper()
			must(t, s.Roll(t.Context()))
			checkOnce(t, path, want...)
		}
		roll()
		write(t, s, 5, lines[:5]...)
		time.Sleep(time.Minute - time.Nanosecond)
		write(t, s, 5, lines[5:10]...)
		roll()
		time.Sleep(time.Nanosecond)
		roll(lines[:10]...)
		time.Sleep(time.Hour) // no file gets old without a message
		write(t, s, 5, lines[10:15]...)
		roll(lines[:10]...)
		time.Sleep(time.Minute)
		write(t, s, 5, lines[15:20]...)
		checkOnce(t, path, lines[:20]...)
	})
}

// TestRollRefuses: there is no negative size nor age.
func TestRollRefuses(t *testing.T) {
	for _, r := range []Roll{{Bytes: -1}, {Interval: -1}} {
		if d, err := Open(t.TempDir(), testWindow, r); err == nil {
			d.Close()
			t.Errorf("%+v is accepted", r)
		}
	}
	if (Roll{}).Rolls() || !(Roll{Bytes: 1}).Rolls() || !(Roll{Interval: 1}).Rolls() {
		t.Error("Rolls does not tell what rolls")
	}
}

// TestSeveralFiles: without rolling, a batch of several becomes files of its
// size, with one fsync of the folder.
func TestSeveralFiles(t *testing.T) {
	path := t.TempDir()
	s := openShard(t, path)
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 14)
	write(t, s, 2, lines[3], lines[7])
	f := newFaulty(t, s, at(-1, pass), nil)
	b := newBatch(lines...)
	b.Size = 5
	name, written, err := s.Write(context.Background(), worker, b)
	if err != nil || len(written) != 12 {
		t.Errorf("wrote %d, %v", len(written), err)
	}
	fresh := slices.Concat(lines[:3], lines[4:7], lines[8:])
	checkFolder(t, path, content([]string{lines[3], lines[7]}), content(fresh[:5]), content(fresh[5:10]), content(fresh[10:]))
	if got := linesOf(t, filepath.Join(path, name)); !slices.Equal(got, fresh[10:]) {
		t.Errorf("%s is not the last file, it has %q", name, got)
	}
	files := []string{"create", "write", "fsync", "close", "create", "write", "fsync", "close", "create", "write", "fsync", "close"}
	want := slices.Concat([]string{"held"}, files, []string{"open", "held", "link", "link", "link", "remove", "remove", "remove", "folder fsync"})
	if !slices.Equal(f.calls, want) {
		t.Errorf("got  %q\nwant %q", f.calls, want)
	}
}

// awaitWriters waits until so many Writes have their claim.
func awaitWriters(s *Shard, n int) {
	for writers := 0; writers < n; runtime.Gosched() {
		s.dir.mu.Lock()
		writers = s.dir.writers
		s.dir.mu.Unlock()
	}
}

// TestTurn: a batch that waits for an append of another one has no right to publish
// yet, and does not wait for ever.
func TestTurn(t *testing.T) {
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 10)
	s := rollingShard(t, t.TempDir(), neverFull)
	first := holdUp(t, s, "fsync", pass, lines[:5]...)
	cause := errors.New("drain")
	ctx, cancel := context.WithCancelCause(t.Context())
	b := newBatch(lines[5:]...)
	outcome := make(chan error)
	go func() {
		_, _, err := s.Write(ctx, worker, b)
		outcome <- errors.Join(err, s.Roll(ctx))
	}()
	awaitWriters(s, 2)
	cancel(cause)
	if err := <-outcome; !errors.Is(err, cause) || strings.Count(err.Error(), cause.Error()) != 2 {
		t.Errorf("got error %v, want twice the cause", err)
	}
	if !b.Abandon() {
		t.Error("the right to publish was taken")
	}
	first.resume()
	must(t, <-first.result)
	write(t, s, 5, lines...)
}

// TestTurnIsBounded: no batch waits longer for an append than turnPatience.
func TestTurnIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShard(nil, "shard-0", new(legacy), neverFull, time.Now)
		must(t, s.appender.takeTurn(t.Context()))
		began := time.Now()
		if err := s.Roll(t.Context()); !errors.Is(err, ErrTurn) || time.Since(began) != turnPatience {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		s.appender.giveTurn()
		must(t, s.appender.takeTurn(t.Context()))
	})
}

// TestCloseWaitsForAppend: the lock is not given away in the middle of an append,
// and a batch that gets its turn afterwards leaves the folder alone.
func TestCloseWaitsForAppend(t *testing.T) {
	path := t.TempDir()
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 10)
	s := rollingShard(t, path, neverFull)
	first := holdUp(t, s, "fsync", pass, lines[:5]...)
	b := newBatch(lines[5:]...)
	waiting := startWrite(t.Context(), s, b)
	checkCloseWaits(t, s, path, first)
	if err := <-waiting; !errors.Is(err, ErrClosed) {
		t.Errorf("after the close: %v", err)
	}
	if !b.Abandon() {
		t.Error("the right to publish was taken")
	}
	checkFolder(t, path, content(lines[:5]))
	if err := s.Roll(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("got error %v, want %v", err, ErrClosed)
	}
}

// TestLateTurn: a batch that gets its turn when the next owner has the folder
// does not touch it.
func TestLateTurn(t *testing.T) {
	path := t.TempDir()
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 10)
	s := rollingShard(t, path, neverFull)
	write(t, s, 5, lines[:5]...)
	must(t, s.appender.takeTurn(t.Context()))
	b := newBatch(lines[5:]...)
	late := startWrite(t.Context(), s, b)
	awaitWriters(s, 1)
	must(t, s.Close())
	next := rollingShard(t, path, neverFull)
	write(t, next, 1, lines[5])
	hidden := hiddenFile(t, path)
	f := newFaulty(t, s, at(-1, pass), nil)
	s.appender.giveTurn()
	if err := <-late; !errors.Is(err, ErrClosed) || !b.Abandon() {
		t.Errorf("got error %v, want %v", err, ErrClosed)
	}
	if len(f.calls) > 0 && f.calls[0] != "folder close" {
		t.Errorf("it asked the folder for %q", f.calls)
	}
	if got := hiddenFile(t, path); got != hidden {
		t.Errorf("hidden: %q, want %q", got, hidden)
	}
	write(t, next, 4, lines...)
}

// TestAbandonedAppend: what was abandoned is not appended, and an append that
// has begun cannot be abandoned any more.
func TestAbandonedAppend(t *testing.T) {
	path := t.TempDir()
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 10)
	s := rollingShard(t, path, neverFull)
	for range 2 { // with and without a file
		b := newBatch(lines[5:]...)
		b.Abandon()
		writeFails(t, s, b, ErrAbandoned)
		write(t, s, 5, lines[:5]...)
		lines = append(lines[5:], numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5F", 5)...)
	}
	b := newBatch(lines...)
	newFaulty(t, s, func(_ int, call string) verdict {
		if call == "write" && b.Abandon() {
			t.Error("the batch was abandoned in the middle of its append")
		}
		return pass
	}, nil)
	mustWrite(t, s, b)
}
