package output

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// fault is what becomes of one call of the folder.
type fault struct {
	call string // its kind, or empty for any
	skip int    // so many calls of the kind pass before
	more int    // so many calls of any kind have the verdict after it
	hang time.Duration
	verdict
	// power tells that a crash is a loss of power, bits what that one keeps.
	power bool
	bits  uint64
}

func (f fault) GoString() string {
	s := fmt.Sprintf("fault at %q+%d: %v", f.call, f.skip, f.verdict)
	if f.more > 0 {
		s += fmt.Sprintf(" and at %d more", f.more)
	}
	if f.hang > 0 {
		s += fmt.Sprintf(" after %v", f.hang)
	}
	if f.power {
		s += fmt.Sprintf(", power lost, bits %#x", f.bits)
	}
	return s
}

// modelFolder is a process's folder on the model's disk. Its lock is a real one.
type modelFolder struct {
	folder  // the real one
	p       *process
	closing chan struct{} // closed before the shard is
	written atomic.Bool   // by workers, and nobody else uses it

	// Guarded by the world's lock.
	unlocked, closed bool
}

// call runs one call of the folder: do is its effect, under the world's lock.
func (f *modelFolder) call(kind string, do func(v verdict) error) error {
	w := f.p.world
	planned := w.planned(kind)
	f.hang(kind, planned.hang)
	w.mu.Lock()
	defer w.mu.Unlock()
	if f.p.crashed {
		return errCrashed
	}
	if v := planned.verdict; (v == panicBefore || v == panicAfter) && !f.written.Load() {
		planned.verdict = fail // only a worker survives a panic
	}
	switch planned.verdict {
	case fail:
		return unix.EIO
	case panicBefore:
		w.panics++
		panic(errPanicked)
	case crashBefore:
		w.crash(f.p, planned.power, planned.bits)
		return errCrashed
	}
	err := do(planned.verdict)
	switch planned.verdict {
	case happened, torn:
		return unix.EIO
	case panicAfter:
		w.panics++
		panic(errPanicked)
	case crashAfter:
		w.crash(f.p, planned.power, planned.bits)
		return errCrashed
	}
	return err
}

// hang waits, but in no dead process. What is called under the shard's gate does
// not hang when the shard is being closed: Close waits for the gate on a mutex.
// Where files roll that is everything.
func (f *modelFolder) hang(kind string, d time.Duration) {
	if d == 0 {
		return
	}
	var closing <-chan struct{}
	if kind == "held" || kind == "open" || f.p.world.roll.Rolls() {
		closing = f.closing
	}
	select {
	case <-time.After(d):
	case <-f.p.dead:
	case <-closing:
	}
}

func (f *modelFolder) held() error {
	return f.call("held", func(verdict) error { return nil })
}

func (f *modelFolder) locked() error {
	return f.call("locked", func(verdict) error { return nil })
}

func (f *modelFolder) create(name string) (file, error) {
	n := &inode{}
	err := f.call("create", func(verdict) error {
		if f.disk().live[name] != nil {
			return fs.ErrExist
		}
		f.disk().set(name, n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &modelFile{f, n}, nil
}

func (f *modelFolder) open() (handle, error) {
	if err := f.call("open", func(verdict) error { return nil }); err != nil {
		return nil, err
	}
	return &modelHandle{f}, nil
}

func (f *modelFolder) link(temp, final string) error {
	return f.call("link", func(verdict) error {
		n := f.disk().live[temp]
		switch {
		case n == nil:
			return fs.ErrNotExist
		case f.disk().live[final] != nil:
			return fs.ErrExist
		}
		f.disk().set(final, n)
		return nil
	})
}

func (f *modelFolder) linked(temp, final string) (ours bool, err error) {
	err = f.call("linked", func(verdict) error {
		n := f.disk().live[final]
		if n != nil && f.disk().live[temp] == nil {
			return fs.ErrNotExist
		}
		ours = n != nil && f.disk().live[temp] == n
		return nil
	})
	return ours && err == nil, err
}

func (f *modelFolder) remove(name string) error {
	return f.call("remove", func(verdict) error {
		if f.disk().live[name] != nil {
			f.disk().set(name, nil)
		}
		return nil
	})
}

func (f *modelFolder) names(visit func(name string)) error {
	var names []string
	err := f.call("names", func(verdict) error {
		names = f.disk().names()
		return nil
	})
	for _, name := range names {
		visit(name)
	}
	return err
}

func (f *modelFolder) reopen(name string) (reopened, error) {
	var n *inode
	err := f.call("reopen", func(verdict) error {
		if n = f.disk().live[name]; n == nil {
			return fs.ErrNotExist
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &modelReopened{modelFile{f, n}}, nil
}

func (f *modelFolder) read(name string) (io.ReadSeekCloser, error) {
	var content []byte
	err := f.call("read", func(verdict) error {
		n := f.disk().live[name]
		if n == nil {
			return fs.ErrNotExist
		}
		content = bytes.Clone(n.written)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(content), io.NopCloser(nil)}, nil
}

func (f *modelFolder) unlock() error {
	f.p.world.mu.Lock()
	defer f.p.world.mu.Unlock()
	return once(&f.unlocked, f.folder.unlock)
}

func (f *modelFolder) close() error {
	f.p.world.mu.Lock()
	defer f.p.world.mu.Unlock()
	return once(&f.closed, f.folder.close)
}

// once calls what a crash may have called already.
func once(done *bool, do func() error) error {
	if *done {
		return nil
	}
	*done = true
	return do()
}

func (f *modelFolder) disk() *modelDisk { return f.p.world.disk }

// modelHandle is the opened folder.
type modelHandle struct{ f *modelFolder }

func (h *modelHandle) Sync() error {
	return h.f.call("folder fsync", func(verdict) error {
		h.f.disk().syncNames()
		return nil
	})
}

func (h *modelHandle) Close() error {
	return h.f.call("folder close", func(verdict) error { return nil })
}

// modelFile is a file that was created.
type modelFile struct {
	f *modelFolder
	n *inode
}

func (h *modelFile) Write(p []byte) (n int, err error) {
	err = h.f.call("write", func(v verdict) error {
		if v == short || v == torn {
			p = p[:len(p)/2]
		}
		h.n.written = append(h.n.written, p...)
		n = len(p)
		return nil
	})
	return n, err
}

func (h *modelFile) Sync() error {
	synced := false
	err := h.f.call("fsync", func(verdict) error {
		h.n.sync()
		synced = true
		return nil
	})
	if !synced {
		h.f.p.world.mu.Lock()
		h.n.poisoned = true
		h.f.p.world.mu.Unlock()
	}
	return err
}

func (h *modelFile) Close() error {
	return h.f.call("close", func(verdict) error { return nil })
}

// modelReopened is a file that was opened anew.
type modelReopened struct{ modelFile }

func (h *modelReopened) ReadAt(p []byte, at int64) (n int, err error) {
	err = h.f.call("read at", func(verdict) error {
		n, err = bytes.NewReader(h.n.written).ReadAt(p, at)
		return err
	})
	return n, err
}

func (h *modelReopened) Size() (size int64, err error) {
	err = h.f.call("size", func(verdict) error {
		size = int64(len(h.n.written))
		return nil
	})
	return size, err
}

func (h *modelReopened) Truncate(size int64) error {
	return h.f.call("truncate", func(verdict) error {
		h.n.written = bytes.Clone(h.n.written[:size])
		return nil
	})
}

func (h *modelReopened) forget() {
	_ = h.f.call("forget", func(verdict) error {
		h.n.forget()
		return nil
	})
}
