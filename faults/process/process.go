// Package process runs the program, and what it needs, for tests and benchmarks.
// What it starts ends with the process that started it, even by kill -9.
package process

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Start starts cmd, and returns a channel that is closed when it has ended. The
// kernel kills it when this process ends, if cmd asks for no other signal.
func Start(cmd *exec.Cmd) (ended <-chan struct{}, err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	if cmd.SysProcAttr.Pdeathsig == 0 {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	started, done := make(chan error), make(chan struct{})
	go func() {
		// The signal comes when the thread ends that has started cmd.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(done)
	}()
	return done, <-started
}

// Process is a running program that logs as ours does.
type Process struct {
	Addr string // its HTTP address, set by Listen
	Log

	cmd    *exec.Cmd
	exited <-chan struct{}
}

// Environment is what every process of ours gets, before the settings, "NAME=value".
func Environment(settings ...string) []string {
	return append([]string{
		"PATH=" + os.Getenv("PATH"),
		"GORACE=atexit_sleep_ms=0", // or the race detector would hold up its end for a second
	}, settings...)
}

// Spawn starts a program with the settings, "NAME=value", as its environment.
func Spawn(settings []string, name string, args ...string) (*Process, error) {
	p := &Process{cmd: exec.Command(name, args...), Log: Log{grown: make(chan struct{})}}
	p.cmd.Env = Environment(settings...)
	p.cmd.Stderr = &p.Log
	// A terminal's Ctrl-C is for this process.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	p.exited, err = Start(p.cmd)
	return p, err
}

// Await returns the first line in the log, old or new, that is as wanted.
func (p *Process) Await(ctx context.Context, what string, wanted func(Line) bool) (Line, error) {
	for seen := 0; ; {
		fresh, grown := p.since(seen)
		for _, l := range fresh {
			if wanted(l) {
				return l, nil
			}
		}
		seen += len(fresh)
		select {
		case <-grown:
		case <-p.exited:
			if fresh, _ := p.since(seen); len(fresh) == 0 {
				return Line{}, p.failure("exit %d before %s", p.Code(), what)
			}
		case <-ctx.Done():
			return Line{}, p.failure("no %s in the log: %w", what, context.Cause(ctx))
		}
	}
}

// failure is an error with the end of the log.
func (p *Process) failure(format string, args ...any) error {
	return fmt.Errorf("%s: "+format+"\n%s", append(append([]any{strings.Join(p.cmd.Args, " ")}, args...), p.Dump())...)
}

// Listen waits until the process listens.
func (p *Process) Listen(ctx context.Context) error {
	l, err := p.Await(ctx, "its address", func(l Line) bool { return l.Addr != "" })
	p.Addr = l.Addr
	return err
}

// Ready waits until the process says that it is.
func (p *Process) Ready(ctx context.Context) error {
	for {
		err := p.NotReady()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-p.exited:
			return p.failure("exit %d before it was ready", p.Code())
		case <-ctx.Done():
			return p.failure("not ready: %w", err)
		}
	}
}

// probe gives up on a process that is stopped.
var probe = http.Client{Timeout: time.Minute}

// NotReady returns why the process is not ready, nil if it is.
func (p *Process) NotReady() error {
	resp, err := probe.Get("http://" + p.Addr + "/readyz?verbose")
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

// Signal sends a signal; one to a process that has ended is lost. After SIGSTOP it waits
// until each thread has stopped: on a busy machine some go on for a while.
func (p *Process) Signal(s syscall.Signal) {
	err := p.cmd.Process.Signal(s)
	for err == nil && s == syscall.SIGSTOP && !p.stopped() {
		time.Sleep(time.Millisecond)
	}
}

// stopped tells whether no thread goes on. One that waits for a disk does not: it stops
// before it returns to the program. See proc_pid_stat(5).
func (p *Process) stopped() bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.PID()))
	for _, path := range stats {
		stat, _ := os.ReadFile(path)
		if _, state, ok := bytes.Cut(stat, []byte(") ")); ok && bytes.IndexByte([]byte("RS"), state[0]) >= 0 {
			return false
		}
	}
	return true
}

// Wait waits for the end and returns the exit code.
func (p *Process) Wait(ctx context.Context) (code int, err error) {
	select {
	case <-p.exited:
		return p.Code(), nil
	case <-ctx.Done():
		return 0, p.failure("it does not exit: %w", context.Cause(ctx))
	}
}

// Kill is kill -9.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.exited
}

// PID is the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Code is the exit code of a process that has ended.
func (p *Process) Code() int { return p.cmd.ProcessState.ExitCode() }

// Usage is what a process takes of the machine.
type Usage struct {
	RSS, Peak int // resident memory and the most there was of it, in KiB
	Anonymous int // of RSS, what is not of a file, in KiB
	Threads   int
}

// UsageOf returns what a process takes now; the zero value if it has ended.
func UsageOf(pid int) (u Usage) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Usage{}
	}
	for line := range strings.Lines(string(status)) {
		name, text, _ := strings.Cut(line, ":")
		field := map[string]*int{"VmRSS": &u.RSS, "VmHWM": &u.Peak, "RssAnon": &u.Anonymous, "Threads": &u.Threads}[name]
		if field != nil {
			fmt.Sscan(text, field)
		}
	}
	return u
}
