package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the test binary be the program, too: the scripts and the
// end-to-end tests run it as processes of its own, race detector included.
func TestMain(m *testing.M) {
	testscript.Main(suite{m}, map[string]func(){
		"async-data-processor":  program,
		"nats-server-for-tests": natsServer,
	})
}

// common is a RabbitMQ node for the end-to-end tests alone. The first test that
// needs it starts it.
var common node

// suite runs the tests and stops the node that they may have started.
type suite struct{ *testing.M }

func (s suite) Run() int {
	dir, err := os.MkdirTemp("", "adp-node")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	common = node(dir)
	// They wait for processes more than they compute.
	if err := flag.Set("test.parallel", "6"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := s.M.Run()
	stop := exec.Command("../../scripts/rabbitmq", "stop")
	stop.Env = append(os.Environ(), "RABBITMQ_DIR="+dir)
	if out, err := stop.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "scripts/rabbitmq stop: %v\n%s", err, out)
		return 1
	}
	return code
}

func program() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	os.Exit(run(os.Args[1:], os.LookupEnv, os.Stdout, os.Stderr, signals))
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}
