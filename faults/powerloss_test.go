package faults

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"async-data-processor/faults/lossyfs"
	"async-data-processor/faults/rig"
)

// TestPowerLoss lets the machine lose power again and again, in the middle of
// its work and while it starts. No start needs an operator.
func TestPowerLoss(t *testing.T) {
	onMachine(t, "loss of power", func(m *machine) {
		if m.Consumer != "" {
			m.server = m.LaunchServer(m, m.environment()...)
			m.load = rig.StartLoad(m, m.server, either(steady, rig.LoadConfig{Size: 20, Pause: 100 * time.Millisecond}))
		}
		m.batch = either(20, 5) // so that a slow machine keeps up
		for range either(4, 100) {
			lost, done := m.losePower()
			p := m.launch()
			at := m.await(p, lost, done)
			m.Logf("%d: at %s %q, done %t", m.cycles, at.Kind, at.Path, at.Done)
			m.reboot(p)
			m.cycle()
		}
		if m.load == nil { // it never came up
			m.start(powerLoad)
			m.load.More(100)
		}
		m.check = m.checker()
		m.finish()
	}, embedded, embedded.rolled(), rabbitmq, rabbitmq.rolled())
}

// powerLoad keeps the embedded broker busy.
var powerLoad = rig.LoadConfig{Size: 100, Pause: 50 * time.Millisecond}

// losePower lets power go after some operations, before or after one: as often
// among the first sixteen as among thousands after. What is not durable is
// gone, or is left to chance. It counts the operations in done.
func (m *machine) losePower() (lost chan lossyfs.Op, done *atomic.Int64) {
	var chance *rand.Rand
	if m.rng.IntN(2) == 0 {
		chance = rand.New(rand.NewPCG(m.rng.Uint64(), 0))
	}
	last := int64(8) << m.rng.IntN(either(8, 11))
	last += m.rng.Int64N(last)
	lost, done = make(chan lossyfs.Op, 1), new(atomic.Int64)
	m.disk.SetHook(func(op lossyfs.Op) error {
		if done.Add(1) == last {
			m.disk.PowerLoss(chance)
			lost <- op
		}
		return nil
	})
	return lost, done
}

// await waits until power is lost; before that the process may come to serve.
func (m *machine) await(p *rig.Process, lost <-chan lossyfs.Op, done *atomic.Int64) lossyfs.Op {
	m.Helper()
	listening := make(chan struct{})
	go func() {
		if p.Listen(m.Context()) == nil {
			close(listening)
		}
	}()
	for seen := int64(-1); ; {
		select {
		case op := <-lost:
			return op
		case <-listening:
			listening = nil
			switch {
			case m.Consumer != "":
			case m.load == nil:
				m.load = rig.StartLoad(m, p, powerLoad)
			default:
				m.load.Aim(p)
			}
		case <-p.Exited():
			m.Fatalf("%d: it gives up:\n%s", m.cycles, p.Dump())
		case <-time.After(rig.Patience):
			if done.Load() == seen {
				m.Fatalf("%d: it does nothing:\n%s", m.cycles, p.Dump())
			}
			seen = done.Load()
		}
	}
}

// reboot is what comes after a loss of power, which has killed the process.
func (m *machine) reboot(p *rig.Process) {
	m.Helper()
	p.Kill()
	m.halt(m.T)
	m.disk.SetHook(nil)
	m.boot(m.T)
}
