package lossyfs

import (
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	// The guard of the mounts lives as long as the process.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("async-data-processor/faults/process.Start.func1"))
}

// rig is a disk in use; its steps fail the test instead of returning an error.
type rig struct {
	t    *testing.T
	disk *Disk
	dir  string
	m    *Mount
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, disk: New(), dir: t.TempDir()}
	r.mount()
	t.Cleanup(r.unmount)
	return r
}

func (r *rig) mount() {
	r.t.Helper()
	var err error
	if r.m, err = r.disk.Mount(r.dir); errors.Is(err, fs.ErrPermission) {
		r.t.Skipf("run this test as root: %v", err)
	} else if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) unmount() {
	if r.m != nil {
		r.must(r.m.Unmount())
	}
}

// lose loses power, and mounts what is left.
func (r *rig) lose(chance *rand.Rand) {
	r.t.Helper()
	r.disk.PowerLoss(chance)
	r.unmount()
	r.mount()
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

// open opens a file until the end of the test.
func (r *rig) open(name string, flags int) *os.File {
	r.t.Helper()
	f, err := os.OpenFile(r.path(name), flags, 0o644)
	r.must(err)
	r.t.Cleanup(func() { f.Close() })
	return f
}

func (r *rig) write(name, text string, flags int) *os.File {
	r.t.Helper()
	f := r.open(name, os.O_WRONLY|os.O_CREATE|flags)
	_, err := f.WriteString(text)
	r.must(err)
	return f
}

func (r *rig) sync(name string) {
	r.t.Helper()
	f, err := os.Open(r.path(name))
	r.must(err)
	r.must(errors.Join(f.Sync(), f.Close()))
}

// saved writes a file that is durable.
func (r *rig) saved(name, text string) {
	r.t.Helper()
	r.must(r.write(name, text, os.O_TRUNC).Sync())
	r.sync(filepath.Dir(name))
}

// tree returns the contents of the files, and the folders with a slash.
func (r *rig) tree() map[string]string {
	r.t.Helper()
	found := map[string]string{}
	r.must(filepath.WalkDir(r.dir, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(r.dir, path)
		if err != nil || name == "." {
			return err
		}
		if e.IsDir() {
			found[name+"/"] = ""
			return nil
		}
		text, err := os.ReadFile(path)
		found[name] = string(text)
		return err
	}))
	return found
}

func (r *rig) has(want map[string]string) {
	r.t.Helper()
	if got := r.tree(); !maps.Equal(got, want) {
		r.t.Errorf("got the files %q, want %q", got, want)
	}
}

type files = map[string]string

