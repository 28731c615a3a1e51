package rig

import (
	"syscall"
	"testing"

	"async-data-processor/faults/process"
)

// NewNATS starts a nats-server as a process of its own.
func NewNATS(t testing.TB) Broker {
	t.Helper()
	return newNATS(t, "authorization { user: user, password: hunter2 }")
}

// NewSilentNATS is NewNATS for a user that may neither tell nor hear anything on the bus.
func NewSilentNATS(t testing.TB) Broker {
	t.Helper()
	return newNATS(t, `authorization { users: [ { user: user, password: hunter2, permissions: {
		publish: { deny: "async-data-processor.bus.>" }, subscribe: { deny: "async-data-processor.bus.>" } } } ] }`)
}

func newNATS(t testing.TB, config string) Broker {
	t.Helper()
	n := &process.NATS{Dir: t.TempDir(), Config: config}
	start := func() {
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
	}
	start()
	t.Cleanup(func() {
		n.Kill()
		if t.Failed() {
			t.Logf("the log of nats-server:\n%s", n.Dump())
		}
	})
	url := "nats://user:hunter2@" + n.Addr
	return Broker{
		Server: url, Consumer: url, Start: start,
		Stop:   func() { n.Kill() },
		Stall:  func() { n.Signal(syscall.SIGSTOP) },
		Resume: func() { n.Signal(syscall.SIGCONT) },
	}
}
