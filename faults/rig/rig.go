// Package rig runs the program as its users do, as processes of its own over
// real brokers, and looks at what they leave behind. It is for tests.
//
// The program is the "async-data-processor" of the PATH: the tests of the
// command put their own binary there, Build compiles one.
package rig

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"async-data-processor/faults/process"
)

// program is the command that Start runs.
const program = "async-data-processor"

// Patience bounds every wait of the end-to-end tests. It is no expectation of
// speed: only a test that hangs uses it up, on a machine however busy.
const Patience = 5 * time.Minute

// Lease is how long attempts of jobs belong to a runner that does not renew them. Users
// have a longer one.
const Lease = 6 * time.Second

// Eventually polls until check returns nil.
func Eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Suite runs the tests of a package, and stops the RabbitMQ node that they
// may have started for their virtual hosts.
type Suite struct{ *testing.M }

// Run returns the exit code.
func (s Suite) Run() int {
	dir, err := os.MkdirTemp("", "adp-node")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	common = Node{process.Node(dir)}
	code := s.M.Run()
	if _, err := common.Run("stop"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// Build compiles the program into dir and puts it in the PATH; with the race
// detector, if the tests have it. Attempts of jobs have a Lease.
func Build(dir string) error {
	root, err := process.Repository()
	if err != nil {
		return err
	}
	args := []string{"build", "-ldflags=-X async-data-processor/jobs/frame.lease=" + Lease.String(), "-o", dir}
	if Race {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/"+program)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return os.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}
