package rig

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"async-data-processor/faults/process"
)

// NATSCommand is the name under which NewNATS expects NATSServer in the PATH.
const NATSCommand = "nats-server-for-tests"

// NewNATS starts a NATS server as a process of its own.
func NewNATS(t testing.TB) Broker {
	t.Helper()
	port, dir := freePort(t), t.TempDir()
	url := "nats://user:hunter2@127.0.0.1:" + port
	var p *process.Process
	b := Broker{Server: url, Consumer: url}
	b.Start = func() {
		var err error
		if p, err = process.Spawn([]string{"GOCOVERDIR=" + dir}, NATSCommand, port, dir); err != nil {
			t.Fatal(err)
		}
	}
	b.Stop = func() { p.Kill() }
	b.Stall = func() { p.Signal(syscall.SIGSTOP) }
	b.Start()
	t.Cleanup(func() {
		b.Stop()
		if t.Failed() {
			t.Logf("the log of %s:\n%s", NATSCommand, p.Dump())
		}
	})
	return b
}

// NATSServer is the main function of NATSCommand: a NATS server as another
// would run it, but that it syncs always, because the tests kill it.
func NATSServer() {
	var port int
	fmt.Sscan(os.Args[1], &port)
	s, err := natsserver.NewServer(&natsserver.Options{
		Host: "127.0.0.1", Port: port, Username: "user", Password: "hunter2",
		JetStream: true, StoreDir: os.Args[2], SyncAlways: true, NoSigs: true, NoLog: true,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "nats-server:", err)
		os.Exit(1)
	}
	s.Start()
	s.WaitForShutdown()
}

// freePort returns a port that is free at the moment.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}
