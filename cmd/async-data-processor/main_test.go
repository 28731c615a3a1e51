package main

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"async-data-processor/faults/rig"
	"async-data-processor/pipeline"
)

// TestMain lets the test binary be the program, too: the scripts and the
// tests run it as processes of its own, race detector included.
func TestMain(m *testing.M) {
	testscript.Main(rig.Suite{M: m}, map[string]func(){"async-data-processor": program})
}

func program() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	os.Exit(run(os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr, signals))
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}

// TestExitOfAFailedOutput: that its drain took too long as well is not what a
// supervisor has to hear.
func TestExitOfAFailedOutput(t *testing.T) {
	err := failure{errors.Join(pipeline.ErrDrainDeadline, pipeline.ErrOutputFailed), true}
	if code := exitCode(err, io.Discard); code != exitFailure {
		t.Errorf("exit %d, want %d", code, exitFailure)
	}
}
