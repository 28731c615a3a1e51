package output

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// rollingWith returns a shard whose rolling file has the lines, and the path of that
// file.
func rollingWith(t *testing.T, lines ...string) (path, hidden string, s *Shard, f *faulty) {
	t.Helper()
	path = memoryDir(t)
	s = rollingShard(t, path, neverFull)
	f = newFaulty(t, s, at(-1, pass), unix.ENOSPC)
	write(t, s, len(lines), lines...)
	return path, hiddenFile(t, path), s, f
}

var lineLength = len(content(numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 1)))

// lose is how another program takes the rolling file away.
var lose = map[string]func(f *faulty, hidden string) error{
	"removed": func(f *faulty, hidden string) error { return f.remove(filepath.Base(hidden)) },
	"moved": func(f *faulty, hidden string) error {
		return errors.Join(os.Link(hidden, filepath.Dir(filepath.Dir(hidden))+"/moved"), f.remove(filepath.Base(hidden)))
	},
	"replaced": func(f *faulty, hidden string) error {
		gone := f.remove(filepath.Base(hidden))
		h, err := f.create(filepath.Base(hidden))
		if err != nil {
			return err
		}
		return errors.Join(gone, h.Close())
	},
}

// notice is what finds that out, with a batch that is not written yet.
var notice = map[string]func(s *Shard, lines []string) error{
	"append": func(s *Shard, lines []string) error {
		_, _, err := s.Write(context.Background(), worker, newBatch(lines...))
		return err
	},
	"look":  func(s *Shard, _ []string) error { return s.Roll(context.Background()) },
	"close": func(s *Shard, _ []string) error { return s.Close() },
}

// TestRollingFileIsGone: what was acknowledged of a file that is gone is written anew
// from its descriptor. The append that finds that out is not acknowledged.
func TestRollingFileIsGone(t *testing.T) {
	for how, lose := range lose {
		for when, notice := range notice {
			t.Run(how+"/"+when, func(t *testing.T) {
				lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 10)
				path, hidden, s, f := rollingWith(t, lines[:5]...)
				must(t, lose(f, hidden))
				if err := notice(s, lines[5:]); (err != nil) != (when == "append") || err != nil && !errors.Is(err, ErrDamaged) {
					t.Errorf("%s: %v", when, err)
				}
				must(t, s.RollErr())
				checkOnce(t, path, lines[:5]...)
				must(t, s.Close())
				s = openShard(t, path)
				mustWrite(t, s, newBatch(lines...))
				checkFolder(t, path, content(lines[:5]), content(lines[5:]))
			})
		}
	}
}

// TestFaultAtEveryCallOfARescue: what cannot be written anew now is written later, also
// by the next owner in this process, and is never said to be durable before.
func TestFaultAtEveryCallOfARescue(t *testing.T) {
	for _, v := range []verdict{fail, happened, torn} {
		for i, reached := 1, true; reached; i++ {
			t.Run(fmt.Sprintf("%s/%d", v, i), func(t *testing.T) {
				lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 10)
				path, hidden, s, f := rollingWith(t, lines[:5]...)
				must(t, lose["removed"](f, hidden))
				f.calls, reached = nil, false
				f.plan = func(j int, call string) verdict {
					if i != j || v == torn && call != "write" {
						return pass
					}
					reached = true
					return v
				}
				rolled := s.Roll(t.Context())
				if len(linesIn(t, path)) == 0 && hiddenFile(t, path) == "" && !errors.Is(s.RollErr(), ErrDamaged) && f.calls[i] != "stat" {
					t.Errorf("it is durable nowhere, but only %v", s.RollErr())
				}
				if reached && rolled == nil && !slices.Contains([]string{"read at", "remove", "close", "folder fsync"}, f.calls[i]) {
					t.Errorf("nothing is told of the fault of %s", f.calls[i])
				}
				f.plan = at(-1, pass)
				must(t, s.Roll(t.Context()))
				must(t, s.RollErr())
				checkOnce(t, path, lines[:5]...)
				write(t, s, 5, lines...)
				must(t, s.Close())
				checkFolder(t, path, content(lines[:5]), content(lines[5:]))
			})
		}
	}
}

func linesIn(t *testing.T, path string) (lines []string) {
	visible, _ := folderNames(t, path)
	for _, name := range visible {
		lines = append(lines, linesOf(t, filepath.Join(path, "shard-0", name))...)
	}
	return lines
}

