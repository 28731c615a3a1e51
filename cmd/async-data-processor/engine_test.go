package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// engine is a broker that the pipeline runs over.
type engine struct {
	name string
	// submissions is how many the test of the whole way makes.
	submissions int
	// open returns a broker for one test alone.
	open func(t *testing.T) engineBroker
}

// engineBroker is a broker for one test.
type engineBroker struct {
	// server and consumer are the URLs for the two processes. Without one for
	// the consumer both halves are one process, with the broker in it.
	server, consumer string
	settings         []string // more of the server's environment
	// stop and start are the broker's; nil where it lives in a process of ours.
	stop, start func()
	// stall stops it from answering, for good; nil like stop.
	stall func()
}

var engines = []engine{
	{name: "rabbitmq", open: newVhost, submissions: 1000},
	{name: "jetstream", open: newNATS, submissions: 300},
	{name: "embedded", open: newStore, submissions: 300},
	{name: "listener", open: newListener, submissions: 100},
}

// onEach runs a test over every engine, side by side.
func onEach(t *testing.T, test func(t *testing.T, b engineBroker, e engine)) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			test(t, e.open(t), e)
		})
	}
}

// onBoth runs a test over the brokers that live in processes of their own.
func onBoth(t *testing.T, test func(t *testing.T, b engineBroker)) {
	for name, open := range map[string]func(*testing.T) engineBroker{"rabbitmq": newVhost, "jetstream": newNATS} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// launch starts the pipeline with the settings, and waits until it is ready.
func (b engineBroker) launch(t *testing.T, settings ...string) (consumer, server *process) {
	t.Helper()
	if b.consumer == "" {
		p := start(t, "standalone", append(settings, "BROKER_URL="+b.server)...).ready()
		return p, p
	}
	server = b.launchServer(t, settings...)
	return b.launchConsumer(t, settings...), server
}

func (b engineBroker) launchServer(t *testing.T, settings ...string) *process {
	t.Helper()
	return start(t, "server", append(append(settings, "BROKER_URL="+b.server), b.settings...)...).ready()
}

func (b engineBroker) launchConsumer(t *testing.T, settings ...string) *process {
	t.Helper()
	return start(t, "message-consumer", append(settings, "BROKER_URL="+b.consumer)...).ready()
}

func newStore(t *testing.T) engineBroker {
	return engineBroker{server: "embedded://" + filepath.Join(t.TempDir(), "broker")}
}

// newListener is an embedded broker in the server's process, which the
// consumer's reaches over the network.
func newListener(t *testing.T) engineBroker {
	b := newStore(t)
	addr := "127.0.0.1:" + freePort(t)
	b.settings = []string{"EMBEDDED_LISTEN_ADDR=" + addr, "EMBEDDED_TOKEN=hunter2"}
	b.consumer = "nats://hunter2@" + addr
	return b
}

// newNATS starts a NATS server as a process of its own.
func newNATS(t *testing.T) engineBroker {
	t.Helper()
	port, dir := freePort(t), t.TempDir()
	url := "nats://user:hunter2@127.0.0.1:" + port
	var cmd *exec.Cmd
	b := engineBroker{server: url, consumer: url}
	b.start = func() {
		cmd = exec.Command("nats-server-for-tests", port, dir)
		cmd.Env = append(os.Environ(), "GOCOVERDIR="+dir)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	b.stop = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	b.stall = func() { cmd.Process.Signal(syscall.SIGSTOP) }
	b.start()
	t.Cleanup(func() { b.stop() })
	return b
}

// natsServer is the process of newNATS: a NATS server as somebody would run
// it, but that it syncs always, because the tests kill it.
func natsServer() {
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
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// node is a folder of scripts/rabbitmq, which makes it a private RabbitMQ node.
type node string

// script runs scripts/rabbitmq on the node.
func (n node) script(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("../../scripts/rabbitmq", args...)
	cmd.Env = append(os.Environ(), "RABBITMQ_DIR="+string(n))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second // the node it starts inherits the pipe
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("scripts/rabbitmq %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// newVhost returns a fresh virtual host on the tests' common node, so that a
// test has the queues for itself. Stopping it would disturb the other tests.
func newVhost(t *testing.T) engineBroker {
	t.Helper()
	common.script(t, "start") // unless another test has
	vhost := strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	common.script(t, "ctl", "add_vhost", vhost)
	common.script(t, "ctl", "set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
	url := strings.TrimSuffix(common.script(t, "url"), "/") + "/" + vhost
	return engineBroker{server: url, consumer: url}
}

// newNode returns a RabbitMQ node that a test may stop.
func newNode(t *testing.T) engineBroker {
	t.Helper()
	own := node(t.TempDir())
	b := engineBroker{
		start: func() { own.script(t, "start") },
		stop:  func() { own.script(t, "stop") },
		stall: func() { own.script(t, "pause") },
	}
	b.start()
	t.Cleanup(b.stop)
	b.server = own.script(t, "url")
	b.consumer = b.server
	return b
}
