package output

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"strings"
	"sync"
	"testing"
)

// verdict is what becomes of one call of the folder.
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

// faulty is a real folder whose calls fail as planned. It keeps a model of what
// a loss of power would leave, and checks after each call that no file can be
// seen, then or after such a loss, that is not complete.
type faulty struct {
	folder
	t *testing.T
	// plan decides about the i-th call, which has the given kind.
	plan func(i int, call string) verdict
	// err is what failed calls report.
	err error

	mu      sync.Mutex // guards what follows
	calls   []string
	now     verdict // of the call that is running
	crashed bool
	live    map[string]*node // the names as the running system sees them
	durable map[string]*node // the names that would be left
}

// node is a file: its content, and what of it would be left.
type node struct {
	written, synced []byte
	// poisoned tells that a fsync failed: the next one reports success for
	// pages that never reached the disk.
	poisoned bool
}

// newFaulty puts a faulty folder in the place of s's own.
func newFaulty(t *testing.T, s *Shard, plan func(i int, call string) verdict, err error) *faulty {
	f := newFaultyFolder(t, s.dir.folder, plan, err)
	s.dir.syncer.close() // what comes is asked of f
	s.dir.folder, s.dir.syncer.folder = f, f
	return f
}

func newFaultyFolder(t *testing.T, real folder, plan func(i int, call string) verdict, err error) *faulty {
	return &faulty{
		folder: real, t: t, plan: plan, err: err,
		live: map[string]*node{}, durable: map[string]*node{},
	}
}

// call runs one call of the folder through the plan: do is the call, done
// records in the model that it happened.
func (f *faulty) call(kind string, do func() error, done func()) error {
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
	if v == panicBefore {
		panic(errPanicked)
	}
	if v == fail || v == crashBefore {
		f.crashed = v == crashBefore
		return f.outcome(v)
	}
	f.now = v
	if err := do(); err != nil {
		return err
	}
	done()
	f.check(kind)
	f.crashed = v == crashAfter
	if v == panicAfter {
		panic(errPanicked)
	}
	return f.outcome(v)
}

func (f *faulty) outcome(v verdict) error {
	switch v {
	case pass, short:
		return nil
	case crashBefore, crashAfter:
		return errCrashed
	default:
		return f.err
	}
}

// check fails if a visible file is not complete on the disk.
func (f *faulty) check(after string) {
	for _, names := range []map[string]*node{f.live, f.durable} {
		for name, n := range names {
			if strings.HasSuffix(name, visibleSuffix) && !(bytes.Equal(n.synced, n.written) && bytes.HasSuffix(n.synced, []byte("\n"))) {
				f.t.Errorf("after %s %s is visible, but of %q only %q is durable", after, name, n.written, n.synced)
			}
		}
	}
}

// checkDurable fails unless a loss of power would leave exactly this file.
func (f *faulty) checkDurable(name string, want []byte) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.durable[name]; n == nil {
		f.t.Errorf("the name %s is not durable", name)
	} else if !bytes.Equal(n.synced, want) {
		f.t.Errorf("of %q only %q is durable", want, n.synced)
	}
	for other := range f.durable {
		if other != name && strings.HasSuffix(other, visibleSuffix) {
			f.t.Errorf("%s would be visible again after a loss of power", other)
		}
	}
}

func (f *faulty) held() error {
	return f.call("held", f.folder.held, func() {})
}

func (f *faulty) locked() error {
	return f.call("locked", f.folder.locked, func() {})
}

func (f *faulty) create(name string) (file, error) {
	var made file
	n := new(node)
	err := f.call("create", func() (err error) {
		made, err = f.folder.create(name)
		return err
	}, func() { f.live[name] = n })
	if err != nil {
		if made != nil {
			made.Close() // the caller cannot know of it
		}
		return nil, err
	}
	return &faultyFile{faultyHandle{made, f, "", n}, made}, nil
}

func (f *faulty) open() (handle, error) {
	var opened handle
	err := f.call("open", func() (err error) {
		opened, err = f.folder.open()
		return err
	}, func() {})
	if err != nil {
		if opened != nil {
			opened.Close()
		}
		return nil, err
	}
	return &faultyHandle{opened, f, "folder ", nil}, nil
}

func (f *faulty) link(temp, final string) error {
	return f.call("link", func() error { return f.folder.link(temp, final) }, func() { f.live[final] = f.node(temp) })
}

