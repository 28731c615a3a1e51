package lossyfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHook: the hook hears of what is done to a file, in order, before and
// after, with the path it has at the time.
func TestHook(t *testing.T) {
	r := newRig(t)
	r.must(os.Mkdir(r.path("d"), 0o755))
	var (
		mu    sync.Mutex // the detector of races sees no order in what the kernel orders
		heard []string
	)
	r.disk.SetHook(func(op Op) error {
		mu.Lock()
		defer mu.Unlock()
		when := "before"
		if op.Done {
			when = "after"
		}
		heard = append(heard, fmt.Sprint(when, " ", op.Kind, " ", op.Path))
		return nil
	})
	f := r.write("d/a", "x", os.O_EXCL)
	r.must(f.Sync())
	r.must(os.Link(r.path("d/a"), r.path("d/b")))
	r.must(os.Remove(r.path("d/a")))
	r.must(os.Truncate(r.path("d/b"), 0))
	r.must(f.Close())
	r.sync("d")
	r.must(os.Rename(r.path("d/b"), r.path("c")))
	r.must(os.Remove(r.path("d")))
	r.disk.SetHook(nil)
	var want []string
	for _, op := range []string{
		"create d/a", "write d/a", "fsync d/a", "link d/b", "unlink d/a", "truncate d/b", "close d/b",
		"open folder d", "fsync folder d", "rename c", "rmdir d",
	} {
		want = append(want, "before "+op, "after "+op)
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(heard, want) {
		t.Errorf("heard\n%s\nwant\n%s", strings.Join(heard, "\n"), strings.Join(want, "\n"))
	}
}

// TestHookError: an error before an operation prevents it, one after it does
// not; both are told.
func TestHookError(t *testing.T) {
	for _, done := range []bool{false, true} {
		for kind, do := range map[Kind]func(r *rig) error{
			Create:   func(r *rig) error { return os.WriteFile(r.path("new"), nil, 0o644) },
			Write:    func(r *rig) error { return os.WriteFile(r.path("a"), []byte("y"), 0o644) },
			Truncate: func(r *rig) error { return os.Truncate(r.path("a"), 0) },
			Link:     func(r *rig) error { return os.Link(r.path("a"), r.path("new")) },
			Rename:   func(r *rig) error { return os.Rename(r.path("a"), r.path("new")) },
			Unlink:   func(r *rig) error { return syscall.Unlink(r.path("a")) },
			Mkdir:    func(r *rig) error { return os.Mkdir(r.path("new"), 0o755) },
			Rmdir:    func(r *rig) error { return syscall.Rmdir(r.path("d")) },
		} {
			t.Run(fmt.Sprint(kind, " ", done), func(t *testing.T) {
				r := newRig(t)
				r.saved("a", "x")
				r.must(os.Mkdir(r.path("d"), 0o755))
				before := r.tree()
				if kind == Write {
					r.must(os.Truncate(r.path("a"), 0)) // as WriteFile does, first
					before["a"] = ""
				}
				r.disk.SetHook(func(op Op) error {
					if op.Kind == kind && op.Done == done {
						return unix.ENOSPC
					}
					return nil
				})
				if err := do(r); !errors.Is(err, unix.ENOSPC) {
					t.Errorf("got error %v, want %v", err, unix.ENOSPC)
				}
				r.disk.SetHook(nil)
				if done {
					if got := r.tree(); fmt.Sprint(got) == fmt.Sprint(before) {
						t.Errorf("it has not happened: %q", got)
					}
					return
				}
				r.has(before)
			})
		}
	}
}

// TestFailedSync: what an fsync failed to make durable is lost, although the
// next fsync succeeds.
func TestFailedSync(t *testing.T) {
	r := newRig(t)
	r.saved("a", "x")
	f := r.write("a", "yy", 0)
	r.disk.SetHook(func(op Op) error {
		if op.Kind == Sync {
			return errors.New("any")
		}
		return nil
	})
	if err := f.Sync(); !errors.Is(err, unix.EIO) {
		t.Errorf("got error %v, want %v", err, unix.EIO)
	}
	r.disk.SetHook(nil)
	r.must(f.Sync())
	r.has(files{"a": "yy"})
	r.lose(nil)
	r.has(files{"a": "x\x00"})
}

// TestKill: a hook kills the process at a point, and the operation happens or
// not as the hook says. The power may go at the same time.
func TestKill(t *testing.T) {
	const script = `echo x >"$0/a" && echo y >"$0/b"`
	for _, done := range []bool{false, true} {
		for _, power := range []bool{false, true} {
			t.Run(fmt.Sprintf("done=%t power=%t", done, power), func(t *testing.T) {
				r := newRig(t)
				victim := exec.Command("sh", "-c", script, r.dir)
				started := make(chan struct{})
				var once sync.Once
				r.disk.SetHook(func(op Op) error {
					if op.Kind != Create || op.Path != "b" || op.Done != done {
						return nil
					}
					once.Do(func() {
						if power {
							r.disk.PowerLoss(nil)
						}
						<-started
						r.must(victim.Process.Kill())
					})
					return unix.EIO
				})
				r.must(victim.Start())
				close(started)
				err := victim.Wait()
				r.disk.SetHook(nil)
				if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Errorf("got error %v, want a death by SIGKILL", err)
				}
				want := files{"a": "x\n"}
				if done {
					want["b"] = ""
				}
				if power {
					want = files{}
					r.unmount()
					r.mount()
				}
				r.has(want)
			})
		}
	}
}

