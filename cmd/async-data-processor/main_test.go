package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	stdlog "log"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"async-data-processor/faults/rig"
	"async-data-processor/pipeline"
)

// TestMain lets the test binary be the program, too: the scripts and the
// tests run it as processes of its own, race detector included.
func TestMain(m *testing.M) {
	testscript.Main(rig.Suite{M: m}, map[string]func(){"async-data-processor": main})
}

// runs runs a command to its end, in this process and without variables.
func runs(t *testing.T, want int, args ...string) (out, told string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(args, environment{}.lookup, &stdout, &stderr, nil); code != want {
		t.Errorf("%q: exit %d, want %d; %s%s", args, code, want, &stdout, &stderr)
	}
	return stdout.String(), stderr.String()
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}

// TestExitOfAFailedOutput: that its drain took too long as well is not what a
// supervisor has to hear.
func TestExitOfAFailedOutput(t *testing.T) {
	err := failure{error: errors.Join(pipeline.ErrDrainDeadline, pipeline.ErrOutputFailed), logged: true}
	told := newMessages(io.Discard)
	defer told.Close(time.Minute)
	if code := exitCode(err, told); code != exitFailure {
		t.Errorf("exit %d, want %d", code, exitFailure)
	}
}

// TestSignals: the first one drains, others at the same time mean the same, and a later
// one ends the process. What hangs ends at the limit.
func TestSignals(t *testing.T) {
	const limit = time.Minute
	at := func(s ...time.Duration) []time.Duration { return s }
	for name, tc := range map[string]struct {
		signals []time.Duration // when they come
		drained time.Duration   // when the command ends
		took    time.Duration
		code    int
	}{
		"none":                  {nil, time.Second, time.Second, exitClean},
		"one":                   {at(time.Second), 20 * time.Second, 20 * time.Second, exitClean},
		"process and group":     {at(time.Second, time.Second, 2*time.Second-1), 20 * time.Second, 20 * time.Second, exitClean},
		"a second":              {at(time.Second, 2*time.Second), time.Hour, 2 * time.Second, exitFailure},
		"a third, out of three": {at(time.Second, time.Second, 5*time.Second), time.Hour, 5 * time.Second, exitFailure},
		"it hangs":              {at(time.Second), time.Hour, time.Second + limit, exitDeadline},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				signals, done := make(chan os.Signal, 8), make(chan error, 1)
				for _, after := range tc.signals {
					time.AfterFunc(after, func() { signals <- syscall.SIGTERM })
				}
				time.AfterFunc(tc.drained, func() { done <- nil })
				stops, began := 0, time.Now()
				err := await(done, signals, func() time.Duration {
					stops++
					return limit
				})
				if took := time.Since(began); took != tc.took || stops != min(1, len(tc.signals)) {
					t.Errorf("it took %v and was stopped %d times, want %v", took, stops, tc.took)
				}
				told := newMessages(io.Discard)
				if code := exitCode(err, told); code != tc.code {
					t.Errorf("exit %d (%v), want %d", code, err, tc.code)
				}
				told.Close(time.Minute)
				time.Sleep(2 * time.Hour) // for what is left
			})
		})
	}
}

// TestLimitOfTheDrain: without a command's own time-out there is the default.
func TestLimitOfTheDrain(t *testing.T) {
	told := newMessages(io.Discard)
	defer told.Close(time.Minute)
	if d := told.drainTimeout(); d != pipeline.DefaultConfig().DrainTimeout {
		t.Errorf("%v before a command begins", d)
	}
	cfg := pipeline.DefaultConfig()
	cfg.DrainTimeout = time.Hour
	told.logTo(cfg)
	defer stdlog.SetOutput(os.Stderr)
	if d := told.drainTimeout(); d != time.Hour {
		t.Errorf("%v, want that of the command", d)
	}
	if !errors.Is(errStop, context.Canceled) {
		t.Error("a signal is not told from a failure")
	}
}
