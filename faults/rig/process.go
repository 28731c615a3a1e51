package rig

import (
	"context"
	"fmt"
	"net/http"
	"syscall"
	"testing"

	"async-data-processor/faults/process"
)

// Process is a running command of the program, which its test waits for.
type Process struct {
	*process.Process
	t testing.TB
}

// Line is a line of a process's log.
type Line = process.Line

// Start runs the program with the settings, "NAME=value", as its environment,
// and waits until it listens. Its ports are free ones.
func Start(t testing.TB, command string, settings ...string) *Process {
	t.Helper()
	p := Spawn(t, command, settings...)
	p.must(p.Listen)
	return p
}

// Spawn is Start for a process that need not come to listen. It has no Addr.
func Spawn(t testing.TB, command string, settings ...string) *Process {
	t.Helper()
	return SpawnWith(t, []string{command}, settings...)
}

// SpawnWith is Spawn of a command with its arguments.
func SpawnWith(t testing.TB, command []string, settings ...string) *Process {
	t.Helper()
	return spawn(t, nil, command, settings...)
}

// spawn is SpawnWith by a command that becomes the program.
func spawn(t testing.TB, by, command []string, settings ...string) *Process {
	t.Helper()
	args := append(append(by, program), command...)
	running, err := process.Spawn(append([]string{
		"LISTEN_ADDR=127.0.0.1:0", "ADMIN_LISTEN_ADDR=127.0.0.1:0", "LOG_LEVEL=debug",
		"GOCOVERDIR=" + t.TempDir(), // or a binary built for coverage would complain
	}, settings...), args[0], args[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{running, t}
	t.Cleanup(func() {
		p.Kill()
		if crash := p.Crash(); crash != "" {
			t.Errorf("%s: %s", command[0], crash)
		}
		if t.Failed() {
			t.Logf("the log of %q:\n%s", command, p.Dump())
		}
	})
	return p
}

// must fails the test if what it does fails, or takes longer than Patience.
func (p *Process) must(do func(context.Context) error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := do(ctx); err != nil {
		p.t.Fatal(err)
	}
}

// Ready waits until the process says that it is.
func (p *Process) Ready() *Process {
	p.t.Helper()
	p.must(p.Process.Ready)
	return p
}

// Await returns the first line in the log, old or new, that is as wanted.
func (p *Process) Await(what string, wanted func(Line) bool) (l Line) {
	p.t.Helper()
	p.must(func(ctx context.Context) (err error) {
		l, err = p.Process.Await(ctx, what, wanted)
		return err
	})
	return l
}

// AwaitShards waits until a consumer owns so many shards.
func (p *Process) AwaitShards(shards int) {
	p.t.Helper()
	for n := range shards {
		p.Await("its shards", func(l Line) bool { return l.Message == "shard owned" && l.Shard == n })
	}
}

// Stop sends SIGTERM and returns the exit code.
func (p *Process) Stop() int {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	return p.Wait()
}

// Wait waits for the end and returns the exit code.
func (p *Process) Wait() (code int) {
	p.t.Helper()
	p.must(func(ctx context.Context) (err error) {
		code, err = p.Process.Wait(ctx)
		return err
	})
	return code
}

// Usage returns what the process takes now; the zero value if it has ended.
func (p *Process) Usage() process.Usage { return process.UsageOf(p.PID()) }

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
