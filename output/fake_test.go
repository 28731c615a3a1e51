package output

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"testing"
)

// verdict is the fate of one call of a folder.
type verdict uint8

const (
	pass        verdict = iota
	fail                // nothing is done, and an error is reported
	happened            // it is done, and an error is reported
	short               // a write of half the bytes that reports no error
	torn                // a write of half the bytes that reports an error
	crashBefore         // the process dies instead
	crashAfter          // the process dies right after
	panicBefore         // it panics instead
	panicAfter          // it panics right after
)

func (v verdict) String() string {
	return [...]string{"pass", "fail", "happened", "short", "torn", "crash before", "crash after", "panic before", "panic after"}[v]
}

var (
	errCrashed  = errors.New("the process is dead")
	errPanicked = errors.New("a call of the folder panicked")
)

// around is do under the verdict; fault is the error to report.
func (v verdict) around(fault error, crash func(), do func(verdict) error) error {
	switch v {
	case fail:
		return fault
	case panicBefore:
		panic(errPanicked)
	case crashBefore:
		crash()
		return errCrashed
	}
	err := do(v)
	switch v {
	case happened, torn:
		return fault
	case panicAfter:
		panic(errPanicked)
	case crashAfter:
		crash()
		return errCrashed
	}
	return err
}

// fake is a folder on a modelDisk. All of its calls go through call, which decides
// on them. If it mirrors, a call is done in the real folder first.
type fake struct {
	folder  // the real one
	mirrors bool
	call    func(kind string, do func(verdict) error) error
	mu      sync.Locker // guards disk; call holds it around do
	disk    *modelDisk
}

// change runs a call that changes something, in the real folder and on the disk.
func (f *fake) change(kind string, real, model func(verdict) error) error {
	return f.call(kind, func(v verdict) error {
		if f.mirrors {
			if err := real(v); err != nil {
				return err
			}
		}
		return model(v)
	})
}

// ask runs a call that changes nothing.
func (f *fake) ask(kind string, real, model func() error) error {
	return f.call(kind, func(verdict) error {
		if f.mirrors {
			return real()
		}
		return model()
	})
}

func nothing() error { return nil }

func (f *fake) held() error { return f.ask("held", f.folder.held, nothing) }

func (f *fake) locked() error { return f.ask("locked", f.folder.locked, nothing) }

func (f *fake) create(name string) (file, error) {
	h := &fakeHandle{f: f}
	return asOpened[file](h, f.change("create", func(verdict) (err error) {
		h.real, err = f.folder.create(name)
		return err
	}, func(verdict) (err error) {
		h.n, err = f.disk.create(name)
		return err
	}))
}

func (f *fake) stat(name string) (s status, err error) {
	err = f.ask("stat", func() (err error) {
		s, err = f.folder.stat(name)
		return err
	}, func() error {
		n, err := f.disk.find(name)
		if err == nil {
			s = status{inode{number: n.number}, int64(len(n.written))}
		}
		return err
	})
	return s, err
}

func (f *fake) open() (handle, error) {
	h := &fakeHandle{f: f, kind: "folder "}
	return asOpened[handle](h, f.ask("open", func() (err error) {
		h.real, err = f.folder.open()
		return err
	}, nothing))
}

func (f *fake) reopen(name string) (reopened, error) {
	h := &fakeHandle{f: f}
	return asOpened[reopened](h, f.change("reopen", func(verdict) (err error) {
		h.real, err = f.folder.reopen(name)
		return err
	}, func(verdict) (err error) {
		h.n, err = f.disk.find(name)
		return err
	}))
}

// asOpened returns the handle, unless it was opened in vain.
func asOpened[H any](h *fakeHandle, err error) (got H, _ error) {
	if err == nil {
		return any(h).(H), nil
	}
	if h.real != nil {
		h.real.Close()
	}
	return got, err
}

func (f *fake) link(temp, final string) error {
	return f.change("link",
		func(verdict) error { return f.folder.link(temp, final) },
		func(verdict) error { return f.disk.link(temp, final) })
}

func (f *fake) replace(temp, final string) error {
	return f.change("replace",
		func(verdict) error { return f.folder.replace(temp, final) },
		func(verdict) error { return f.disk.replace(temp, final) })
}

func (f *fake) linked(temp, final string) (ours bool, err error) {
	err = f.ask("linked", func() (err error) {
		ours, err = f.folder.linked(temp, final)
		return err
	}, func() (err error) {
		ours, err = f.disk.linked(temp, final)
		return err
	})
	return ours && err == nil, err
}

func (f *fake) remove(name string) error {
	return f.change("remove",
		func(verdict) error { return f.folder.remove(name) },
		func(verdict) error { f.disk.remove(name); return nil })
}

func (f *fake) names(visit func(name string)) error {
	var names []string
	err := f.ask("names", func() error {
		return f.folder.names(func(name string) { names = append(names, name) })
	}, func() error {
		names = f.disk.names()
		return nil
	})
	for _, name := range names {
		visit(name)
	}
	return err
}

