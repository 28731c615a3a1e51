package faults

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"async-data-processor/faults/lossyfs"
	"async-data-processor/faults/rig"
)

// TestDiskError fails each step of a publication with each error of a disk,
// once and for a while. Meanwhile the process is not ready; then it goes on by
// itself, with a fresh temporary file.
func TestDiskError(t *testing.T) {
	onMachine(t, "errors of the disk", func(m *machine) {
		m.start(steady)
		for range either(1, 10) {
			for _, kind := range publication {
				for _, errno := range []unix.Errno{unix.EIO, unix.ENOSPC} {
					m.fail(kind, errno, false, 1)
				}
			}
			// A link may have happened although its error says otherwise.
			m.fail(lossyfs.Link, unix.EIO, true, 1)
			lasting := publication
			if m.rolls { // one that cannot be closed is read again, and is fine
				lasting = slices.DeleteFunc(slices.Clone(lasting), func(k lossyfs.Kind) bool { return k == lossyfs.Close })
			}
			m.failForAWhile(lasting[m.rng.IntN(len(lasting))], unix.ENOSPC)
		}
		m.finish()
	}, inBothModes(embedded, rabbitmq)...)
}

// failing is a disk that fails.
type failing struct {
	*machine
	mu    sync.Mutex // guards tried
	tried map[string]bool
}

// fresh holds that nothing more is put into a hidden file once anything about it
// has failed, and that the content of a temporary one is never trusted again. Of
// a rolling file the failed part is cut off, which is synced.
func (f *failing) fresh(op lossyfs.Op, failed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch op.Kind {
	case lossyfs.Sync:
		if f.rolls {
			return
		}
		fallthrough
	case lossyfs.Create, lossyfs.Write:
		if f.tried[op.Path] && !op.Done {
			f.Errorf("%s of %s again, after it failed", op.Kind, op.Path)
		}
		if failed {
			f.tried[op.Path] = true
		}
	}
}

// fail lets a step fail for some times, before or after it has happened, and
// returns when it has and the process is ready again.
func (m *machine) fail(kind lossyfs.Kind, errno unix.Errno, done bool, times int64) {
	m.Helper()
	f := &failing{machine: m, tried: map[string]bool{}}
	var count atomic.Int64
	hit := make(chan struct{})
	m.disk.SetHook(func(op lossyfs.Op) error {
		failed := op.Kind == kind && op.Done == done && inOutput(op) && count.Add(1) <= times
		f.fresh(op, failed)
		if !failed {
			return nil
		}
		if count.Load() >= times {
			close(hit)
		}
		return errno
	})
	within(m, string(kind)+" in a publication", hit)
	m.recovers()
}

// failForAWhile lets a step fail until the process says that it is not ready.
func (m *machine) failForAWhile(kind lossyfs.Kind, errno unix.Errno) {
	m.Helper()
	f := &failing{machine: m, tried: map[string]bool{}}
	m.disk.SetHook(func(op lossyfs.Op) error {
		failed := op.Kind == kind && !op.Done && inOutput(op)
		f.fresh(op, failed)
		if !failed {
			return nil
		}
		return errno
	})
	rig.Eventually(m, "being not ready", func() error {
		if status, text := m.local().Get("/readyz"); status != http.StatusServiceUnavailable {
			return fmt.Errorf("%d %s while every %s fails", status, text, kind)
		}
		return nil
	})
	m.recovers()
}

// recovers waits until files come again, from the same process.
func (m *machine) recovers() {
	m.Helper()
	published := make(chan struct{})
	var once sync.Once
	m.disk.SetHook(func(op lossyfs.Op) error {
		if op.Kind == lossyfs.SyncDir && op.Done && inOutput(op) {
			once.Do(func() { close(published) })
		}
		return nil
	})
	within(m, "file after the error", published)
	m.disk.SetHook(nil)
	m.local().Ready()
	m.cycle()
	select {
	case <-m.local().Exited():
		m.Error(errors.New("it has ended"))
	default:
	}
}
