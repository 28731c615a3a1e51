package main

import (
	"flag"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"async-data-processor/faults/rig"
)

// TestMain lets the test binary be the program, too: the scripts and the
// end-to-end tests run it as processes of its own, race detector included.
func TestMain(m *testing.M) {
	// They wait for processes more than they compute.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	testscript.Main(rig.Suite{M: m}, map[string]func(){
		"async-data-processor": program,
		rig.NATSCommand:        rig.NATSServer,
	})
}

func program() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	os.Exit(run(os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr, signals))
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}
