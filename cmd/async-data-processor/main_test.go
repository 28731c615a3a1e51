package main

import (
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

// nodeDir is the folder of a RabbitMQ node for the end-to-end tests alone,
// which stop and start it. The first test that needs it starts it.
var nodeDir string

// suite runs the tests and stops the node that they may have started.
type suite struct{ *testing.M }

func (s suite) Run() int {
	var err error
	if nodeDir, err = os.MkdirTemp("", "adp-node"); err != nil {
		panic(err)
	}
	defer os.RemoveAll(nodeDir)
	code := s.M.Run()
	stop := exec.Command("../../scripts/rabbitmq", "stop")
	stop.Env = append(os.Environ(), "RABBITMQ_DIR="+nodeDir)
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
