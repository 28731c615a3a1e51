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
	"syscall"

	"async-data-processor/pipeline"
)

// Exit codes; they are part of the contract of the command line.
const (
	exitClean    = 0
	exitFailure  = 1
	exitUsage    = 2 // the command line or the configuration
	exitDeadline = 3 // the drain took too long
)

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	os.Exit(run(os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr, signals))
}

// errStop is why intake ends on a signal.
var errStop = fmt.Errorf("stopped by a signal: %w", context.Canceled)

// run is the program. The first signal drains it, the second one ends it.
func run(args []string, lookup lookupEnv, stdout, stderr io.Writer, signals <-chan os.Signal) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	root := newRoot(lookup)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)

	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(ctx) }()
	for count := 0; ; {
		select {
		case err := <-done:
			return exitCode(err, stderr)
		case s := <-signals:
			if count++; count > 1 {
				fmt.Fprintf(stderr, "Error: second signal (%v), stopped at once; what was not finished stays with the broker\n", s)
				return exitFailure
			}
			cancel(errStop)
		}
	}
}

// exitCode tells an error that is not in the log yet.
func exitCode(err error, stderr io.Writer) int {
	f, understood := errors.AsType[failure](err)
	if err != nil && !f.logged {
		fmt.Fprintln(stderr, "Error:", err)
	}
	switch {
	case err == nil:
		return exitClean
	case errors.Is(err, pipeline.ErrOutputFailed):
		return exitFailure // however the drain behind it went
	case errors.Is(err, pipeline.ErrDrainDeadline):
		return exitDeadline
	case understood:
		return exitFailure
	}
	return exitUsage // found before the command began
}

// failure is an error of a command that was understood.
type failure struct {
	error
	logged bool
}

func (f failure) Unwrap() error { return f.error }