// TestFileSystem: what the program asks of any file system, beyond reading and
// writing.
func TestFileSystem(t *testing.T) {
	r := newRig(t)
	r.saved("a", "x")

	t.Run("O_EXCL", func(t *testing.T) {
		if _, err := os.OpenFile(r.path("a"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644); !errors.Is(err, os.ErrExist) {
			t.Errorf("got error %v, want %v", err, os.ErrExist)
		}
	})
	t.Run("link over", func(t *testing.T) {
		r.saved("b", "y")
		if err := os.Link(r.path("b"), r.path("a")); !errors.Is(err, os.ErrExist) {
			t.Errorf("got error %v, want %v", err, os.ErrExist)
		}
	})
	t.Run("links", func(t *testing.T) {
		r.must(os.Link(r.path("a"), r.path("c")))
		a, err := os.Stat(r.path("a"))
		r.must(err)
		c, err := os.Stat(r.path("c"))
		r.must(err)
		if n := a.Sys().(*syscall.Stat_t).Nlink; !os.SameFile(a, c) || n != 2 {
			t.Errorf("two names of one file: same %t, %d links", os.SameFile(a, c), n)
		}
	})
	t.Run("flock", func(t *testing.T) {
		one, two := r.open("a", os.O_RDWR), r.open("a", os.O_RDWR)
		r.must(unix.Flock(int(one.Fd()), unix.LOCK_EX|unix.LOCK_NB))
		if err := unix.Flock(int(two.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
			t.Errorf("got error %v, want %v", err, unix.EWOULDBLOCK)
		}
		r.must(one.Close())
		r.must(unix.Flock(int(two.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	})
	t.Run("unlinked and open", func(t *testing.T) {
		f := r.write("d", "gone", 0)
		r.must(os.Remove(r.path("d")))
		reader, err := os.Open(fmt.Sprint("/proc/self/fd/", f.Fd()))
		r.must(err)
		defer reader.Close()
		text := make([]byte, 10)
		if n, _ := reader.Read(text); string(text[:n]) != "gone" {
			t.Errorf("read %q", text[:n])
		}
	})
	t.Run("beyond the end", func(t *testing.T) {
		f := r.open("sparse", os.O_RDWR|os.O_CREATE)
		_, err := f.WriteAt([]byte("z"), 3)
		r.must(err)
		if text, err := os.ReadFile(r.path("sparse")); err != nil || string(text) != "\x00\x00\x00z" {
			t.Errorf("read %q, %v", text, err)
		}
	})
	t.Run("many names", func(t *testing.T) {
		r.must(os.Mkdir(r.path("many"), 0o755))
		for i := range 3000 {
			r.must(os.WriteFile(r.path(fmt.Sprint("many/", i)), nil, 0o644))
		}
		entries, err := os.ReadDir(r.path("many"))
		r.must(err)
		if len(entries) != 3000 {
			t.Errorf("listed %d names, want 3000", len(entries))
		}
		if err := syscall.Rmdir(r.path("many")); err != unix.ENOTEMPTY {
			t.Errorf("got error %v, want %v", err, unix.ENOTEMPTY)
		}
		r.must(os.RemoveAll(r.path("many")))
	})
	t.Run("space", func(t *testing.T) {
		var stat unix.Statfs_t
		r.must(unix.Statfs(r.dir, &stat))
		if free := int64(stat.Bavail) * int64(stat.Bsize); free < 1<<30 {
			t.Errorf("%d bytes are free", free)
		}
	})
}

// BenchmarkAppend: a synced append costs what it writes, whatever the size of
// the file.
func BenchmarkAppend(b *testing.B) {
	disk, dir := New(), b.TempDir()
	m, err := disk.Mount(dir)
	if err != nil {
		b.Skip(err)
	}
	defer m.Unmount()
	f, err := os.OpenFile(filepath.Join(dir, "a"), os.O_WRONLY|os.O_CREATE|os.O_APPEND|os.O_SYNC, 0o644)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 4096)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if _, err := f.Write(p); err != nil {
			b.Fatal(err)
		}
	}
}
