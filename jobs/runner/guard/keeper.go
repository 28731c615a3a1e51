package guard

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// killAgain is how often SIGKILL is sent, to what was forked meanwhile, too.
	killAgain = 20 * time.Millisecond
	// look is how often the clock is looked at: a timer does not count the time that the
	// machine was suspended.
	look = time.Second
	// containerLinger is how long what an engine has started may clean up after itself.
	containerLinger = 5 * time.Second
)

// keeper is a guard at work. One goroutine uses it.
type keeper struct {
	spec    Spec
	signals <-chan os.Signal
	orders  chan Order // closed when the runner has died

	fence, kill int64 // see Order

	pid      int  // of the process, 0 before its start
	exited   bool // the process has, report has how
	timeout  int64
	lingers  int64 // when what the process has left is ended, 0 while there is a process
	ending   bool
	forced   int64 // when SIGKILL is sent, while ending
	leftTold bool  // SIGTERM was sent to what the process has left
	report   Report
}

// run runs the process, until it and all that it has started have ended.
func (g *keeper) run() Report {
	c := g.spec.Container
	if c != nil {
		defer os.Remove(c.EnvFile)
		c.forget() // what is left of one that was killed with its guard and its runner
	}
	switch {
	case g.spec.End != "":
		return Report{Cause: g.spec.End}
	case g.passed(g.fence): // no process began, so no attempt is spent
		return Report{Fault: "the time of its lease was over before it could start"}
	}
	if err := g.start(); err != nil {
		return Report{Fault: err.Error()}
	}
	g.timeout = Now() + int64(g.spec.Timeout)
	for !g.reap() {
		select {
		case <-g.signals:
		case o, ok := <-g.orders:
			g.obey(o, ok)
		case <-time.After(g.pause()):
		}
		g.act()
	}
	if c != nil && (g.report.Cause != "" || g.report.Signal != 0) {
		g.report.Left = c.Remove()
	}
	return g.report
}

// start starts the process in a group of its own.
func (g *keeper) start() error {
	env := g.spec.Env
	if env == nil {
		env = os.Environ()
	}
	for _, variable := range env {
		if path, ok := strings.CutPrefix(variable, "PATH="); ok {
			os.Setenv("PATH", path) // the job's own decides what its command is
		}
	}
	path, err := exec.LookPath(g.spec.Args[0])
	if err != nil {
		return err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	g.pid, err = syscall.ForkExec(path, g.spec.Args, &syscall.ProcAttr{
		Env: env, Files: []uintptr{null.Fd(), 1, 2},
		Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL},
	})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// obey takes an order. Without one, the runner has died.
func (g *keeper) obey(o Order, ok bool) {
	if !ok {
		g.orders = nil
		g.end(Orphaned, g.spec.Grace)
		return
	}
	if o.Fence != 0 {
		g.fence, g.kill = o.Fence, o.Kill
	}
	if o.End != "" {
		g.end(o.End, min(o.Within, g.spec.Grace))
	}
}

// act does what is due.
func (g *keeper) act() {
	switch {
	case g.passed(g.fence):
		g.end(Fenced, g.spec.Grace)
	case !g.exited && g.passed(g.timeout):
		g.end(TimedOut, g.spec.Grace)
	case g.exited && g.passed(g.lingers) && !g.leftTold:
		g.leftTold = true
		g.signal(unix.SIGTERM)
		if !g.ending {
			g.ending, g.forced = true, Now()+int64(g.spec.Grace)
		}
	}
	if g.ending && (g.passed(g.forced) || g.passed(g.kill)) {
		g.signal(unix.SIGKILL)
		g.forced = Now()
	}
}

// end begins to end all that runs. What has ended by itself has no cause.
func (g *keeper) end(cause Cause, grace time.Duration) {
	g.reap() // it may have ended just now
	forced := Now() + int64(grace)
	if g.ending {
		g.forced = min(g.forced, forced) // the order may be more urgent
		return
	}
	if !g.exited {
		g.report.Cause = cause
	}
	g.ending, g.forced = true, forced
	g.signal(unix.SIGTERM)
	g.signal(unix.SIGCONT) // or what is stopped would not see the other
}

// pause is how long there is nothing to do.
func (g *keeper) pause() time.Duration {
	if g.ending && g.passed(min(g.forced, g.kill)) {
		return killAgain
	}
	next := Now() + int64(look)
	for _, t := range []int64{g.fence, g.kill, g.timeout, g.forced, g.lingers} {
		if t > Now() {
			next = min(next, t)
		}
	}
	return time.Duration(max(next-Now(), int64(time.Millisecond)))
}

func (g *keeper) passed(t int64) bool { return t != 0 && Now() >= t }

// reap takes note of what has ended, and returns whether that is all.
func (g *keeper) reap() (all bool) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return true // ECHILD: there is no descendant left
		case pid == 0:
			return false
		case pid == g.pid:
			g.exited = true
			g.lingers = Now()
			if g.spec.Container != nil {
				g.lingers += int64(containerLinger)
			}
			g.report.Exit = status.ExitStatus()
			if status.Signaled() {
				g.report.Signal = status.Signal()
				g.report.Exit = 128 + int(status.Signal()) // as shells say it
			}
		}
	}
}

// signal sends a signal to what runs. Other signals than SIGKILL reach the group of the
// process while that is there: what is beyond it has its own way to hear of the end.
func (g *keeper) signal(s syscall.Signal) {
	if !g.exited {
		_ = unix.Kill(-g.pid, s) // the group may be another one by now
		if s != unix.SIGKILL {
			return
		}
	}
	for _, pid := range Descendants(os.Getpid(), nil) {
		_ = unix.Kill(pid, s) // it may have ended
	}
}
