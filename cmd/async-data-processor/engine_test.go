package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// engine is a broker that the pipeline runs over.
type engine struct {
	name string
	// url returns the broker's URL, for one test alone.
	url func(t *testing.T) string
	// outage returns the URL of a broker of the test's own, and what stops it and
	// starts it again; nil if it is in our process.
	outage func(t *testing.T) (url string, stop, start func())
	// submissions is how many the test of the whole way makes.
	submissions int
	// alone tells that both halves run in one process, the broker in it.
	alone bool
}

var engines = []engine{
	{name: "rabbitmq", url: newVhost, outage: ownNode, submissions: 1000},
	{name: "jetstream", url: newNATS, outage: ownNATS, submissions: 300},
	{name: "embedded", url: newStore, submissions: 300, alone: true},
}

// onEach runs a test over every engine.
func onEach(t *testing.T, test func(t *testing.T, e engine)) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			test(t, e)
		})
	}
}

// start starts the pipeline: two processes, or one twice.
func (e engine) start(t *testing.T, settings ...string) (consumer, server *process) {
	t.Helper()
	if e.alone {
		p := start(t, "standalone", settings...).ready()
		return p, p
	}
	return start(t, "message-consumer", settings...).ready(), start(t, "server", settings...).ready()
}

func newStore(t *testing.T) string { return "embedded://" + filepath.Join(t.TempDir(), "broker") }

// newNATS starts a NATS server as a process of its own and returns its URL.
func newNATS(t *testing.T) string {
	t.Helper()
	url, _, _ := ownNATS(t)
	return url
}

// ownNATS is newNATS with a way to kill the server and to start it again.
func ownNATS(t *testing.T) (url string, stop, start func()) {
	t.Helper()
	port, store := freePort(t), t.TempDir()
	var cmd *exec.Cmd
	start = func() {
		cmd = exec.Command("nats-server-for-tests", port, store)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	stop = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	start()
	t.Cleanup(func() { stop() })
	return "nats://user:hunter2@127.0.0.1:" + port, stop, start
}

// ownNode starts a RabbitMQ node for one test alone, which may stop it.
func ownNode(t *testing.T) (url string, stop, start func()) {
	t.Helper()
	own := node(t.TempDir())
	start = func() { own.script(t, "start") }
	stop = func() { own.script(t, "stop") }
	start()
	t.Cleanup(stop)
	return own.script(t, "url"), stop, start
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

// newVhost returns the URL of a fresh virtual host on the tests' common node,
// so that a test has the queues for itself.
func newVhost(t *testing.T) string {
	t.Helper()
	common.script(t, "start") // unless another test has
	vhost := strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	common.script(t, "ctl", "add_vhost", vhost)
	common.script(t, "ctl", "set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
	return strings.TrimSuffix(common.script(t, "url"), "/") + "/" + vhost
}
