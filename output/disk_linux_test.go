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
// returns false; the injected faults cover the same ground without it.
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

func TestDiskFull(t *testing.T) { eachRoll(t, fillDisk) }

func fillDisk(t *testing.T, r Roll) {
	path, ok := mountSmall(t)
	if !ok {
		return
	}
	s := rollingShard(t, path, r)
	// One page is left, and the batch wants two: the write is short first.
	filler := filepath.Join(path, "filler")
	must(t, os.WriteFile(filler, make([]byte, 15*4096), 0o644))
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
	must(t, err)
	d.Close()
	must(t, os.Remove(filler))
	mustWrite(t, s, b)
	must(t, s.Close())
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
		must(t, unix.Mount("none", path, "tmpfs", unix.MS_REMOUNT, fmt.Sprint("size=64k,nr_inodes=", inodes)))
		if s, err := d.Shard(t.Context(), 0, nil); !LacksSpace(err) || !strings.Contains(err.Error(), "shard-0") {
			t.Fatalf("with %d inodes got %v, error %v", inodes, s, err) // or the next would stand by
		}
	}
	must(t, unix.Mount("none", path, "tmpfs", unix.MS_REMOUNT, "size=64k,nr_inodes=100"))
	filler := filepath.Join(path, "filler")
	must(t, os.WriteFile(filler, make([]byte, 16*4096), 0o644))
	if s, err := d.Shard(t.Context(), 0, nil); !LacksSpace(err) {
		t.Fatalf("without a free page got %v, error %v", s, err)
	}
	must(t, os.Remove(filler))
	mustWrite(t, takeShard(t, d), newBatch("{}"))
	checkFolder(t, path, content([]string{"{}"}))
}

func TestReadOnlyFileSystem(t *testing.T) {
	path, ok := mountSmall(t)
	if !ok {
		return
	}
	must(t, unix.Mount("none", path, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, "size=64k"))
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
	must(t, unix.Unmount(path, unix.MNT_DETACH))
	writeFails(t, s, newBatch("{}"), ErrLost)
}
