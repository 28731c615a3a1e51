package output

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOpenMakesMissingFolders(t *testing.T) {
	base := t.TempDir()
	path := filepath.Join(base, "a", "b", "c")
	var synced []string
	d, err := openDir(path, testWindow, Roll{}, func(path string) error {
		synced = append(synced, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, parent := range []string{base, filepath.Join(base, "a"), filepath.Join(base, "a", "b")} {
		if !slices.Contains(synced, parent) {
			t.Errorf("the new name in %s is not durable", parent)
		}
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		t.Errorf("got %v, %v", info, err)
	}

	s := takeShard(t, d)
	if !slices.Contains(synced, path) {
		t.Errorf("the new name in %s is not durable", path)
	}
	mustWrite(t, s, newBatch("{}"))
}

func TestOpenFailsWithTheSync(t *testing.T) {
	failing := func(string) error { return unix.EIO }
	if _, err := openDir(filepath.Join(t.TempDir(), "a"), testWindow, Roll{}, failing); !errors.Is(err, unix.EIO) {
		t.Errorf("got error %v", err)
	}

	d := openTestDir(t, t.TempDir())
	d.sync = failing
	if _, err := d.Shard(t.Context(), 0, nil); !errors.Is(err, unix.EIO) {
		t.Errorf("got error %v", err)
	}
	d.sync = syncPath
	takeShard(t, d) // nothing was kept
}

func TestOpenRelative(t *testing.T) {
	t.Chdir(t.TempDir())
	d := openTestDir(t, "data")
	if err := os.Mkdir("elsewhere", 0o755); err != nil {
		t.Fatal(err)
	}
	s := takeShard(t, d)
	t.Chdir("elsewhere")
	mustWrite(t, s, newBatch("{}"))
	checkFolder(t, "../data", content([]string{"{}"}))
}

func TestOpenRefuses(t *testing.T) {
	base := t.TempDir()
	plain := filepath.Join(base, "plain")
	if err := os.WriteFile(plain, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	dangling := filepath.Join(base, "dangling")
	if err := os.Symlink("nowhere", dangling); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, want string }{
		{"", "no path"},
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
	if err := os.Mkdir(path, 0o555); err != nil {
		t.Fatal(err)
	}
	// The folders above are of the test alone; only path is to stand in the way.
	for p := filepath.Dir(path); p != filepath.Clean(os.TempDir()) && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
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

func TestModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	name := mustWrite(t, openShard(t, path), newBatch("{}"))
	umask := os.FileMode(unix.Umask(0o022))
	unix.Umask(int(umask))
	for p, want := range map[string]os.FileMode{
		path:                           0o755,
		filepath.Join(path, "shard-0"): 0o755,
		filepath.Join(path, name):      0o644,
	} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want&^umask {
			t.Errorf("%s has the mode %v, want %v", p, got, want&^umask)
		}
	}
}
