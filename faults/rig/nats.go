package rig

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// NATSCommand is the name under which NewNATS expects NATSServer in the PATH.
const NATSCommand = "nats-server-for-tests"

// NewNATS starts a NATS server as a process of its own.
func NewNATS(t testing.TB) Broker {
	t.Helper()
	port, dir := freePort(t), t.TempDir()
	url := "nats://user:hunter2@127.0.0.1:" + port
	var cmd *exec.Cmd
	b := Broker{Server: url, Consumer: url}
	b.Start = func() {
		cmd = exec.Command(NATSCommand, port, dir)
		cmd.Env = append(os.Environ(), "GOCOVERDIR="+dir)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	b.Stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	b.Stall = func() { _ = cmd.Process.Signal(syscall.SIGSTOP) }
	b.Start()
	t.Cleanup(func() { b.Stop() })
	return b
}

// NATSServer is the main function of NATSCommand: a NATS server as somebody
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

// freePort returns a port that nobody listens on at the moment.
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