// TestRollingFileIsTruncated: nothing is acknowledged into a file that has lost a part,
// nor published, and no error says that it is durable. The next owner publishes what is
// left.
func TestRollingFileIsTruncated(t *testing.T) {
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 10)
	for what, size := range map[string]int{"to nothing": 0, "within a line": 3*lineLength - 9, "behind a line": 3 * lineLength} {
		for when, notice := range notice {
			t.Run(what+"/"+when, func(t *testing.T) {
				path, hidden, s, f := rollingWith(t, lines[:5]...)
				must(t, resize(f, hidden, size))
				err := notice(s, lines[5:])
				if !errors.Is(err, ErrDamaged) || !errors.Is(s.RollErr(), ErrDamaged) {
					t.Errorf("got error %v, late %v; want %v", err, s.RollErr(), ErrDamaged)
				}
				checkOnce(t, path)
				if err := s.Close(); when != "close" && !errors.Is(err, ErrDamaged) {
					t.Errorf("closed: %v, want %v", err, ErrDamaged)
				}
				s = openShard(t, path)
				left := lines[:strings.Count(string(content(lines)[:size]), "\n")]
				checkOnce(t, path, left...)
				write(t, s, len(lines)-len(left), lines...)
				checkOnce(t, path, lines...)
			})
		}
	}
}

func resize(f *faulty, hidden string, size int) error {
	h, err := f.reopen(filepath.Base(hidden))
	if err != nil {
		return err
	}
	return errors.Join(h.Truncate(int64(size)), h.Close())
}

// TestLostWhileAppending: an append is not acknowledged whose file is taken away, or
// truncated, meanwhile. One that is gone is written anew without it.
func TestLostWhileAppending(t *testing.T) {
	lose := maps.Clone(lose)
	lose["truncated"] = func(f *faulty, hidden string) error { return resize(f, hidden, lineLength) }
	for how, lose := range lose {
		for i, call := range []string{"write", "fsync", "stat"} {
			t.Run(how+"/"+call, func(t *testing.T) {
				lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 10)
				path, hidden, s, f := rollingWith(t, lines[:5]...)
				f.calls, f.plan = nil, func(j int, _ string) verdict {
					if j == 1+i {
						must(t, lose(f, hidden))
					}
					return pass
				}
				writeFails(t, s, newBatch(lines[5:]...), ErrDamaged)
				closed := s.Close()
				s = openShard(t, path)
				if how != "truncated" {
					must(t, closed)
					checkOnce(t, path, lines[:5]...)
				} else if !errors.Is(closed, ErrDamaged) {
					t.Errorf("closed: %v, want %v", closed, ErrDamaged)
				}
				mustWrite(t, s, newBatch(lines...))
				checkOnce(t, path, lines...)
			})
		}
	}
}

// TestLostWithItsFirstAppend: a file that is gone before anything is acknowledged is
// forgotten.
func TestLostWithItsFirstAppend(t *testing.T) {
	path := memoryDir(t)
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 5)
	s := rollingShard(t, path, neverFull)
	f := newFaulty(t, s, at(-1, pass), unix.EIO)
	f.plan = func(_ int, call string) verdict {
		if call == "write" {
			f.plan = at(-1, pass)
			must(t, lose["removed"](f, hiddenFile(t, path)))
		}
		return pass
	}
	writeFails(t, s, newBatch(lines...), ErrDamaged)
	must(t, s.RollErr())
	write(t, s, 5, lines...)
	must(t, s.Close())
	checkFolder(t, path, content(lines))
}

// TestRollingFileHasMore: what another program has added is cut off.
func TestRollingFileHasMore(t *testing.T) {
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 10)
	for when, notice := range notice {
		t.Run(when, func(t *testing.T) {
			path, hidden, s, f := rollingWith(t, lines[:5]...)
			h, err := os.OpenFile(hidden, os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			_, err = h.WriteString("precious\n")
			must(t, errors.Join(err, h.Close()))
			n := f.disk.live[filepath.Base(hidden)]
			n.written = append(n.written, "precious\n"...)
			if err := notice(s, lines[5:]); (err != nil) != (when == "append") {
				t.Errorf("%s: %v", when, err)
			}
			must(t, s.Close())
			mustWrite(t, openShard(t, path), newBatch(lines...))
			checkFolder(t, path, content(lines[:5]), content(lines[5:]))
		})
	}
}
