package output

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPutBack: a rolling file that is replaced, and then put back or left as a copy, is
// written anew, and the next owner publishes of the old one what is in no other file.
func TestPutBack(t *testing.T) {
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 10)
	for what, put := range map[string]func(hidden, moved string) error{
		"as it was":   func(hidden, moved string) error { return os.Rename(moved, hidden) },
		"shorter":     func(hidden, _ string) error { return os.WriteFile(hidden, content(lines[:3]), 0o600) },
		"torn":        func(hidden, _ string) error { return os.WriteFile(hidden, content(lines)[:3*lineLength-9], 0o600) },
		"longer":      func(hidden, _ string) error { return os.WriteFile(hidden, content(lines[:8]), 0o600) },
		"other lines": func(hidden, _ string) error { return os.WriteFile(hidden, content(lines[3:8]), 0o600) },
		"a symlink":   func(hidden, moved string) error { return os.Symlink(moved, hidden) },
	} {
		for when, notice := range notice {
			for _, stopped := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/stopped: %v", what, when, stopped), func(t *testing.T) {
					path := memoryDir(t)
					s := rollingShard(t, path, neverFull)
					write(t, s, 5, lines[:5]...)
					hidden, moved := hiddenFile(t, path), filepath.Join(path, "moved")
					must(t, os.Rename(hidden, moved))
					if !stopped && what != "as it was" { // it is replaced before that is noticed
						must(t, put(hidden, moved))
					}
					if err := notice(s, lines[5:8]); (err != nil) != (when == "append") {
						t.Errorf("%s: %v", when, err)
					}
					if !stopped && what == "as it was" {
						must(t, put(hidden, moved))
					}
					want := lines[:5]
					if when == "append" { // whose lines are in the moved file, and come again
						want = lines[:8]
						write(t, s, 3, lines[5:8]...)
					}
					must(t, s.Close())
					checkOnce(t, path, want...)
					if stopped {
						must(t, put(hidden, moved))
					}
					for range 2 {
						s = openShard(t, path)
						if what == "longer" || what == "other lines" {
							want = lines[:8]
						}
						checkOnce(t, path, want...)
						if _, other := folderNames(t, path); len(other) > 0 && what != "a symlink" {
							t.Errorf("left over: %q", other)
						}
						write(t, s, 0, want...)
						must(t, s.Close())
					}
				})
			}
		}
	}
}

// TestPutBackAfterItsFolder: a file that was lost with its folder and put back is not
// published besides what its descriptor has.
func TestPutBackAfterItsFolder(t *testing.T) {
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 5)
	for what, put := range map[string]func(hidden, moved string) error{
		"itself": func(hidden, moved string) error { return os.Rename(moved, hidden) },
		"a copy": func(hidden, _ string) error { return os.WriteFile(hidden, content(lines), 0o600) },
	} {
		t.Run(what, func(t *testing.T) {
			path := memoryDir(t)
			d := openTestDir(t, path)
			d.roll = neverFull
			s := takeShard(t, d)
			write(t, s, 5, lines...)
			hidden, moved := hiddenFile(t, path), filepath.Join(path, "moved")
			must(t, errors.Join(os.Rename(hidden, moved), os.RemoveAll(filepath.Dir(hidden))))
			if err := s.Close(); !errors.Is(err, ErrLost) {
				t.Errorf("closed: %v, want %v", err, ErrLost)
			}
			must(t, errors.Join(os.Mkdir(filepath.Dir(hidden), 0o755), put(hidden, moved)))
			s = takeShard(t, d)
			checkFolder(t, path, content(lines))
			write(t, s, 0, lines...)
		})
	}
}

// TestPutBackOfManyLines: a file is compared in blocks, and a line may be longer than one.
func TestPutBackOfManyLines(t *testing.T) {
	var lines []string
	for i := range 15 {
		some := numbered(fmt.Sprintf("01JD8Y6G5V3X9Q2R7T4B1C%04d", i), 3)
		some[1] = strings.Replace(some[1], `}`, `,"value":"`+strings.Repeat("x", 1_000_000+i%2*strippedAtOnce)+`"}`, 1)
		lines = append(lines, some...)
	}
	path := memoryDir(t)
	now := time.Now()
	fill(t, path, map[string]string{
		hiddenAt(now, 1): string(content(lines)),
		nameAt(now, 2):   string(content(lines[:11])),
		nameAt(now, 3):   string(content(lines[20:])) + lines[12], // which is cut off
	})
	openShard(t, path)
	checkFolder(t, path, content(lines[:11]), content(lines[11:20]), append(content(lines[20:]), lines[12]...))
}

// TestPutBackAmongUnreadable: nothing is published while it is not known what is written.
func TestPutBackAmongUnreadable(t *testing.T) {
	path := memoryDir(t)
	now := time.Now()
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 5)
	fill(t, path, map[string]string{hiddenAt(now, 1): string(content(lines)), nameAt(now, 2): string(content(lines))})
	d := openTestDir(t, path)
	d.wrap = func(f folder) folder {
		return hooked{f, func(step, _ string, _ []byte) error {
			if step == "open" {
				return unix.EIO
			}
			return nil
		}}
	}
	if _, err := d.Shard(t.Context(), 0, nil); !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), "make it readable") {
		t.Errorf("got error %v, want %v", err, unix.EIO)
	}
	checkOnce(t, path, lines...)
	openShard(t, path)
	checkFolder(t, path, content(lines))
}
