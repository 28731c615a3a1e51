package output

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// hiddenAt is the name of a rolling file that was begun at a time.
func hiddenAt(at time.Time, n int) string {
	return hiddenPrefix + strings.TrimSuffix(nameAt(at, n), visibleSuffix) + rollingSuffix
}

// TestRecoverRolling: what the next owner makes of a rolling file, whether it rolls its
// own or not.
func TestRecoverRolling(t *testing.T) {
	now := time.Now()
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 6)
	long := strings.Replace(lines[5], `}`, `,"value":"`+strings.Repeat("x", 600_000)+`"}`, 1)
	whole := string(content(lines[:4]))
	hidden, second := hiddenAt(now, 1), hiddenAt(now.Add(time.Second), 2)
	visible := nameAt(now, 1)
	for what, tt := range map[string]struct {
		files map[string]string
		want  []string // contents
		known []string
	}{
		"whole":              {map[string]string{hidden: whole}, []string{whole}, lines[:4]},
		"torn":               {map[string]string{hidden: whole + lines[4][:20]}, []string{whole}, lines[:4]},
		"newline missing":    {map[string]string{hidden: whole + lines[4]}, []string{whole}, lines[:4]},
		"torn in a long one": {map[string]string{hidden: whole + long[:150_000]}, []string{whole}, lines[:4]},
		"a long one":         {map[string]string{hidden: whole + long + "\n"}, []string{whole + long + "\n"}, append(lines[:4:4], long)},
		"a hole":             {map[string]string{hidden: whole + "{\x00\x00\n" + lines[4] + "\n"}, []string{whole}, lines[:4]},
		"zeros":              {map[string]string{hidden: whole + strings.Repeat("\x00", 300_000) + "\n" + lines[4] + "\n"}, []string{whole}, lines[:4]},
		"a hole far behind":  {map[string]string{hidden: whole + long + "\n" + strings.Repeat("\x00", 300_000) + "\n" + lines[4] + "\n"}, []string{whole + long + "\n"}, append(lines[:4:4], long)},
		"a hole, and much":   {map[string]string{hidden: whole + "{\x00}\n" + long + "\n" + lines[4] + "\n"}, []string{whole}, lines[:4]},
		"nothing":            {map[string]string{hidden: ""}, nil, nil},
		"not a line":         {map[string]string{hidden: lines[0]}, nil, nil},
		"not a long line":    {map[string]string{hidden: long}, nil, nil},
		"two":                {map[string]string{hidden: string(content(lines[:2])), second: string(content(lines[2:4])) + "{"}, []string{string(content(lines[:2])), string(content(lines[2:4]))}, lines[:4]},
		"among others":       {map[string]string{hidden: string(content(lines[:2])), nameAt(now, 9): string(content(lines[2:4]))}, []string{string(content(lines[:2])), string(content(lines[2:4]))}, lines[:4]},
	} {
		for _, roll := range []Roll{{}, neverFull} {
			t.Run(fmt.Sprintf("%s, rolls: %v", what, roll.Rolls()), func(t *testing.T) {
				path := t.TempDir()
				fill(t, path, tt.files)
				s := rollingShard(t, path, roll)
				var want [][]byte
				for _, text := range tt.want {
					want = append(want, []byte(text))
				}
				checkFolder(t, path, want...)
				recovered, cut := 0, int64(0)
				for name, text := range tt.files {
					if ParseName(name) == Rolling {
						recovered++
					}
					cut += int64(len(text))
				}
				for _, text := range tt.want {
					cut -= int64(len(text))
				}
				if len(tt.want) == 0 {
					recovered = 0
				}
				if got := s.Rebuilt(); got.IDs != len(tt.known) || got.Files != len(tt.want) || got.Damaged+got.Foreign > 0 ||
					got.Recovered != recovered || got.Cut != cut {
					t.Errorf("rebuilt %+v, want %d recovered, %d bytes cut off", got, recovered, cut)
				}
				if len(tt.known) > 0 {
					write(t, s, 0, tt.known...)
				}
			})
		}
	}
	t.Run("visible already", func(t *testing.T) {
		path := t.TempDir()
		fill(t, path, map[string]string{hidden: whole})
		folder := filepath.Join(path, "shard-0")
		must(t, os.Link(filepath.Join(folder, hidden), filepath.Join(folder, visible)))
		s := openShard(t, path)
		checkFolder(t, path, []byte(whole))
		if got := s.Rebuilt(); got.IDs != 4 || got.Files != 1 || got.Recovered != 0 || got.Cut != 0 {
			t.Errorf("rebuilt %+v", got)
		}
	})
	t.Run("its name is taken", func(t *testing.T) {
		path := t.TempDir()
		fill(t, path, map[string]string{hidden: whole, visible: "precious\n"})
		if s, err := openTestDir(t, path).Shard(t.Context(), 0, nil); !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), visible) {
			t.Errorf("got %v, error %v", s, err)
		}
		if names, other := folderNames(t, path); len(names) != 1 || len(other) != 1 {
			t.Errorf("left are %q and %q", names, other)
		}
	})
}

