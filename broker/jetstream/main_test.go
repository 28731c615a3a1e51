package jetstream

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// childVariable names what the test binary does instead of testing, so that
// tests have processes that they can stop and kill.
const childVariable = "JETSTREAM_TEST_CHILD"

// children are the things that it can do; they return the exit code.
var children = map[string]func() int{"server": serve}

func TestMain(m *testing.M) {
	if name := os.Getenv(childVariable); name != "" {
		child, ok := children[name]
		if !ok {
			fmt.Fprintln(os.Stderr, "no child", name)
			os.Exit(2)
		}
		os.Exit(child())
	}
	code := m.Run()
	sharedServer.close()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
