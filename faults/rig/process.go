package rig

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Process is a running command of the program.
type Process struct {
	Addr string // its HTTP address

	t   testing.TB
	cmd *exec.Cmd
	log log

	exited chan struct{} // closed when it has ended and everything is read
	code   int           // set before exited is closed
}

// Start runs the program with the settings, "NAME=value", as its environment,
// and waits until it listens. Its ports are free ones.
func Start(t testing.TB, command string, settings ...string) *Process {
	t.Helper()
	p := Spawn(t, command, settings...)
	p.Await("its address", func(l Line) bool {
		if l.Addr != "" {
			p.Addr = l.Addr
		}
		return l.Addr != ""
	})
	return p
}

// Spawn is Start for a process that need not come to listen. It has no Addr.
func Spawn(t testing.TB, command string, settings ...string) *Process {
	t.Helper()
	p := &Process{t: t, cmd: exec.Command(program, command), log: log{grown: make(chan struct{})}, exited: make(chan struct{})}
	p.cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "LISTEN_ADDR=127.0.0.1:0", "ADMIN_LISTEN_ADDR=127.0.0.1:0", "LOG_LEVEL=debug",
		"GOCOVERDIR=" + t.TempDir(), // or a binary built for coverage would complain
	}, settings...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.log.read(stderr)
		_ = p.cmd.Wait()
		p.code = p.cmd.ProcessState.ExitCode()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.Kill()
		if crash := p.log.crash(); crash != "" {
			t.Errorf("%s: %s", command, crash)
		}
		if t.Failed() {
			t.Logf("the log of %s:\n%s", command, p.Dump())
		}
	})
	return p
}

// Ready waits until the process says that it is.
func (p *Process) Ready() *Process {
	p.t.Helper()
	Eventually(p.t, "being ready", p.NotReady)
	return p
}

// NotReady returns why the process is not ready, nil if it is.
func (p *Process) NotReady() error {
	resp, err := http.Get("http://" + p.Addr + "/readyz?verbose")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: %s", resp.Status, body)
	}
	return nil
}

// Signal sends a signal; one to a process that has ended is lost.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
}

// Stop sends SIGTERM and returns the exit code.
func (p *Process) Stop() int {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	return p.Wait()
}

// Listening returns a channel that is closed when the process of Spawn has its
// address, and Addr is set. It must be asked for once.
func (p *Process) Listening() <-chan struct{} {
	listening := make(chan struct{})
	go func() {
		for seen := 0; ; {
			p.log.mu.Lock()
			fresh, grown := p.log.lines[seen:], p.log.grown
			p.log.mu.Unlock()
			for _, l := range fresh {
				if l.Addr != "" {
					p.Addr = l.Addr
					close(listening)
					return
				}
			}
			seen += len(fresh)
			select {
			case <-grown:
			case <-p.exited:
				return
			}
		}
	}()
	return listening
}

// PID is the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Wait waits for the end and returns the exit code.
func (p *Process) Wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(Patience):
		p.t.Fatalf("it does not exit:\n%s", p.Dump())
	}
	return p.code
}

// Kill is kill -9.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// Usage is what a process takes of the machine.
type Usage struct {
	RSS, Peak int // resident memory and the most there was of it, in KiB
	Threads   int
}

// Usage returns what the process takes now; the zero value if it has ended.
func (p *Process) Usage() (u Usage) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return Usage{}
	}
	for line := range strings.Lines(string(status)) {
		name, text, _ := strings.Cut(line, ":")
		field := map[string]*int{"VmRSS": &u.RSS, "VmHWM": &u.Peak, "Threads": &u.Threads}[name]
		if field != nil {
			fmt.Sscan(text, field)
		}
	}
	return u
}

// Goroutines is how many the process has. It must run with PPROF=true.
func (p *Process) Goroutines() (n int) {
	p.t.Helper()
	resp, err := http.Get("http://" + p.Addr + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := fmt.Fscanf(resp.Body, "goroutine profile: total %d", &n); err != nil {
		p.t.Fatalf("%s: %v", resp.Status, err)
	}
	return n
}
