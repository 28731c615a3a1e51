package output

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// fault is the fate of one call of the folder.
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
	*fake
	p       *process
	closing chan struct{} // closed before the shard is
	written atomic.Bool   // by workers only

	// Guarded by the world's lock.
	unlocked, closed bool
}

func (p *process) newFolder(real folder) *modelFolder {
	f := &modelFolder{p: p, closing: make(chan struct{})}
	f.fake = &fake{folder: real, call: f.decide, mu: &p.world.mu, disk: p.world.disk}
	return f
}

// decide runs one call of the folder, under the world's lock.
func (f *modelFolder) decide(kind string, do func(verdict) error) error {
	w := f.p.world
	planned := w.planned(kind)
	f.hang(kind, planned.hang)
	w.mu.Lock()
	defer w.mu.Unlock()
	if f.p.crashed {
		return errCrashed
	}
	v := planned.verdict
	if v == panicBefore || v == panicAfter {
		if f.written.Load() {
			w.panics++
		} else {
			v = fail // only a worker survives a panic
		}
	}
	return v.around(unix.EIO, func() { w.crash(f.p, planned.power, planned.bits) }, do)
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
