package output

import (
	"errors"
	"sync"
	"time"
)

// stopwatch is told how long each fsync takes that a message waits for; nil is told
// nothing.
type stopwatch func(took time.Duration)

// sync is h.Sync.
func (w stopwatch) sync(h handle) error {
	if w == nil {
		return h.Sync()
	}
	began := time.Now()
	err := h.Sync()
	w(time.Since(began))
	return err
}

// errInterrupted: a goroutine that others depended on panicked or ended.
var errInterrupted = errors.New("it was interrupted")

// syncer makes the names in a folder durable, with one fsync for all callers that
// need one at the same time. Its methods may be called concurrently.
type syncer struct {
	folder interface{ open() (handle, error) }
	synced stopwatch

	mu     sync.Mutex // guards what follows, and the fields of each opened
	opened *opened    // what begin returns, or nil
}

// opened is the opened folder. It is used until its first failure. The system
// reports a failed write-back to a descriptor only once, so everything that was
// changed since it was opened is in doubt then.
type opened struct {
	syncer *syncer
	handle
	wake sync.Cond // when an fsync has ended

	begun, ended int // fsyncs
	running      bool
	err          error
}

// begin returns what makes the names durable that are changed from now on. The
// folder has to be open before the change: the system reports a failed write-back
// to descriptors that were open then, and may not report it to a later one.
func (y *syncer) begin() (*opened, error) {
	y.mu.Lock()
	o := y.opened
	y.mu.Unlock()
	if o != nil {
		return o, nil
	}
	h, err := y.folder.open()
	if err != nil {
		return nil, err
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.opened != nil { // by another caller meanwhile
		defer h.Close()
		return y.opened, nil
	}
	y.opened = &opened{syncer: y, handle: h}
	y.opened.wake.L = &y.mu
	return y.opened, nil
}

// sync makes durable what was changed since begin. It shares an fsync that
// begins from now on; one under way may have missed the change.
func (o *opened) sync() error {
	o.syncer.mu.Lock()
	defer o.syncer.mu.Unlock()
	for mine := o.begun + 1; o.err == nil && o.ended < mine; {
		if o.running {
			o.wake.Wait()
		} else {
			o.run()
		}
	}
	return o.err
}

// run does an fsync for all callers that wait. The caller holds mu, which is free
// meanwhile.
func (o *opened) run() {
	y := o.syncer
	o.begun++
	o.running = true
	err := errInterrupted // unless it returns
	y.mu.Unlock()
	defer func() {
		y.mu.Lock()
		o.running, o.ended = false, o.begun
		o.wake.Broadcast()
		if err != nil {
			o.err = err
			y.forget(o)
		}
	}()
	err = y.synced.sync(o.handle)
}

// forget makes the next begin open the folder again. The caller holds mu.
func (y *syncer) forget(o *opened) {
	if y.opened == o {
		y.opened = nil
	}
	_ = o.handle.Close() // only read from: nothing of it can be lost
}

// close closes the folder. No caller needs an fsync any more.
func (y *syncer) close() {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.opened != nil {
		y.forget(y.opened)
	}
}
