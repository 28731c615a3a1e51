package output

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// visibleNotDurable returns a shard whose full file has its visible name, and no
// fsync of that.
func visibleNotDurable(t *testing.T, lines ...string) (path string, s *Shard, f *faulty) {
	t.Helper()
	path = memoryDir(t)
	s = rollingShard(t, path, Roll{Bytes: 1})
	f = newFaulty(t, s, at(slices.Index(firstCalls, "link")+1, fail), unix.EIO)
	write(t, s, len(lines), lines...)
	if visible, _ := folderNames(t, path); len(visible) != 1 || !errors.Is(s.RollErr(), unix.EIO) {
		t.Fatalf("visible are %q, late: %v", visible, s.RollErr())
	}
	f.calls, f.plan = nil, at(-1, pass)
	return path, s, f
}

// TestTakenBeforeItIsDurable: a file that a reader takes as soon as it is visible
// does not become visible again because an fsync has failed.
func TestTakenBeforeItIsDurable(t *testing.T) {
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 10)
	path, s, f := visibleNotDurable(t, lines[:5]...)
	visible, _ := folderNames(t, path)
	must(t, os.Remove(filepath.Join(path, "shard-0", visible[0])))
	if err := s.Roll(t.Context()); err != nil || s.RollErr() != nil {
		t.Errorf("%v, late: %v", err, s.RollErr())
	}
	if want := []string{"held", "open", "linked", "folder fsync", "remove", "folder fsync"}; !slices.Equal(f.calls, want) {
		t.Errorf("got  %q\nwant %q", f.calls, want)
	}
	checkFolder(t, path)
	write(t, s, 5, lines...)
	checkFolder(t, path, content(lines[5:]))
}

// TestTakenBackHalfway: a removal that has happened, but is not known to, leaves
// no file for a reader's.
func TestTakenBackHalfway(t *testing.T) {
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 5)
	path, s, f := visibleNotDurable(t, lines...)
	f.plan = func(_ int, call string) verdict {
		if call == "remove" {
			return happened
		}
		return pass
	}
	if err := s.Roll(t.Context()); !errors.Is(err, unix.EIO) {
		t.Errorf("got error %v, want %v", err, unix.EIO)
	}
	f.plan = at(-1, pass)
	must(t, s.Roll(t.Context()))
	checkFolder(t, path, content(lines))
}
