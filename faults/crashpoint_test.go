package faults

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"async-data-processor/faults/lossyfs"
	"async-data-processor/faults/rig"
)

// publication is what a batch's way to its file consists of.
var publication = []lossyfs.Kind{
	lossyfs.Create, lossyfs.Write, lossyfs.Sync, lossyfs.Close,
	lossyfs.Link, lossyfs.Unlink, lossyfs.SyncDir,
}

// TestCrashPoint kills the process right before and right after each step of a
// publication.
func TestCrashPoint(t *testing.T) {
	onMachine(t, "kill -9 at a point", func(m *machine) {
		m.start(steady)
		for range either(1, 10) {
			for _, kind := range publication {
				for _, done := range []bool{false, true} {
					m.killAt(kind, done)
				}
			}
		}
		m.finish()
	}, inBothModes(embedded, rabbitmq)...)
}

func (m *machine) killAt(kind lossyfs.Kind, done bool) {
	m.Helper()
	m.load.More(steady.Size)
	victim, dead := m.local(), make(chan struct{})
	var once sync.Once
	m.disk.SetHook(func(op lossyfs.Op) (err error) {
		if op.Kind == kind && op.Done == done && inOutput(op) {
			once.Do(func() {
				victim.Signal(unix.SIGKILL)
				close(dead)
				err = unix.EIO // the process is dead; before is before
			})
		}
		return err
	})
	within(m, string(kind)+" in a publication", dead)
	m.disk.SetHook(nil)
	m.revive(victim)
}

// revive starts the local process again, which was killed.
func (m *machine) revive(victim *rig.Process) {
	m.Helper()
	victim.Kill()
	m.kills++
	m.cycle()
	m.gone(victim)
	m.up()
}

// TestCrashWhileSettling kills the process in the moments after a batch is
// durable, in which its envelopes are settled one after the other.
func TestCrashWhileSettling(t *testing.T) {
	onMachine(t, "kill -9 while settling", func(m *machine) {
		durable := lossyfs.SyncDir
		if m.rolls {
			durable = lossyfs.Sync
		}
		m.start(steady)
		for range either(4, 200) {
			m.load.More(steady.Size)
			victim, dead := m.local(), make(chan struct{})
			moment := time.Duration(m.rng.Int64N(int64(2 * time.Millisecond)))
			var once sync.Once
			m.disk.SetHook(func(op lossyfs.Op) error {
				if op.Kind == durable && op.Done && inOutput(op) {
					once.Do(func() {
						time.AfterFunc(moment, func() {
							victim.Signal(unix.SIGKILL)
							close(dead)
						})
					})
				}
				return nil
			})
			within(m, "durable batch", dead)
			m.disk.SetHook(nil)
			m.revive(victim)
		}
		m.finish()
	}, inBothModes(embedded, rabbitmq)...)
}
