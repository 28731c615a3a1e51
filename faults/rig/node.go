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

// node is a folder of scripts/rabbitmq, which makes it a private RabbitMQ node.
type node string

// common is the node of the package's tests that do not stop theirs. The first
// that needs it starts it, Suite stops it.
var common node

// run runs scripts/rabbitmq on the node.
func (n node) run(args ...string) (string, error) {
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

func (n node) script(t testing.TB, args ...string) string {
	t.Helper()
	out, err := n.run(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// NewVhost returns a fresh virtual host on the package's common node, so that a
// test has the queues for itself. Stopping it would disturb the other tests.
func NewVhost(t testing.TB) Broker {
	t.Helper()
	common.script(t, "start") // unless another test has
	vhost := strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	common.script(t, "ctl", "add_vhost", vhost)
	common.script(t, "ctl", "set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
	url := strings.TrimSuffix(common.script(t, "url"), "/") + "/" + vhost
	return Broker{Server: url, Consumer: url}
}

// NewNode returns a RabbitMQ node that a test may stop.
func NewNode(t testing.TB) Broker {
	t.Helper()
	own := node(t.TempDir())
	b := Broker{
		Start: func() { own.script(t, "start") },
		Stop:  func() { own.script(t, "stop") },
		Stall: func() { own.script(t, "pause") },
	}
	b.Start()
	t.Cleanup(b.Stop)
	b.Server = own.script(t, "url")
	b.Consumer = b.Server
	return b
}
