package rabbitmq

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestGuard: a node that begins slowly, and is not yet the leader of its process group when
// its guard begins, does not outlive its owner.
func TestGuard(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ports"), []byte("node=x amqp_port=1 dist_port=1 epmd_port=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	begin := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "RABBITMQ_DIR="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	owner := begin("sleep", "1000")
	node := begin("sh", "-c", "sleep 1; exec setsid sleep 60")
	guard := begin(script, "guard", strconv.Itoa(node.Process.Pid), strconv.Itoa(owner.Process.Pid))
	for group := 0; group != node.Process.Pid; time.Sleep(10 * time.Millisecond) {
		var err error
		if group, err = unix.Getpgid(node.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
	if err := owner.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = owner.Wait() // the signal
	if err := guard.Wait(); err != nil {
		t.Error("guard:", err)
	}
	if err := node.Wait(); err == nil {
		t.Error("the node has outlived its owner")
	}
}
