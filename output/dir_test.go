package output

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestNamesOfFolders: a missing output folder is made, and the name of a shard's
// folder is durable before anything is in it. How names become durable is tested
// in package durable.
func TestNamesOfFolders(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d := openTestDir(t, path)
	d.sync = func(string) error { return unix.EIO }
	if _, err := d.Shard(t.Context(), 0, nil); !errors.Is(err, unix.EIO) {
		t.Errorf("got error %v, want %v", err, unix.EIO)
	}
	var synced []string
	d.sync = func(path string) error {
		synced = append(synced, path)
		return nil
	}
	s := takeShard(t, d) // nothing was kept
	if !slices.Equal(synced, []string{path}) {
		t.Errorf("synced %q, want %q", synced, path)
	}
	mustWrite(t, s, newBatch("{}"))
}

// TestFoldersShareFsyncs: shards that are opened together share the fsyncs of their
// names, and each waits for one that began when its folder was there.
func TestFoldersShareFsyncs(t *testing.T) {
	const shards = 40
	d := openTestDir(t, memoryDir(t))
	var mu sync.Mutex // guards what follows
	syncs, known := 0, make(map[string]bool)
	d.sync = func(path string) error {
		entries, err := os.ReadDir(path)
		time.Sleep(20 * time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		syncs++
		for _, e := range entries {
			known[e.Name()] = true
		}
		return err
	}
	var all sync.WaitGroup
	opened := make(chan *Shard, shards)
	for n := range shards {
		all.Go(func() {
			s, err := d.Shard(t.Context(), n, nil)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if !known[ShardName(n)] {
				t.Errorf("shard %d is open, its name is not durable", n)
			}
			opened <- s
		})
	}
	all.Wait()
	close(opened)
	for s := range opened {
		must(t, s.Close())
	}
	if syncs > shards/4 {
		t.Errorf("%d fsyncs of the output folder for %d shards", syncs, shards)
	}
}

func TestOpenRelative(t *testing.T) {
	t.Chdir(t.TempDir())
	d := openTestDir(t, "data")
	must(t, os.Mkdir("elsewhere", 0o755))
	s := takeShard(t, d)
	t.Chdir("elsewhere")
	mustWrite(t, s, newBatch("{}"))
	checkFolder(t, "../data", content([]string{"{}"}))
}

func TestOpenRefuses(t *testing.T) {
	base := t.TempDir()
	plain := filepath.Join(base, "plain")
	must(t, os.WriteFile(plain, []byte("precious"), 0o644))
	dangling := filepath.Join(base, "dangling")
	must(t, os.Symlink("nowhere", dangling))
	for _, c := range []struct{ path, want string }{
		{"", "no folder given"},
		{plain, "move that file away or choose another folder"},
		{filepath.Join(plain, "below"), "choose another folder"},
		{dangling, "choose another folder"},
	} {
		d, err := Open(c.path, testWindow, Roll{})
		if err == nil {
			d.Close()
			t.Errorf("%q was opened", c.path)
			continue
		}
		if text := err.Error(); !strings.Contains(text, c.want) || !strings.Contains(text, c.path) {
			t.Errorf("%q: got error %q, want the path and %q", c.path, text, c.want)
		}
	}
	if got, err := os.ReadFile(plain); err != nil || string(got) != "precious" {
		t.Errorf("the plain file holds %q, %v", got, err)
	}
}

func TestOpenRefusesReadOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	must(t, os.Mkdir(path, 0o555))
	// The folders above are of the test alone; only path is to stand in the way.
	for p := filepath.Dir(path); p != filepath.Clean(os.TempDir()) && p != "/"; p = filepath.Dir(p) {
		must(t, os.Chmod(p, 0o755))
	}
	got := openForbidden(t, path)
	for _, want := range []string{path, "permission denied", "choose another folder"} {
		if !strings.Contains(got, want) {
			t.Errorf("got error %q, want %q in it", got, want)
		}
	}
	got = openForbidden(t, filepath.Join(path, "new"))
	for _, want := range []string{path, "permission denied", "make"} {
		if !strings.Contains(got, want) {
			t.Errorf("got error %q, want %q in it", got, want)
		}
	}
}
