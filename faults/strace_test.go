package faults

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"async-data-processor/faults/rig"
)

// TestInjected is what the disk of a machine does, by the kernel, on the file
// system of the tests: a call fails, or the process dies at its entry. Not so
// write, which the Go runtime uses for itself and must not fail there.
func TestInjected(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("install strace: ", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("run this test as root, who may trace what it has not started")
	}
	on(t, "injected by strace", func(c *campaign) {
		c.start(steady)
		for range either(1, 10) {
			for _, i := range []struct{ what, seen string }{
				{"fsync:error=EIO:when=2", `\(INJECTED\)`},
				{"openat:error=ENOSPC:when=2", `\(INJECTED\)`},
				{"linkat:error=EIO:when=2", `\(INJECTED\)`},
				{"linkat:error=ENOSPC:when=1..3", `\(INJECTED\)`},
				{"unlinkat:error=EIO:when=2", `\(INJECTED\)`},
				{"fsync:signal=KILL:when=3", "killed by SIGKILL"},
				{"linkat:signal=KILL:when=2", "killed by SIGKILL"},
				{"unlinkat:signal=KILL:when=1", "killed by SIGKILL"},
			} {
				c.inject(i.what, regexp.MustCompile(i.seen))
			}
		}
		c.finish()
	}, inBothModes(rabbitmq)...)
}

// inject lets system calls of the consumer go wrong, and returns when the trace
// has shown it and there are files again.
func (c *campaign) inject(what string, seen *regexp.Regexp) {
	c.Helper()
	call, _, _ := strings.Cut(what, ":")
	tracer := exec.Command("strace", "-f", "-e", "trace="+call, "-e", "inject="+what, "-p", strconv.Itoa(c.consumer.PID()))
	trace, err := tracer.StderrPipe()
	if err != nil {
		c.Fatal(err)
	}
	if err := tracer.Start(); err != nil {
		c.Fatal(err)
	}
	defer time.AfterFunc(rig.Patience, func() { _ = tracer.Process.Kill() }).Stop()
	in := bufio.NewScanner(trace)
	for !seen.Match(in.Bytes()) {
		if !in.Scan() {
			c.Fatalf("%s has not happened", what)
		}
	}
	_ = tracer.Process.Kill() // what it traced goes on without it
	_ = tracer.Wait()
	if strings.Contains(what, "signal=KILL") {
		c.consumer.Wait()
		c.gone(c.consumer)
		c.kills++
		c.up()
	}
	c.cycle()
	before := c.files()
	rig.Eventually(c, "file after "+what, func() error {
		if now := c.files(); now <= before {
			return fmt.Errorf("%d files, as before", now)
		}
		return nil
	})
}

// files is how many files are visible.
func (c *campaign) files() int {
	found, err := filepath.Glob(filepath.Join(c.dir, "shard-*", "*.ndjson"))
	if err != nil {
		c.Fatal(err)
	}
	return len(found)
}
