package lossyfs

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"async-data-processor/faults/process"
)

// TestKilledServer: a process that is killed while it waits for a mount of its own
// ends, and so does the mount.
func TestKilledServer(t *testing.T) {
	const mountAt = "MOUNT_AND_WAIT"
	if dir := os.Getenv(mountAt); dir != "" {
		disk := New()
		if _, err := disk.Mount(dir); err != nil {
			t.Fatal(err)
		}
		disk.SetHook(func(Op) error {
			fmt.Println("waits")
			select {}
		})
		t.Fatal(os.Mkdir(filepath.Join(dir, "a"), 0o755))
	}
	r := newRig(t) // or this machine cannot mount
	dir := t.TempDir()
	server := exec.Command(os.Args[0], "-test.run=^TestKilledServer$")
	server.Env = append(os.Environ(), mountAt+"="+dir)
	out, err := server.StdoutPipe()
	r.must(err)
	ended, err := process.Start(server)
	r.must(err)
	line, err := bufio.NewReader(out).ReadString('\n')
	r.must(err)
	if line != "waits\n" || !mounted(t, dir) {
		t.Fatalf("it says %q, mounted %t", line, mounted(t, dir))
	}
	r.must(server.Process.Kill())
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	for began := time.Now(); mounted(t, dir); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("its mount is still there")
		}
	}
}

func mounted(t *testing.T, dir string) bool {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(mounts), " "+dir+" ")
}
