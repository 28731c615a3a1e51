// Command adp-parquet makes a Parquet file of a published file of async-data-processor: a
// row for each line. It puts that file into a folder, into a store that speaks S3, or
// into both. It is meant as a job that runs "on: file", and works by hand as well.
//
// The result has the name of the file, and appears whole or not at all. A second run
// finds it and succeeds. So a run may be repeated at any time, after whatever crash.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
)

// Exit codes, which the engine of jobs understands; those of sysexits.h.
const (
	exitDone    = 0
	exitFailure = 1  // of this machine, or a refusal of the store: an attempt is spent
	exitLater   = 75 // EX_TEMPFAIL: the store is away, or a disk is full
	exitNever   = 78 // EX_CONFIG: not a file of ours, another result is there, or a wrong command line
)

// memoryLimit is where the garbage collector begins to work harder. About half of it is
// in use.
const memoryLimit = 128 << 20

func main() {
	debug.SetMemoryLimit(memoryLimit)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program.
func run(ctx context.Context, args []string, env func(string) string, stdout, stderr io.Writer) int {
	s, err := parse(args, env, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitDone
	}
	if err == nil {
		err = work(ctx, s, stdout)
	}
	if err != nil {
		fmt.Fprintln(stderr, "adp-parquet:", err)
	}
	return exitCode(err)
}

// work makes the Parquet file and puts it where the settings say.
func work(ctx context.Context, s settings, stdout io.Writer) error {
	in, err := open(s)
	if err != nil {
		return err
	}
	defer in.Close() // only read from: nothing of it can be lost
	var made *result
	if s.out != "" {
		made, err = in.publish(ctx, s.out)
	} else {
		made, err = in.scratch(ctx)
	}
	if err != nil {
		return err
	}
	defer made.Close() // durable, or not needed any more
	fmt.Fprintf(stdout, "%s: %d rows, %d bytes of Parquet", in.name, made.rows, made.size)
	if s.out != "" {
		fmt.Fprintf(stdout, " in %s", filepath.Join(s.out, in.stem+suffix))
	}
	if s.store != nil {
		where, err := s.store.upload(ctx, made, in.stem+suffix)
		if err != nil {
			fmt.Fprintln(stdout)
			return err
		}
		fmt.Fprintf(stdout, " in %s", where)
	}
	fmt.Fprintln(stdout)
	return nil
}

// verdict is an error that says what another try is worth.
type verdict struct {
	error
	code int
}

func (v verdict) Unwrap() error { return v.error }

// later is an error that may be gone at another try.
func later(err error) error { return verdict{err, exitLater} }

// never is an error of every try.
func never(err error) error { return verdict{err, exitNever} }

func exitCode(err error) int {
	v, ok := errors.AsType[verdict](err)
	switch {
	case err == nil:
		return exitDone
	case ok:
		return v.code
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return exitLater
	}
	return exitFailure
}
