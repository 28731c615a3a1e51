// Package guard keeps a process of a job from outliving its lease. A guard is a process
// of its own between a runner and the job's process. It gets its orders from the runner
// by a pipe, and ends the job's process, with all that it has started, when
//
//   - the pipe closes, because the runner was killed,
//   - the deadline passes that the runner renews with its lease, because the runner was
//     stopped or is cut off,
//   - the time-out of the job passes, or the runner orders it.
//
// It sends SIGTERM, waits for the grace, and sends SIGKILL. All of that is over when the
// lease ends. The guard is the reaper of all descendants, so none leaves it by a fork or
// by a session of its own. If the guard is killed, the kernel kills the job's process, and
// its descendants become children of the runner.
package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Arg is the first argument of a guard. The program has to call Main then, from its main
// goroutine.
const Arg = "runner-guard"

// The file descriptors of a guard. What it and the process print goes to 1 and 2.
const (
	ordersFD  = 3 // it reads a Spec and then Orders, as JSON
	reportsFD = 4 // it writes a Report, as JSON
)

// Spec says what a guard runs.
type Spec struct {
	Args []string
	// Env is the environment; nil is the guard's own.
	Env []string
	// Timeout bounds the process. Grace is the time between SIGTERM and SIGKILL.
	Timeout, Grace time.Duration
	// Container, unless nil, is what Args run.
	Container *Container
	Order
}

// Container is a container that Args, the command line of its engine, run.
type Container struct {
	Engine, Name string
	// EnvFile is removed at the end.
	EnvFile string
}

// Order tells a guard of a renewed lease, or to end the process.
type Order struct {
	// Fence is when the guard begins to end the process, and Kill when it sends SIGKILL at
	// the latest, on the clock of Now. Zero changes nothing.
	Fence, Kill int64 `json:",omitempty"`
	// End, unless empty, is why to end the process now, with at most Within as grace.
	End    Cause         `json:",omitempty"`
	Within time.Duration `json:",omitempty"`
}

// Cause is why a process was ended; empty if it ended by itself.
type Cause string

// Causes that a guard finds itself.
const (
	TimedOut Cause = "timed-out"
	Fenced   Cause = "fenced"
	Orphaned Cause = "orphaned" // the runner has died, and gets no Report
)

// Report is how a process ended. Nothing of it runs any more.
type Report struct {
	Cause Cause `json:",omitempty"`
	// Exit is the exit code, and Signal the signal that killed the process, or 0.
	Exit   int
	Signal syscall.Signal
	// Fault is why the process could not be started; empty if it was.
	Fault string `json:",omitempty"`
	// Left is why something of a container may be left; empty if not.
	Left string `json:",omitempty"`
}

// Now is the clock of the deadlines, in nanoseconds since the system was started. It also
// counts the time that the machine was suspended, and is the same for all processes.
func Now() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) // Linux has it since 2.6.39
	return t.Nano()
}

// Hide keeps the environment, the memory and the open files of this process from the other
// processes of its user (proc(5), ptrace(2)). A job is one of them. It does not hide from root.
func Hide() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hide the process from those of its user: %w", err)
	}
	return nil
}

// Main is the program of a guard. It returns the exit code.
func Main() int {
	// The kernel kills the process when the thread that has started it ends.
	runtime.LockOSThread()
	runtime.GOMAXPROCS(1)
	if err := guard(); err != nil {
		fmt.Fprintln(os.Stderr, "runner-guard:", err)
		return 1
	}
	return 0
}

func guard() error {
	orders, reports := os.NewFile(ordersFD, "orders"), os.NewFile(reportsFD, "reports")
	if orders == nil || reports == nil {
		return errors.New("only a runner starts this command")
	}
	_ = os.WriteFile("/proc/self/comm", []byte("adp-guard"), 0) // only for people who look
	if err := Hide(); err != nil {
		return err
	}
	unix.CloseOnExec(ordersFD)
	unix.CloseOnExec(reportsFD)
	// Signals of a terminal or a supervisor are for the runner, which says what becomes of
	// the process. They are caught, not ignored, since the process would inherit that.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper of the process's descendants: %w", err)
	}
	in := json.NewDecoder(orders)
	g := &keeper{signals: signals, orders: make(chan Order)}
	if err := in.Decode(&g.spec); err != nil {
		return fmt.Errorf("read what to run: %w", err)
	}
	g.fence, g.kill = g.spec.Fence, g.spec.Kill
	go func() {
		defer close(g.orders)
		for {
			var o Order
			if err := in.Decode(&o); err != nil {
				return // the runner has died
			}
			g.orders <- o
		}
	}()
	report := g.run()
	if err := json.NewEncoder(reports).Encode(report); err != nil && !errors.Is(err, unix.EPIPE) {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// New returns a guard that is to be started, and is this program, too. It prints, as its
// process does, to out. It ends its process when orders closes, a pipe of JSON with a Spec
// and then Orders, and writes a Report to reports. The title is for people.
func New(title string, out, orders, reports *os.File) *exec.Cmd {
	return &exec.Cmd{
		Path: "/proc/self/exe", // also when the file has been replaced by a later version
		Args: []string{filepath.Base(os.Args[0]), Arg, title},
		// Out of reach of a terminal's Ctrl-C.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
		Stdout:      out, Stderr: out, ExtraFiles: []*os.File{orders, reports},
	}
}

// ReadReport reads what a guard has to say. An error says that the guard was killed.
func ReadReport(r io.Reader) (report Report, err error) {
	err = json.NewDecoder(r).Decode(&report)
	return report, err
}
