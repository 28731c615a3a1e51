package output

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"async-data-processor/message"
)

// TestLostWhileRolling: the file of a folder that may be another's is left alone,
// and the error of Close says what is in it.
func TestLostWhileRolling(t *testing.T) {
	for name, lose := range map[string]func(lock string) error{
		"lock removed": os.Remove,
		"lock replaced": func(lock string) error {
			return errors.Join(os.Rename(lock, lock+".old"), os.WriteFile(lock, nil, 0o644))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 10)
			s := rollingShard(t, path, neverFull)
			write(t, s, 5, lines[:5]...)
			lock := filepath.Join(path, "shard-0", lockName)
			must(t, lose(lock))
			hidden := hiddenFile(t, path)
			_, _, written := s.Write(t.Context(), worker, newBatch(lines[5:]...))
			rolled := s.Roll(t.Context())
			closed := s.Close()
			for what, err := range map[string]error{"write": written, "roll": rolled, "close": closed} {
				if !errors.Is(err, ErrLost) {
					t.Errorf("%s: %v, want %v", what, err, ErrLost)
				}
			}
			told := filepath.Base(hidden) + " stays hidden in that folder, with entries that were acknowledged"
			for what, err := range map[string]error{"close": closed, "late": s.RollErr()} {
				if !strings.Contains(fmt.Sprint(err), told) {
					t.Errorf("%s: %v, want %q", what, err, told)
				}
			}
			if got := hiddenFile(t, path); got != hidden {
				t.Errorf("hidden: %q, want %q", got, hidden)
			}
			must(t, os.RemoveAll(lock+".old"))
			next := openShard(t, path)
			checkFolder(t, path, content(lines[:5]))
			write(t, next, 5, lines...)
		})
	}
}

// TestLostWithNothing: a file without an entry is not reported.
func TestLostWithNothing(t *testing.T) {
	path := t.TempDir()
	s := rollingShard(t, path, neverFull)
	newFaulty(t, s, func(_ int, call string) verdict {
		if call == "write" || call == "reopen" {
			return fail
		}
		return pass
	}, unix.EIO)
	writeFails(t, s, newBatch("{}"), unix.EIO)
	must(t, os.Remove(filepath.Join(path, "shard-0", lockName)))
	if err := s.Close(); !errors.Is(err, ErrLost) || strings.Contains(err.Error(), "acknowledged") {
		t.Errorf("got error %v, want %v and no more", err, ErrLost)
	}
}

// TestMovedWhileRolling: what was acknowledged is published in the folder that
// was moved away, as no other process would look for it there.
func TestMovedWhileRolling(t *testing.T) {
	for name, move := range map[string]func(data, folder, away string) error{
		"folder":        func(_, folder, away string) error { return os.Rename(folder, away) },
		"output folder": func(data, _, away string) error { return os.Rename(data, filepath.Dir(away)) },
		"replaced": func(_, folder, away string) error {
			return errors.Join(os.Rename(folder, away), os.Mkdir(folder, 0o755), os.WriteFile(filepath.Join(folder, lockName), nil, 0o644))
		},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			data, away := filepath.Join(top, "data"), filepath.Join(top, "archive", "shard-0")
			if name != "output folder" {
				must(t, os.Mkdir(filepath.Dir(away), 0o755))
			}
			lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 10)
			s := rollingShard(t, data, neverFull)
			f := newFaulty(t, s, at(-1, pass), unix.EIO)
			write(t, s, 5, lines[:5]...)
			// When an append has failed, and is to be repaired.
			f.calls, f.plan = nil, func(i int, call string) verdict {
				switch {
				case call == "reopen" && i == 4:
					if err := move(data, filepath.Join(data, "shard-0"), away); err != nil {
						t.Error(err)
					}
					return fail
				case call == "write":
					return torn
				}
				return pass
			}
			writeFails(t, s, newBatch(lines[5:]...), unix.EIO)
			writeFails(t, s, newBatch(lines[5:]...), ErrLost)
			if err := s.Close(); !errors.Is(err, ErrLost) || s.RollErr() != nil {
				t.Errorf("closed: %v, want %v; late: %v", err, ErrLost, s.RollErr())
			}
			checkFolder(t, filepath.Dir(away), content(lines[:5]))
			next := openShard(t, data)
			write(t, next, 5, lines[5:]...)
			checkFolder(t, data, content(lines[5:]))
		})
	}
}

// TestClosedBeforeItIsRepaired: what a failed append has left in the file becomes
// visible with the next owner, which knows it when it comes again.
func TestClosedBeforeItIsRepaired(t *testing.T) {
	path := memoryDir(t)
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 10)
	s := rollingShard(t, path, neverFull)
	f := newFaulty(t, s, at(-1, pass), unix.EIO)
	write(t, s, 5, lines[:5]...)
	f.plan = func(_ int, call string) verdict {
		switch call {
		case "fsync":
			return happened
		case "reopen":
			return fail
		}
		return pass
	}
	writeFails(t, s, newBatch(lines[5:]...), unix.EIO)
	checkOnce(t, path)
	if err := s.Close(); !errors.Is(err, unix.EIO) {
		t.Errorf("closed: %v, want %v", err, unix.EIO)
	}
	next := openShard(t, path)
	checkFolder(t, path, content(lines))
	write(t, next, 0, lines...)
}

// TestLostAndTakenAnew: a process that takes a shard anew knows what it wrote before,
// also if the new folder has nothing of it.
func TestLostAndTakenAnew(t *testing.T) { eachRoll(t, testLostAndTakenAnew) }

func testLostAndTakenAnew(t *testing.T, r Roll) {
	for name, lose := range map[string]func(folder string) error{
		"lock removed":   func(folder string) error { return os.Remove(filepath.Join(folder, lockName)) },
		"folder moved":   func(folder string) error { return os.Rename(folder, folder+message.NewID()) },
		"folder removed": os.RemoveAll,
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 20)
			d := openTestDir(t, path)
			d.roll = r
			s := takeShard(t, d)
			write(t, s, 5, lines[:5]...)
			for i := 5; i < 15; i += 5 { // also the second time
				must(t, lose(filepath.Join(path, "shard-0")))
				writeFails(t, s, newBatch(lines[i:i+5]...), ErrLost)
				_ = s.Close() // it may have nothing to publish
				s = takeShard(t, d)
				write(t, s, 5, lines[:i+5]...)
			}
			must(t, s.Close())
			s = takeShard(t, d)
			write(t, s, 5, lines...)
			must(t, s.Close())
			if r != neverFull { // else all of it was hidden when it went for the first time
				return
			}
			switch name {
			case "lock removed":
				checkOnce(t, path, lines...)
			case "folder removed":
				checkOnce(t, path, lines[5:]...)
			}
		})
	}
}
