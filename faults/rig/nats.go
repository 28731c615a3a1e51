package rig

import (
	"syscall"
	"testing"

	"async-data-processor/faults/process"
)

// NewNATS starts a nats-server as a process of its own.
func NewNATS(t testing.TB) Broker {
	t.Helper()
	n := &process.NATS{Dir: t.TempDir(), Config: "authorization { user: user, password: hunter2 }"}
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
