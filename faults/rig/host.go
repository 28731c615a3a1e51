package rig

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"async-data-processor/faults/process"
)

// Host is another machine as far as the network goes: a network namespace with one link to
// this one. Its processes share the file system.
type Host struct {
	t    testing.TB
	pid  string // of the process that keeps the namespace
	link string // the end of the link on this side
	// Here is the address of the link on this side, there on the other one.
	Here, there string
}

// NewHost makes a Host, which ends with the test. It needs root.
func NewHost(t testing.TB) *Host {
	t.Helper()
	keeper := exec.Command("sleep", "infinity")
	keeper.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	ended, err := process.Start(keeper)
	if errors.Is(err, syscall.EPERM) {
		t.Skipf("run this test as root: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = keeper.Process.Kill() // the namespace, and the link, end with it and its processes
		<-ended
	})
	pid := keeper.Process.Pid
	// 198.18.0.0/15 is for tests of networks (RFC 2544): four addresses for each Host.
	base := pid % (1 << 15) * 4
	address := func(n int) string { return fmt.Sprintf("198.%d.%d.%d", 18+base>>16, base>>8&255, base&255+n) }
	h := &Host{t: t, pid: strconv.Itoa(pid), link: fmt.Sprint("adp", pid), Here: address(1), there: address(2)}
	h.do("ip", "link", "add", h.link, "type", "veth", "peer", "name", "eth0", "netns", h.pid)
	h.do("ip", "addr", "add", h.Here+"/30", "dev", h.link)
	h.do("ip", "link", "set", h.link, "up")
	h.inside("ip", "link", "set", "lo", "up")
	h.inside("ip", "addr", "add", h.there+"/30", "dev", "eth0")
	h.inside("ip", "link", "set", "eth0", "up")
	return h
}

// do runs a command on this side.
func (h *Host) do(command ...string) {
	h.t.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		h.t.Fatalf("%s: %v: %s", strings.Join(command, " "), err, out)
	}
}

// inside runs a command on the other side.
func (h *Host) inside(command ...string) {
	h.t.Helper()
	h.do(append(h.enter(), command...)...)
}

func (h *Host) enter() []string { return []string{"nsenter", "--target", h.pid, "--net"} }

// LaunchConsumer starts a message-consumer on the other side, and waits until it is ready.
// The broker has to be at Here.
func (h *Host) LaunchConsumer(brokerURL string, settings ...string) *Process {
	h.t.Helper()
	p := spawn(h.t, h.enter(), []string{"message-consumer"}, append(settings,
		"BROKER_URL="+brokerURL, "ADMIN_LISTEN_ADDR="+net.JoinHostPort(h.there, "0"), "INSECURE_NO_AUTH=true")...)
	p.must(p.Listen)
	return p.Ready()
}

// bogus is an address that no network card has: frames to it are dropped.
const bogus = "02:00:00:00:00:01"

// Cut has the link drop everything, without a word to either side, until Heal.
func (h *Host) Cut() {
	h.t.Helper()
	h.do("ip", "neigh", "replace", h.there, "lladdr", bogus, "dev", h.link, "nud", "permanent")
	h.inside("ip", "neigh", "replace", h.Here, "lladdr", bogus, "dev", "eth0", "nud", "permanent")
}

// Heal mends the link.
func (h *Host) Heal() {
	h.t.Helper()
	h.do("ip", "neigh", "del", h.there, "dev", h.link)
	h.inside("ip", "neigh", "del", h.Here, "dev", "eth0")
}
