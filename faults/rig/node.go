package rig

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Node is a folder of scripts/rabbitmq, which makes it a private RabbitMQ node.
type Node string

// common is the node of the package's tests that do not stop theirs. The first
// that needs it starts it, Suite stops it.
var common Node

// StartNode starts a RabbitMQ node that a test may stop.
func StartNode(t testing.TB) Node {
	t.Helper()
	n := Node(t.TempDir())
	t.Cleanup(func() { n.Do(t, "stop") })
	n.Do(t, "start")
	return n
}

// Do runs scripts/rabbitmq on the node and returns what it prints.
func (n Node) Do(t testing.TB, args ...string) string {
	t.Helper()
	out, err := n.run(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (n Node) run(args ...string) (string, error) {
	root, err := repository()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(filepath.Join(root, "scripts", "rabbitmq"), args...)
	cmd.Env = append(os.Environ(), "RABBITMQ_DIR="+string(n))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second // the node it starts inherits the pipe
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("scripts/rabbitmq %s: %w\n%s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(out)), nil
}

// Vhost returns a fresh virtual host, so that a test has the queues for itself.
func (n Node) Vhost(t testing.TB) Broker {
	t.Helper()
	vhost := strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	n.Do(t, "ctl", "add_vhost", vhost)
	n.Do(t, "ctl", "set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
	url := strings.TrimSuffix(n.Do(t, "url"), "/") + "/" + vhost
	return Broker{Server: url, Consumer: url}
}

// NewVhost returns a fresh virtual host on the package's common node. Stopping
// that would disturb the other tests.
func NewVhost(t testing.TB) Broker {
	t.Helper()
	common.Do(t, "start") // unless another test has
	return common.Vhost(t)
}

// NewNode returns a RabbitMQ node that a test may stop.
func NewNode(t testing.TB) Broker {
	t.Helper()
	n := StartNode(t)
	url := n.Do(t, "url")
	return Broker{
		Server: url, Consumer: url,
		Start: func() { n.Do(t, "start") },
		Stop:  func() { n.Do(t, "stop") },
		Stall: func() { n.Do(t, "pause") },
	}
}
