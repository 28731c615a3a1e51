package faults

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"async-data-processor/faults/rig"
)

// inFiles is how many lines are in the visible files of a folder.
func inFiles(t *testing.T, dir string) (n int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "shard-*", "*.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		n += bytes.Count(text, []byte{'\n'})
	}
	return n
}

func awaitFiles(t *testing.T, dir string, want int) {
	t.Helper()
	rig.Eventually(t, "files", func() error {
		if got := inFiles(t, dir); got != want {
			return fmt.Errorf("%d entries in files, want %d", got, want)
		}
		return nil
	})
}

// flood opens idle connections to a process from an address until the test ends.
func flood(t *testing.T, addr, from string, n int) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 10 * time.Second}
	for range n {
		c, err := d.Dial("tcp", addr)
		if err != nil {
			continue // the process accepts slower than they come
		}
		t.Cleanup(func() { c.Close() })
		_, _ = c.Write([]byte("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	}
}

// TestDescriptors: neither idle connections nor a lack of descriptors end the process,
// or keep others from submitting.
func TestDescriptors(t *testing.T) {
	dir := t.TempDir()
	p := rig.Start(t, "standalone", "BROKER_URL="+rig.NewStore(t).Server, "DATA_OUTPUT_DIR="+dir,
		"MAX_CONNECTIONS=40", "OUTPUT_ERROR_TIMEOUT=1s", "BATCH_LINGER=1s").Ready()
	var was unix.Rlimit
	limit := func(n uint64) {
		t.Helper()
		if err := unix.Prlimit(p.PID(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: was.Max}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Prlimit(p.PID(), unix.RLIMIT_NOFILE, nil, &was); err != nil {
		t.Fatal(err)
	}
	submit := func() {
		t.Helper()
		if status, _, _ := p.Post(`{"timestamp":"2019-10-12T08:10:54Z"}`); status != http.StatusCreated {
			t.Fatalf("status %d", status)
		}
	}

	limit(160) // of which 40 are for connections
	for host := 2; host < 10; host++ {
		flood(t, p.Addr, fmt.Sprintf("127.0.0.%d", host), 50)
	}
	submit()
	awaitFiles(t, dir, 1)

	submit()
	limit(3) // before the batch is written
	p.Await("a lack of descriptors", func(l rig.Line) bool {
		return l.Message == "cannot write the batch, keeping it and trying again" && strings.Contains(l.Error, "too many open files")
	})
	select {
	case <-p.Exited():
		t.Fatalf("exit %d for a lack of descriptors", p.Code())
	case <-time.After(4 * time.Second): // longer than OUTPUT_ERROR_TIMEOUT
	}
	limit(was.Cur)
	awaitFiles(t, dir, 2)
	if code := p.Stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
}
