package jetstream

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(holderVariable); url != "" {
		holdForEver(url)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if sharedServer.Dir, err = os.MkdirTemp("", "jetstream-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(sharedServer.Dir)
	sharedServer.Config = "max_payload: 8MB" // for what other programs publish
	code := m.Run()
	if sharedServer.Process != nil {
		sharedServer.Kill()
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}
