package process

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestOrphan: what was started ends with the process that started it, although
// that is killed.
func TestOrphan(t *testing.T) {
	const inChild = "START_AND_WAIT"
	if os.Getenv(inChild) != "" {
		child := exec.Command("sleep", "1000")
		if _, err := Start(child); err != nil {
			t.Fatal(err)
		}
		fmt.Println(child.Process.Pid)
		select {}
	}
	parent := exec.Command(os.Args[0], "-test.run=^TestOrphan$")
	parent.Env = append(os.Environ(), inChild+"=yes")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	ended, err := Start(parent)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := bufio.NewReader(out).ReadString('\n')
	_ = parent.Process.Kill()
	<-ended
	if err != nil {
		t.Fatal(err)
	}
	child := "/proc/" + pid[:len(pid)-1]
	for began := time.Now(); alive(child); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatalf("%s is still there", child)
		}
	}
}

// alive tells whether a process has memory: one that has ended may wait for its
// parent to ask for its exit code, in vain.
func alive(proc string) bool {
	_, err := os.Readlink(proc + "/exe")
	return err == nil
}
