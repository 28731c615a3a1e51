package output

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mountSmall mounts a file system of 64 KiB. Where that is not allowed it
// returns false; the injected faults and TestFileSizeLimit cover the same
// ground without it.
func mountSmall(t *testing.T) (path string, ok bool) {
	t.Helper()
	path = t.TempDir()
	if err := unix.Mount("none", path, "tmpfs", 0, "size=64k"); err != nil {
		t.Logf("cannot mount a file system here: %v", err)
		return "", false
	}
	t.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
	return path, true
}

func TestDiskFull(t *testing.T) {
	for _, r := range []Roll{{}, neverFull} {
		t.Run(fmt.Sprint(r.Rolls()), func(t *testing.T) { fillDisk(t, r) })
	}
}

func fillDisk(t *testing.T, r Roll) {
	path, ok := mountSmall(t)
	if !ok {
		return
	}
	s := rollingShard(t, path, r)
	// One page is left, and the batch wants two: the write is short first.
	filler := filepath.Join(path, "filler")
	if err := os.WriteFile(filler, make([]byte, 15*4096), 0o644); err != nil {
		t.Fatal(err)
	}
	lines := numbered("a", 100)
	b := newBatch(lines...)
	for range 3 {
		_, _, err := s.Write(t.Context(), worker, b)
		if !errors.Is(err, unix.ENOSPC) || !strings.HasPrefix(err.Error(), "write shard-0/.0-2_") {
			t.Errorf("got error %v, want %v", err, unix.ENOSPC)
		}
		checkFolder(t, path)
	}
	// A start on a full disk is not refused: space may come.
	d, err := Open(path, testWindow, r)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, s, b)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	checkFolder(t, path, content(lines))
}

// TestTakeOnAFullDisk: whatever there is no room for, the folder, its lock or
// the probe's names, the shard is not taken for lack of space, until there is.
func TestTakeOnAFullDisk(t *testing.T) {
	path, ok := mountSmall(t)
	if !ok {
		return
	}
	d := openTestDir(t, path)
	// The file system's own folder, the shard's, the lock, and two of the probe.
	for inodes := 1; inodes < 5; inodes++ {
		if err := unix.Mount("none", path, "tmpfs", unix.MS_REMOUNT, fmt.Sprint("size=64k,nr_inodes=", inodes)); err != nil {
			t.Fatal(err)
		}
		if s, err := d.Shard(t.Context(), 0, nil); !LacksSpace(err) || !strings.Contains(err.Error(), "shard-0") {
			t.Errorf("with %d inodes got %v, error %v", inodes, s, err)
		}
	}
	if err := unix.Mount("none", path, "tmpfs", unix.MS_REMOUNT, "size=64k,nr_inodes=100"); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(path, "filler")
	if err := os.WriteFile(filler, make([]byte, 16*4096), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := d.Shard(t.Context(), 0, nil); !LacksSpace(err) {
		t.Errorf("without a free page got %v, error %v", s, err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, takeShard(t, d), newBatch("{}"))
	checkFolder(t, path, content([]string{"{}"}))
}

func TestReadOnlyFileSystem(t *testing.T) {
	path, ok := mountSmall(t)
	if !ok {
		return
	}
	if err := unix.Mount("none", path, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, "size=64k"); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, filepath.Join(path, "new")} {
		d, err := Open(p, testWindow, Roll{})
		if err == nil {
			d.Close()
			t.Fatalf("%s was opened", p)
		}
		if text := err.Error(); !errors.Is(err, unix.EROFS) || !strings.Contains(text, p) {
			t.Errorf("got error %q, want %v and the path", text, unix.EROFS)
		}
	}
}

func TestUnmounted(t *testing.T) {
	path, ok := mountSmall(t)
	if !ok {
		return
	}
	s := openShard(t, path)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Write(t.Context(), worker, newBatch("{}")); !errors.Is(err, ErrLost) {
		t.Errorf("got error %v, want %v", err, ErrLost)
	}
}