// TestPowerLoss: what survives the loss of all that is not durable.
func TestPowerLoss(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(r *rig)
		want files
	}{
		"a file and its name, not synced": {
			func(r *rig) { r.write("a", "x", 0) },
			files{},
		},
		"a file, synced, its name not": {
			func(r *rig) { r.must(r.write("a", "x", 0).Sync()) },
			files{},
		},
		"a name, synced, its file not": {
			func(r *rig) { r.write("a", "x", 0); r.sync(".") },
			files{"a": ""},
		},
		"a file and its name, synced": {
			func(r *rig) { r.saved("a", "x") },
			files{"a": "x"},
		},
		"written with O_SYNC": {
			func(r *rig) { r.write("a", "x", os.O_SYNC); r.sync(".") },
			files{"a": "x"},
		},
		"written with O_DSYNC, appended without": {
			func(r *rig) { r.write("a", "x", unix.O_DSYNC); r.sync("."); r.write("a", "y", os.O_APPEND) },
			files{"a": "x"},
		},
		"appended with O_SYNC to what was not synced": {
			func(r *rig) { r.write("a", "x", 0); r.sync("."); r.write("a", "y", os.O_APPEND|os.O_SYNC) },
			files{"a": "xy"},
		},
		"written over, not synced": {
			func(r *rig) { r.saved("a", "xxx"); r.write("a", "y", 0) },
			files{"a": "xxx"},
		},
		"written over, synced": {
			func(r *rig) { r.saved("a", "xxx"); r.must(r.write("a", "y", 0).Sync()) },
			files{"a": "yxx"},
		},
		"cut, not synced": {
			func(r *rig) { r.saved("a", "xxx"); r.must(os.Truncate(r.path("a"), 1)) },
			files{"a": "xxx"},
		},
		"cut and grown, synced": {
			func(r *rig) {
				r.saved("a", "xxx")
				r.must(os.Truncate(r.path("a"), 1))
				r.must(os.Truncate(r.path("a"), 3))
				r.sync("a")
			},
			files{"a": "x\x00\x00"},
		},
		"emptied and written, not synced": {
			func(r *rig) { r.saved("a", "xxx"); r.write("a", "y", os.O_TRUNC) },
			files{"a": "xxx"},
		},
		"linked and unlinked, not synced": {
			func(r *rig) {
				r.saved("a", "x")
				r.must(os.Link(r.path("a"), r.path("b")))
				r.must(os.Remove(r.path("a")))
			},
			files{"a": "x"},
		},
		"linked and unlinked, synced": {
			func(r *rig) {
				r.saved("a", "x")
				r.must(os.Link(r.path("a"), r.path("b")))
				r.must(os.Remove(r.path("a")))
				r.sync(".")
			},
			files{"b": "x"},
		},
		"linked, synced, unlinked": {
			func(r *rig) {
				r.saved("a", "x")
				r.must(os.Link(r.path("a"), r.path("b")))
				r.sync(".")
				r.must(os.Remove(r.path("a")))
			},
			files{"a": "x", "b": "x"},
		},
		"renamed over another, not synced": {
			func(r *rig) { r.saved("a", "x"); r.saved("b", "y"); r.must(os.Rename(r.path("a"), r.path("b"))) },
			files{"a": "x", "b": "y"},
		},
		"renamed over another, synced": {
			func(r *rig) {
				r.saved("a", "x")
				r.saved("b", "y")
				r.must(os.Rename(r.path("a"), r.path("b")))
				r.sync(".")
			},
			files{"b": "x"},
		},
		"renamed to another folder, which is synced": {
			func(r *rig) {
				r.saved("a", "x")
				r.must(os.Mkdir(r.path("d"), 0o755))
				r.sync(".")
				r.must(os.Rename(r.path("a"), r.path("d/a")))
				r.sync("d")
			},
			files{"a": "x", "d/": "", "d/a": "x"},
		},
		"renamed to another folder, which is not": {
			func(r *rig) {
				r.saved("a", "x")
				r.must(os.Mkdir(r.path("d"), 0o755))
				r.sync(".")
				r.must(os.Rename(r.path("a"), r.path("d/a")))
				r.sync(".")
			},
			files{"d/": ""},
		},
		"in a folder that is synced, its name not": {
			func(r *rig) { r.must(os.Mkdir(r.path("d"), 0o755)); r.saved("d/a", "x") },
			files{},
		},
		"in a folder whose name is synced, it itself not": {
			func(r *rig) {
				r.must(os.Mkdir(r.path("d"), 0o755))
				r.must(r.write("d/a", "x", 0).Sync())
				r.sync(".")
			},
			files{"d/": ""},
		},
		"a whole tree removed, not synced": {
			func(r *rig) {
				r.must(os.Mkdir(r.path("d"), 0o755))
				r.saved("d/a", "x")
				r.sync(".")
				r.must(os.RemoveAll(r.path("d")))
			},
			files{"d/": "", "d/a": "x"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			test.do(r)
			r.lose(nil)
			r.has(test.want)
			r.lose(nil) // nothing happened since, so nothing more is lost
			r.has(test.want)
		})
	}
}

// TestLives: what goes on with the disk after the loss is without effect on it.
func TestLives(t *testing.T) {
	r := newRig(t)
	r.saved("a", "x")
	old := r.open("a", os.O_RDWR)
	r.disk.PowerLoss(nil)
	done := make(chan error)
	go func() {
		_, err := old.WriteString("y")
		done <- errors.Join(err, old.Sync())
	}()
	r.unmount()
	if err := <-done; err == nil {
		t.Error("a write to a disk without power succeeds")
	}
	r.mount()
	r.has(files{"a": "x"})
}

// TestChance: every combination of what is not durable may survive, and a part
// of a write, but nothing else.
func TestChance(t *testing.T) {
	const big = 4 * sector
	met := map[string]bool{}
	for seed := range uint64(60) {
		r := newRig(t)
		r.saved("old", "x")
		r.saved("new", "")
		r.must(os.Rename(r.path("old"), r.path("renamed")))
		r.write("new", strings.Repeat("y", big), 0)
		r.lose(rand.New(rand.NewPCG(seed, 0)))
		got := r.tree()
		text := got["new"]
		if strings.Trim(text, "y") != "" || len(text)%sector != 0 {
			t.Fatalf("seed %d: got a file that was never written: %q", seed, text)
		}
		delete(got, "new")
		switch {
		case maps.Equal(got, files{"old": "x"}):
			met["old name"] = true
		case maps.Equal(got, files{"renamed": "x"}):
			met["new name"] = true
		default:
			t.Fatalf("seed %d: the rename is half done: %q", seed, got)
		}
		switch len(text) {
		case 0:
			met["no write"] = true
		case big:
			met["a write"] = true
		default:
			met["part of a write"] = true
		}
		r.unmount()
	}
	if len(met) != 5 {
		t.Errorf("met only %v", met)
	}
}

// TestChanceSeed: a seed makes one disk.
func TestChanceSeed(t *testing.T) {
	var first files
	for range 5 {
		r := newRig(t)
		for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			r.write(name, strings.Repeat(name, 9*sector), 0)
		}
		r.lose(rand.New(rand.NewPCG(1, 0)))
		if first == nil {
			first = r.tree()
		}
		r.has(first)
		r.unmount()
	}
}