// TestRecoveryEndsWithTheContext: a process that is to stop does not read a large
// file to its end, and leaves it to the next owner.
func TestRecoveryEndsWithTheContext(t *testing.T) {
	path := t.TempDir()
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 10_000)
	fill(t, path, map[string]string{hiddenAt(time.Now(), 1): string(content(lines))})
	d := openTestDir(t, path)
	cause := errors.New("drain")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	reads := 0
	d.wrap = func(f folder) folder {
		return newFaultyFolder(t, f, func(_ int, call string) verdict {
			if call == "read at" {
				reads++
				cancel(cause)
			}
			return pass
		}, nil)
	}
	if _, err := d.Shard(ctx, 0, nil); !errors.Is(err, cause) || reads != 1 {
		t.Errorf("got error %v behind %d reads, want %v behind one", err, reads, cause)
	}
	if visible, _ := folderNames(t, path); len(visible) > 0 {
		t.Errorf("visible: %q", visible)
	}
	openShard(t, path)
	checkFolder(t, path, content(lines))
}

// TestRepair: after a failed append the file is read from the disk, and not
// published unless all that was durable is there.
func TestRepair(t *testing.T) {
	path := t.TempDir()
	s := rollingShard(t, path, neverFull)
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 10)
	f := newFaulty(t, s, at(-1, pass), unix.EIO)
	write(t, s, 5, lines[:5]...)
	f.calls, f.plan = nil, at(2, fail)
	damaged := true
	s.dir.folder = hooked{f, func(step, _ string, p []byte) error {
		if damaged && step == "read" && len(p) > 9 {
			p[9] ^= 1
		}
		return nil
	}}
	if _, _, err := s.Write(t.Context(), worker, newBatch(lines[5:]...)); !errors.Is(err, unix.EIO) || !errors.Is(err, ErrDamaged) {
		t.Errorf("got error %v, want %v", err, ErrDamaged)
	}
	want := []string{"held", "write", "fsync", "stat", "close", "reopen", "size", "truncate", "fsync", "forget", "read at"}
	if !slices.Equal(f.calls[:len(want)], want) {
		t.Errorf("got  %q\nwant %q", f.calls, want)
	}
	for range 2 {
		if _, _, err := s.Write(t.Context(), worker, newBatch(lines[5:]...)); !errors.Is(err, ErrDamaged) || !errors.Is(s.RollErr(), ErrDamaged) {
			t.Errorf("got error %v, late %v, want %v", err, s.RollErr(), ErrDamaged)
		}
	}
	checkOnce(t, path)
	damaged = false
	if err := s.Roll(t.Context()); err != nil || s.RollErr() != nil {
		t.Errorf("it is no more damaged: %v, %v", err, s.RollErr())
	}
	checkFolder(t, path, content(lines[:5]))
	write(t, s, 5, lines...)
}

