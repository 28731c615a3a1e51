package embedded

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// childVariable names what the test binary does instead of testing, so that
// tests have processes that they can kill; childFolder is the folder for it.
const (
	childVariable = "EMBEDDED_TEST_CHILD"
	childFolder   = "EMBEDDED_TEST_FOLDER"
)

// children are the things that it can do.
var children = map[string]func(dir string) error{
	"hold": childHold, "load": childLoad, "stranger": childStranger,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(childVariable); name != "" {
		child, ok := children[name]
		if !ok {
			fmt.Fprintln(os.Stderr, "no child", name)
			os.Exit(2)
		}
		if err := child(os.Getenv(childFolder)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
