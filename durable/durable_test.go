package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMkdirSyncsEveryNewName(t *testing.T) {
	base := t.TempDir()
	a, b := filepath.Join(base, "a"), filepath.Join(base, "a", "b")
	path := filepath.Join(b, "c")
	var synced []string
	record := func(path string) error {
		synced = append(synced, path)
		return nil
	}
	if err := mkdir(path, 0o700, record); err != nil {
		t.Fatal(err)
	}
	slices.Sort(synced)
	if want := []string{base, a, b}; !slices.Equal(synced, want) {
		t.Errorf("synced %q, want %q", synced, want)
	}
	umask := fs.FileMode(unix.Umask(0o022))
	unix.Umask(int(umask))
	for p, want := range map[string]fs.FileMode{a: 0o755, path: 0o700} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want&^umask {
			t.Errorf("%s: %v, %v, want the mode %v", p, info, err, want&^umask)
		}
	}
	failing := func(string) error { return unix.EIO }
	if err := mkdir(filepath.Join(base, "other"), 0o755, failing); !errors.Is(err, unix.EIO) {
		t.Errorf("got error %v, want %v", err, unix.EIO)
	}
	if err := mkdir(path, 0o755, failing); err != nil { // it is there: nothing is to be synced
		t.Error(err)
	}
	if err := Mkdir(filepath.Join(base, "real"), 0o755); err != nil {
		t.Error(err)
	}
}

func lock(t *testing.T, path string) (*Lock, error) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	return TryLock(f, path)
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	locked := func(want bool) {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if got, err := Locked(f); got != want || err != nil {
			t.Errorf("locked: %v, %v, want %v", got, err, want)
		}
	}
	l, err := lock(t, path)
	if err != nil {
		t.Fatal(err)
	}
	locked(true)
	if _, err := lock(t, path); !errors.Is(err, ErrLocked) {
		t.Errorf("got error %v, want %v", err, ErrLocked)
	}
	if err := errors.Join(l.Check(), l.Close()); err != nil {
		t.Fatal(err)
	}
	locked(false)
	if l, err = lock(t, path); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := l.Check(); !errors.Is(err, ErrReplaced) {
		t.Errorf("removed: %v, want %v", err, ErrReplaced)
	}
	next, err := lock(t, path)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if err := l.Check(); !errors.Is(err, ErrReplaced) {
		t.Errorf("replaced: %v, want %v", err, ErrReplaced)
	}
}

// TestLockOfAReplacedFile: a lock on a file that has lost its path is no lock.
func TestLockOfAReplacedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if _, err := TryLock(f, path); !errors.Is(err, ErrLocked) {
		t.Errorf("got error %v, want %v", err, ErrLocked)
	}
}
