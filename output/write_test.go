package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"async-data-processor/message"
	"async-data-processor/output/committed"
)

// TestWrite: a file has the name, the content and the mode that are promised.
func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	s := openShard(t, path)
	lines := numbered("a", 5)
	name := mustWrite(t, s, newBatch(lines...))
	if want := regexp.MustCompile(`^shard-0/0-2_[0-9A-Z]{26}\.ndjson$`); !want.MatchString(name) || ParseName(filepath.Base(name)) != Visible {
		t.Errorf("got the name %q", name)
	}
	checkFolder(t, path, content(lines))
	umask := os.FileMode(unix.Umask(0o022))
	unix.Umask(int(umask))
	for p, want := range map[string]os.FileMode{"": 0o755, "shard-0": 0o755, name: 0o644} {
		info, err := os.Stat(filepath.Join(path, p))
		must(t, err)
		if got := info.Mode().Perm(); got != want&^umask {
			t.Errorf("%s has the mode %v, want %v", p, got, want&^umask)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	path := t.TempDir()
	s := openShard(t, path)
	for _, w := range []string{"", "../0-1", "a/b", "a_b", ".a", "a\n", string(bytes.Repeat([]byte{'a'}, 65))} {
		if _, _, err := s.Write(t.Context(), w, newBatch("{}")); err == nil {
			t.Errorf("worker %q was accepted", w)
		}
	}
	if _, _, err := s.Write(t.Context(), worker, newBatch()); err == nil {
		t.Error("an empty batch was written")
	}
	checkFolder(t, path)
}

// TestConcurrentWrites: each batch is a file, or a turn of the rolling one.
func TestConcurrentWrites(t *testing.T) {
	eachRoll(t, func(t *testing.T, r Roll) {
		path := t.TempDir()
		s := rollingShard(t, path, r)
		const writers, batches = 5, 10
		var all []string
		var files [][]byte
		var wg sync.WaitGroup
		for w := range writers {
			batch := func(i int) []string { return numbered(fmt.Sprintf("%d-%d", w, i), 1+i%5) }
			for i := range batches {
				all, files = append(all, batch(i)...), append(files, content(batch(i)))
			}
			wg.Go(func() {
				for i := range batches {
					_, _, err := s.Write(t.Context(), fmt.Sprintf("0-%d", w), newBatch(batch(i)...))
					if err := errors.Join(err, s.Roll(t.Context())); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		must(t, s.Close())
		switch checkOnce(t, path, all...); r {
		case Roll{}, Roll{Bytes: 1}:
			checkFolder(t, path, files...)
		case neverFull:
			if visible, _ := folderNames(t, path); len(visible) != 1 {
				t.Errorf("published %q", visible)
			}
		}
	})
}

func TestCancelled(t *testing.T) {
	path := t.TempDir()
	cause := errors.New("drain")
	for i, call := range cleanCalls[:7] { // up to the last look at ctx
		t.Run(fmt.Sprintf("%d %s", i, call), func(t *testing.T) {
			s := openShard(t, path)
			defer s.Close()
			ctx, cancel := context.WithCancelCause(t.Context())
			newFaulty(t, s, func(j int, _ string) verdict {
				if i == j {
					cancel(cause)
				}
				return pass
			}, nil)
			b := newBatch("{}")
			_, _, err := s.Write(ctx, worker, b)
			if i == 6 { // the look at ctx was just before
				must(t, err)
				return
			}
			if !errors.Is(err, cause) {
				t.Errorf("got error %v, want the cause", err)
			}
			if !b.Abandon() {
				t.Error("the right to publish was taken")
			}
			checkFolder(t, path)
		})
	}
}

func TestAbandonedBefore(t *testing.T) {
	path := t.TempDir()
	s := openShard(t, path)
	b := newBatch("{}")
	b.Abandon()
	writeFails(t, s, b, ErrAbandoned)
	checkFolder(t, path)
}

// TestClosedWhileStalled: a writer that the disk holds up neither holds up the
// next owner nor publishes into its folder.
func TestClosedWhileStalled(t *testing.T) {
	path := t.TempDir()
	s := openShard(t, path)
	w := holdUp(t, s, "fsync", pass, "{}")
	must(t, s.Close())
	if err := s.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	next := openShard(t, path)
	if next.RemovedTemps() != 1 {
		t.Errorf("removed %d temporary files, want 1", next.RemovedTemps())
	}
	mustWrite(t, next, newBatch("{}"))
	w.resume()
	if err := <-w.result; !errors.Is(err, ErrClosed) {
		t.Errorf("got error %v, want %v", err, ErrClosed)
	}
	if !w.batch.Abandon() {
		t.Error("the right to publish was taken")
	}
	if _, err := s.dir.folder.(*faulty).folder.open(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the last writer left the folder open: %v", err)
	}
	checkFolder(t, path, content([]string{"{}"}))
}

// TestCloseWaitsForPublication: the lock is not given away between a link and
// the fsync of its folder.
func TestCloseWaitsForPublication(t *testing.T) {
	path := t.TempDir()
	s := openShard(t, path)
	w := holdUp(t, s, "folder fsync", pass, "{}")
	checkCloseWaits(t, s, path, w)
	checkFolder(t, path, content([]string{"{}"}))
}

// checkCloseWaits fails unless Close keeps the lock as long as the Write is held up.
func checkCloseWaits(t *testing.T, s *Shard, path string, w *heldUp) {
	t.Helper()
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	// Until Close waits for the gate, a batch that waits could still be appended.
	for len(closed) == 0 && s.dir.gate.TryRLock() {
		s.dir.gate.RUnlock()
		runtime.Gosched()
	}
	ctx, cancel := context.WithTimeout(t.Context(), standbyInterval)
	defer cancel()
	if next, err := openTestDir(t, path).Shard(ctx, 0, nil); err == nil {
		next.Close()
		t.Error("the lock was given away before the Write was over")
	}
	w.resume()
	must(t, errors.Join(<-w.result, <-closed))
}

// TestCloseFinishesUndo: Close is the last chance to hide what a failed attempt
// has left visible.
func TestCloseFinishesUndo(t *testing.T) {
	for _, healed := range []bool{true, false} {
		t.Run(fmt.Sprint(healed), func(t *testing.T) {
			path := t.TempDir()
			s := openShard(t, path)
			f := newFaulty(t, s, func(i int, _ string) verdict {
				if i > 7 {
					return fail
				}
				return pass
			}, unix.EIO)
			if _, _, err := s.Write(t.Context(), worker, newBatch("{}")); !errors.Is(err, ErrStillVisible) || !errors.Is(err, unix.EIO) {
				t.Errorf("got error %v, want %v", err, ErrStillVisible)
			}
			if healed {
				f.plan = at(-1, pass)
			}
			if err := s.Close(); errors.Is(err, ErrStillVisible) == healed {
				t.Errorf("close: got error %v", err)
			}
			if left, _ := filepath.Glob(filepath.Join(path, "shard-0", ".*.tmp")); healed && len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
			openShard(t, path) // the lock is free in any case
		})
	}
}

// TestStaleTemps: a temporary file that could not be removed is, by the next Write
// or by Close.
func TestStaleTemps(t *testing.T) {
	for _, by := range []string{"Write", "Close"} {
		t.Run(by, func(t *testing.T) {
			path := t.TempDir()
			s := openShard(t, path)
			f := newFaulty(t, s, func(_ int, kind string) verdict {
				if kind == "fsync" || kind == "remove" {
					return fail
				}
				return pass
			}, unix.EIO)
			b := newBatch("{}")
			if _, _, err := s.Write(t.Context(), worker, b); !errors.Is(err, unix.EIO) {
				t.Errorf("got error %v", err)
			}
			left := func() int {
				names, _ := filepath.Glob(filepath.Join(path, "shard-0", ".*.tmp"))
				return len(names)
			}
			if left() != 1 {
				t.Fatalf("%d temporary files, want the one that could not be removed", left())
			}
			f.plan = at(-1, pass)
			end := s.Close
			if by == "Write" {
				end = func() error {
					_, _, err := s.Write(t.Context(), worker, b)
					return err
				}
			}
			if err := end(); err != nil || left() != 0 {
				t.Errorf("%v; %d temporary files are left", err, left())
			}
		})
	}
}

// TestNameIsTaken: a file of the same name is never overwritten nor removed.
func TestNameIsTaken(t *testing.T) {
	path := t.TempDir()
	s := openShard(t, path)
	f := newFaulty(t, s, at(-1, pass), nil)
	var taken string
	s.dir.folder = hooked{f, func(step, final string, _ []byte) error {
		if step == "link" && taken == "" {
			taken = filepath.Join(path, "shard-0", final)
			return os.WriteFile(taken, []byte("precious\n"), 0o644)
		}
		return nil
	}}
	b := newBatch("{}")
	if _, _, err := s.Write(t.Context(), worker, b); !errors.Is(err, unix.EEXIST) || errors.Is(err, ErrStillVisible) {
		t.Errorf("got error %v, want %v", err, unix.EEXIST)
	}
	checkFolder(t, path, []byte("precious\n"))
	mustWrite(t, s, b)
	checkFolder(t, path, []byte("precious\n"), []byte("{}\n"))
}

func TestTemporaryNameIsTaken(t *testing.T) {
	s := openShard(t, t.TempDir())
	f, err := s.dir.folder.create(".taken.tmp")
	must(t, err)
	defer f.Close()
	if _, err := s.dir.folder.create(".taken.tmp"); !errors.Is(err, unix.EEXIST) {
		t.Errorf("got error %v, want %v", err, unix.EEXIST)
	}
}

func FuzzWrite(f *testing.F) {
	f.Add([]byte(`{"message_id":"a.0"}` + "\n" + `{"message_id":"a.1","value":"\u0000"}`))
	f.Add([]byte(`{"message_id":"a"}` + "\n" + `{"message_id":"a","value":"other"}` + "\n{}\n{}"))
	f.Add([]byte("\n\n"))
	f.Add([]byte("\xff\x00"))
	path := f.TempDir()
	s := openShard(f, path)
	f.Fuzz(func(t *testing.T, data []byte) {
		s.window = committed.New(testWindow.IDs, 0, testWindow.Age)
		// A line whose id was there before is a duplicate.
		var lines []string
		var want []byte
		known := make(map[string]bool)
		for line := range bytes.SplitSeq(data, []byte("\n")) {
			lines = append(lines, string(line))
			if id := (message.Message{Line: line}).ID(); id == "" || !known[id] {
				known[id] = true
				want = append(append(want, line...), '\n')
			}
		}
		name := filepath.Join(path, mustWrite(t, s, newBatch(lines...)))
		got, err := os.ReadFile(name)
		must(t, err)
		must(t, os.Remove(name))
		if !bytes.Equal(got, want) {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}