func (f *fake) read(name string) (in io.ReadSeekCloser, err error) {
	err = f.ask("read", func() (err error) {
		in, err = f.folder.read(name)
		return err
	}, func() error {
		n, err := f.disk.find(name)
		if err == nil {
			in = struct {
				io.ReadSeeker
				io.Closer
			}{bytes.NewReader(bytes.Clone(n.written)), io.NopCloser(nil)}
		}
		return err
	})
	if err != nil && in != nil {
		in.Close()
	}
	return in, err
}

// fakeHandle is an open file or, without an inode, the open folder.
type fakeHandle struct {
	f    *fake
	kind string // before the name of its calls
	n    *modelFile
	real handle // if f mirrors
}

func (h *fakeHandle) Write(p []byte) (n int, err error) {
	err = h.f.change("write", func(v verdict) error {
		_, err := h.real.(file).Write(v.cut(p))
		return err
	}, func(v verdict) error {
		n = len(v.cut(p))
		h.n.written = append(h.n.written, v.cut(p)...)
		return nil
	})
	return n, err
}

// cut is what a write writes of p.
func (v verdict) cut(p []byte) []byte {
	if v == short || v == torn {
		return p[:len(p)/2]
	}
	return p
}

func (h *fakeHandle) Sync() error {
	synced := false
	defer func() {
		if h.n != nil && !synced {
			h.f.mu.Lock()
			h.n.poisoned = true
			h.f.mu.Unlock()
		}
	}()
	return h.f.change(h.kind+"fsync", func(verdict) error { return h.real.Sync() }, func(verdict) error {
		synced = true
		if h.n == nil {
			h.f.disk.syncNames()
		} else {
			h.n.sync()
		}
		return nil
	})
}

// Close closes the real one in any case, or the tests would run out of descriptors.
func (h *fakeHandle) Close() error {
	err := h.f.ask(h.kind+"close", nothing, nothing)
	if h.f.mirrors {
		err = errors.Join(err, h.real.Close())
	}
	return err
}

func (h *fakeHandle) id() (i inode, err error) {
	err = h.f.ask("id", func() error {
		i, err = h.real.(file).id()
		return err
	}, func() error {
		i = inode{number: h.n.number}
		return nil
	})
	return i, err
}

func (h *fakeHandle) ReadAt(p []byte, at int64) (n int, err error) {
	err = h.f.ask("read at", func() error {
		n, err = h.real.(io.ReaderAt).ReadAt(p, at)
		return err
	}, func() error {
		n, err = bytes.NewReader(h.n.written).ReadAt(p, at)
		return err
	})
	return n, err
}

func (h *fakeHandle) Size() (size int64, err error) {
	err = h.f.ask("size", func() error {
		size, err = h.real.(reopened).Size()
		return err
	}, func() error {
		size = int64(len(h.n.written))
		return nil
	})
	return size, err
}

func (h *fakeHandle) Truncate(size int64) error {
	return h.f.change("truncate",
		func(verdict) error { return h.real.(reopened).Truncate(size) },
		func(verdict) error { h.n.written = bytes.Clone(h.n.written[:size]); return nil })
}

func (h *fakeHandle) forget() {
	_ = h.f.change("forget", func(verdict) error { return nil }, func(verdict) error {
		if !h.n.forget() || !h.f.mirrors {
			return nil
		}
		file := h.real.(diskFile)
		_, err := file.WriteAt(h.n.written, 0)
		return errors.Join(err, file.Truncate(int64(len(h.n.written))))
	})
}

// plan decides about the i-th call, which has the given kind.
type plan = func(i int, call string) verdict

// at returns a plan that has the verdict for the i-th call.
func at(i int, v verdict) plan {
	return func(j int, _ string) verdict {
		if i == j {
			return v
		}
		return pass
	}
}

// faulty is a real folder whose calls fail as planned. After each call it checks
// that every visible file is complete, also after a loss of power.
type faulty struct {
	*fake
	t    *testing.T
	plan plan
	err  error // what failed calls report

	mu      sync.Mutex // guards what follows, and the disk
	calls   []string
	crashed bool
}

// newFaulty puts a faulty folder in the place of s's own.
func newFaulty(t *testing.T, s *Shard, p plan, err error) *faulty {
	f := newFaultyFolder(t, s.dir.folder, p, err)
	s.dir.syncer.close() // from now on f is asked
	s.dir.folder, s.dir.syncer.folder = f, f
	return f
}

func newFaultyFolder(t *testing.T, real folder, p plan, err error) *faulty {
	f := &faulty{t: t, plan: p, err: err}
	f.fake = &fake{folder: real, mirrors: true, call: f.decide, mu: &f.mu, disk: newModelDisk()}
	must(t, f.disk.load(real))
	return f
}

func (f *faulty) decide(kind string, do func(verdict) error) error {
	f.mu.Lock()
	i := len(f.calls)
	f.calls = append(f.calls, kind)
	f.mu.Unlock()

	v := f.plan(i, kind) // may block

	f.mu.Lock()
	defer f.mu.Unlock()
	if f.crashed {
		return errCrashed
	}
	return v.around(f.err, func() { f.crashed = true }, func(v verdict) error {
		err := do(v)
		f.disk.check(kind)
		for _, breach := range f.disk.breaches {
			f.t.Error(breach)
		}
		f.disk.breaches = nil
		return err
	})
}
