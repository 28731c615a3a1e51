package faults

import (
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"async-data-processor/broker/brokertest"
	"async-data-processor/faults/process"
	"async-data-processor/faults/rig"
)

// TestListen has one program send a beep every 200 ms, and others print them, while what
// carries them goes and comes back. The one of RabbitMQ is in TestRabbitMQ.
func TestListen(t *testing.T) {
	on(t, "broker restarted under listen", func(c *campaign) {
		stop, start := c.Stop, c.Broker.Start
		if stop == nil { // the broker is in the process
			stop, start = func() { c.kill(c.server) }, func() {}
		}
		listening(c, stop, start)
	}, embedded, jetstream)
}

// listening checks that each beep is printed by each listener, once, and that all of
// them go on by themselves after stop and start.
func listening(c *campaign, stop, start func()) {
	c.up()
	processes := []*brokertest.Proxy{brokertest.NewProxy(c, c.server.Addr), brokertest.NewProxy(c, c.consumer.Addr)}
	var listeners []*tool
	for i := range 4 {
		listeners = append(listeners, startTool(c, "listen", "http://"+processes[i%2].Addr()))
	}
	sender := startTool(c, "send", "http://"+processes[0].Addr(), "--every", "200ms")
	beeps := func(more int) {
		c.Helper()
		last := 0
		for n := range sender.beeps(`^beep (\d+): accepted`) {
			last = max(last, n)
		}
		rig.Eventually(c, "beeps at all listeners", func() error {
			for _, l := range listeners {
				after := 0
				for n := range l.beeps(`"beep (\d+)"`) {
					if n > last {
						after++
					}
				}
				if after < more {
					return fmt.Errorf("%d beeps after number %d, want %d; listen says %q", after, last, more, &l.stderr)
				}
			}
			return nil
		})
	}
	beeps(5)
	for range either(1, 20) {
		stop()
		c.moment(2 * time.Second)
		start()
		c.up()
		processes[0].Aim(c.server.Addr)
		processes[1].Aim(c.consumer.Addr)
		beeps(10)
		c.cycle()
	}
	if code := sender.end(); code != 0 {
		c.Errorf("send: exit %d: %s", code, &sender.stderr)
	}
	sent := sender.beeps(`^beep (\d+): accepted`)
	c.accepted = len(sent)
	for _, l := range listeners {
		l.complete(sent)
		if code := l.end(); code != 0 {
			c.Errorf("listen: exit %d: %s", code, &l.stderr)
		}
	}
	c.stop()
}

// complete waits until each beep since the first one is printed, once; unless some were
// missed, and the listener says so.
func (p *tool) complete(sent map[int]int) {
	p.c.Helper()
	rig.Eventually(p.c, "every beep", func() error {
		seen := p.beeps(`"beep (\d+)"`)
		first := 0
		for n, times := range seen {
			if times != 1 {
				p.c.Fatalf("beep %d was printed %d times; listen says %q", n, times, &p.stderr)
			}
			if first == 0 || n < first {
				first = n
			}
		}
		for n := range sent {
			if n > first && seen[n] == 0 && !strings.Contains(p.stderr.String(), "not shown") {
				return fmt.Errorf("beep %d is missing, the first was %d; listen says %q", n, first, &p.stderr)
			}
		}
		return nil
	})
}

// tool is a command of ours that runs until it gets SIGINT.
type tool struct {
	c     *campaign
	cmd   *exec.Cmd
	ended <-chan struct{}

	stdout, stderr printed
}

// printed is what a process has printed so far.
type printed struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (p *printed) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(text)
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

func startTool(c *campaign, args ...string) *tool {
	c.Helper()
	p := &tool{c: c, cmd: exec.Command("async-data-processor", args...)}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.cmd.Dir = c.TempDir() // without a store
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if p.ended, err = process.Start(p.cmd); err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGKILL)
		<-p.ended
	})
	return p
}

// beeps counts how often each number was printed in whole lines.
func (p *tool) beeps(pattern string) map[int]int {
	seen, number := make(map[int]int), regexp.MustCompile(pattern)
	for line := range strings.Lines(p.stdout.String()) {
		if found := number.FindStringSubmatch(line); found != nil && strings.HasSuffix(line, "\n") {
			var n int
			_, _ = fmt.Sscan(found[1], &n)
			seen[n]++
		}
	}
	return seen
}

// end sends SIGINT, and returns the exit code.
func (p *tool) end() int {
	p.c.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-p.ended:
	case <-time.After(rig.Patience):
		p.c.Fatalf("%s does not end; it says\n%s", strings.Join(p.cmd.Args, " "), &p.stderr)
	}
	return p.cmd.ProcessState.ExitCode()
}