// TestHiddenNameIsGone: a hidden name does not come back with a loss of power
// once anything else is written.
func TestHiddenNameIsGone(t *testing.T) {
	path := t.TempDir()
	s := rollingShard(t, path, Roll{Bytes: 1})
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 10)
	f := newFaulty(t, s, at(len(firstCalls)-1, fail), unix.EIO)
	write(t, s, 5, lines[:5]...)
	f.calls, f.plan = nil, at(-1, pass)
	write(t, s, 5, lines[5:]...)
	if want := []string{"open", "folder fsync", "held", "create"}; !slices.Equal(f.calls[:len(want)], want) {
		t.Errorf("got  %q\nwant %q", f.calls, want)
	}
	for name := range f.disk.durable {
		if ParseName(name) != Visible {
			t.Errorf("a loss of power would leave %s", name)
		}
	}
}

// TestRebuildOfARolledFile: of a file with more ids than the window has, those
// written last are known.
func TestRebuildOfARolledFile(t *testing.T) {
	var lines, long []string
	for i := range 100 {
		lines = append(lines, numbered(fmt.Sprintf("01JD8Y6G5V3X9Q2R7T4B1C%04d", i), 1)...)
		// Beyond a guess of its length, and then beyond any buffer.
		long = append(long, strings.Replace(lines[i], `}`, `,"value":"`+strings.Repeat("x", 10+i*i*i%99_991)+`"}`, 1))
	}
	for _, n := range []int{9, 10, 11, 19, 20, 21, 30, 45, 100, 109, 110, 111, 120, 145, 200} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			lines, n := lines, n
			if n > 100 {
				lines, n = long, n-100
			}
			path := t.TempDir()
			fill(t, path, map[string]string{hiddenAt(time.Now(), 1): string(content(lines[:n]))})
			d := openTestDir(t, path)
			d.window.IDs = 10
			s := takeShard(t, d)
			defer s.Close()
			if got := s.Rebuilt(); got.IDs != min(n, 10) || got.Damaged > 0 {
				t.Errorf("rebuilt %+v", got)
			}
			write(t, s, 0, lines[max(0, n-10):n]...)
			if n > 10 {
				write(t, s, n-10, lines[:n-10]...)
			}
		})
	}
}

// TestTimeWithoutOwnerOfRolledFiles: what was appended last counts from when the
// next file was begun, however long before its own was.
func TestTimeWithoutOwnerOfRolledFiles(t *testing.T) {
	path := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := rollingShard(t, path, Roll{Interval: 3 * testWindow.Age})
		lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 6)
		write(t, s, 2, lines[:2]...)
		time.Sleep(3 * testWindow.Age)
		write(t, s, 2, lines[2:4]...)
		checkFolder(t, path, content(lines[:4]))
		time.Sleep(testWindow.Age / 2)
		write(t, s, 2, lines[4:]...)
		must(t, s.Close())
		s = openShard(t, path)
		defer s.Close()
		if got := s.Rebuilt(); got.IDs != 6 || got.Files != 2 {
			t.Errorf("rebuilt %+v", got)
		}
		write(t, s, 0, lines[2:]...)
	})
}

// TestRebuildReadsTheEnd: how long a start takes does not depend on how large the
// files are.
func TestRebuildReadsTheEnd(t *testing.T) {
	path := t.TempDir()
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 50_000)
	fill(t, path, map[string]string{nameAt(time.Now(), 1): string(content(lines))})
	d := openTestDir(t, path)
	d.window.IDs = 100
	read := 0
	d.wrap = func(f folder) folder {
		return hooked{f, func(step, _ string, p []byte) error {
			if step == "read" {
				read += len(p)
			}
			return nil
		}}
	}
	s := takeShard(t, d)
	if got := s.Rebuilt(); got.IDs < 100 || got.IDs > 200 || got.Files != 1 || got.Damaged > 0 || read > 128<<10 {
		t.Errorf("rebuilt %+v, read %d bytes", got, read)
	}
	write(t, s, 0, lines[len(lines)-100:]...)
}