func (f *faulty) linked(temp, final string) (ours bool, err error) {
	err = f.call("linked", func() (err error) {
		ours, err = f.folder.linked(temp, final)
		return err
	}, func() {})
	return ours && err == nil, err
}

func (f *faulty) remove(name string) error {
	return f.call("remove", func() error { return f.folder.remove(name) }, func() { delete(f.live, name) })
}

func (f *faulty) names(visit func(string)) error {
	return f.call("names", func() error { return f.folder.names(visit) }, func() {})
}

func (f *faulty) reopen(name string) (reopened, error) {
	var opened reopened
	err := f.call("reopen", func() (err error) {
		opened, err = f.folder.reopen(name)
		return err
	}, func() {})
	if err != nil {
		if opened != nil {
			opened.Close()
		}
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return &faultyReopened{faultyHandle{opened, f, "mend ", f.node(name)}, opened}, nil
}

// node is the file of a name, which may be from before. The caller holds mu.
func (f *faulty) node(name string) *node {
	if f.live[name] == nil {
		in, err := f.folder.read(name)
		if err != nil {
			f.t.Fatal(err)
		}
		defer in.Close()
		n := new(node)
		if n.written, err = io.ReadAll(in); err != nil {
			f.t.Fatal(err)
		}
		n.synced = bytes.Clone(n.written)
		f.live[name] = n
	}
	return f.live[name]
}

func (f *faulty) read(name string) (opened io.ReadSeekCloser, err error) {
	err = f.call("read", func() (err error) {
		opened, err = f.folder.read(name)
		return err
	}, func() {})
	if err != nil {
		if opened != nil {
			opened.Close()
		}
		return nil, err
	}
	return opened, nil
}

// faultyHandle is a file or, without a node, the folder.
type faultyHandle struct {
	handle
	f    *faulty
	kind string
	n    *node
}

func (h *faultyHandle) Sync() error {
	failed := true
	defer func() {
		if failed && h.n != nil {
			h.n.poisoned = true
		}
	}()
	return h.f.call(h.kind+"fsync", h.handle.Sync, func() {
		failed = false
		switch {
		case h.n == nil:
			h.f.durable = maps.Clone(h.f.live)
		case !h.n.poisoned:
			h.n.synced = bytes.Clone(h.n.written)
		default: // no page, but the size
			h.n.synced = h.n.synced[:min(len(h.n.synced), len(h.n.written))]
		}
	})
}

// Close always closes, or the tests would run out of descriptors.
func (h *faultyHandle) Close() error {
	err := h.f.call(h.kind+"close", func() error { return nil }, func() {})
	return errors.Join(err, h.handle.Close())
}

type faultyFile struct {
	faultyHandle
	real file
}

func (h *faultyFile) Write(p []byte) (n int, err error) {
	err = h.f.call("write", func() error {
		if h.f.now == short || h.f.now == torn {
			p = p[:len(p)/2]
		}
		n, err = h.real.Write(p)
		return err
	}, func() { h.n.written = append(h.n.written, p...) })
	return n, err
}

// faultyReopened is a file that was opened anew.
type faultyReopened struct {
	faultyHandle
	real reopened
}

func (h *faultyReopened) ReadAt(p []byte, at int64) (n int, err error) {
	err = h.f.call("read at", func() error {
		n, err = h.real.ReadAt(p, at)
		return err
	}, func() {})
	return n, err
}

func (h *faultyReopened) Size() (size int64, err error) {
	err = h.f.call("size", func() error {
		size, err = h.real.Size()
		return err
	}, func() {})
	return size, err
}

func (h *faultyReopened) Truncate(size int64) error {
	return h.f.call("truncate", func() error { return h.real.Truncate(size) }, func() { h.n.written = h.n.written[:size] })
}

// forget leaves what the disk has: not what a fsync failed to write.
func (h *faultyReopened) forget() {
	_ = h.f.call("forget", func() error { return nil }, func() {
		if !h.n.poisoned {
			return
		}
		h.n.written, h.n.poisoned = bytes.Clone(h.n.synced), false
		file := h.real.(diskFile)
		_, err := file.WriteAt(h.n.synced, 0)
		if err := errors.Join(err, file.Truncate(int64(len(h.n.synced)))); err != nil {
			h.f.t.Error(err)
		}
	})
}
