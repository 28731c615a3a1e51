// Command async-data-processor is an ingestion pipeline: it takes JSON over
// HTTP, queues it durably and writes it to files, each accepted entry once.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"async-data-processor/jobs/runner/guard"
	"async-data-processor/pipeline"
)

// Exit codes; they are part of the contract of the command line.
const (
	exitClean    = 0
	exitFailure  = 1
	exitUsage    = 2 // the command line or the configuration
	exitDeadline = 3 // the drain took too long
)

// Linux hands a signal to the first thread if that takes any, and one that waits for a
// disk does not act on it (complete_signal in kernel/signal.c). So the first thread runs
// main alone, which only waits.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) > 1 && os.Args[1] == guard.Arg { // there is one for each job that runs
		os.Exit(guard.Main())
	}
	os.Exit(run(os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr, caught()))
}

// caught returns the signals that stop the process. One that it was started to ignore,
// as by nohup, stays ignored if it is the end of a terminal.
func caught() <-chan os.Signal {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	return signals
}

const (
	// together is how long after the first signal another one means the same: a
	// supervisor may signal the process and its group.
	together = time.Second
	// overtime is what the drain gets beyond its time-out. The pipeline gives up in
	// less, by itself, unless the kernel holds up what it waits for.
	overtime = 3500 * time.Millisecond
	// lastWords is how long the end waits for stderr to take what is left.
	lastWords = 500 * time.Millisecond
)

// errStop is why intake ends on a signal.
var errStop = fmt.Errorf("stopped by a signal: %w", context.Canceled)

// run is the program.
func run(args []string, lookup lookupEnv, stdout, stderr io.Writer, signals <-chan os.Signal) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	told := newMessages(stderr)
	defer told.Close(lastWords)
	root := newRoot(lookup, told)
	root.SetArgs(args)
	out := &results{Writer: stdout}
	root.SetOut(out)
	root.SetErr(told)

	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(ctx) }()
	err := await(done, signals, func() time.Duration {
		cancel(errStop)
		return told.drainTimeout() + overtime
	})
	return exitCode(out.printed(err), told)
}

// results is stdout. A command whose results did not get there has failed, whatever
// printed them: cobra, for example, drops the errors of its own help.
type results struct {
	io.Writer
	err error // the first one; read only if the command has ended
}

// printed returns the error of a command whose own is err.
func (r *results) printed(err error) error {
	_, understood := errors.AsType[failure](err)
	if understood || err == nil && r.err == nil || err != nil && !errors.Is(err, r.err) {
		return err
	}
	return failure{error: fmt.Errorf("print to stdout: %w", r.err)}
}

func (r *results) Write(p []byte) (int, error) {
	n, err := r.Writer.Write(p)
	if r.err == nil {
		r.err = err
	}
	return n, err
}

// await returns the error of done. The first signal calls stop, and then the process
// ends when that says, whatever hangs. Another signal, a while later, ends it at once.
func await(done <-chan error, signals <-chan os.Signal, stop func() (limit time.Duration)) error {
	var first time.Time
	var deadline <-chan time.Time
	for {
		select {
		case err := <-done:
			return err
		case <-deadline:
			return failure{error: pipeline.ErrDrainDeadline}
		case s := <-signals:
			switch {
			case first.IsZero():
				first, deadline = time.Now(), time.After(stop())
			case time.Since(first) >= together:
				return failure{error: fmt.Errorf("second signal (%v), stopped at once; what was not finished stays with the broker", s)}
			}
		}
	}
}

// exitCode tells an error that is not in the log yet.
func exitCode(err error, told *messages) int {
	f, understood := errors.AsType[failure](err)
	if err != nil && !f.logged {
		told.fail(err)
	}
	switch {
	case err == nil:
		return exitClean
	case errors.Is(err, pipeline.ErrOutputFailed):
		return exitFailure // however the drain behind it went
	case errors.Is(err, pipeline.ErrDrainDeadline):
		return exitDeadline
	case understood && f.code != 0:
		return f.code
	case understood:
		return exitFailure
	}
	return exitUsage // found before the command began
}

// failure is an error of a command that was understood.
type failure struct {
	error
	logged bool
	code   int // the exit code; 0 for exitFailure
}

func (f failure) Unwrap() error { return f.error }
