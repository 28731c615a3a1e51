package faults

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"async-data-processor/faults/process"
	"async-data-processor/faults/rig"
)

// loner is a standalone process with what it prints in the hands of the test.
type loner struct {
	*testing.T
	cmd    *exec.Cmd
	ended  <-chan struct{}
	dir    string        // where it runs
	log    *bufio.Reader // what it prints
	reader *os.File      // the same
	addr   string
}

// lonely starts the process under a command line, with its stderr in a pipe, or in a
// terminal; and waits until it listens.
func lonely(t *testing.T, argv []string, reader, stderr *os.File, settings ...string) *loner {
	t.Helper()
	l := &loner{T: t, cmd: exec.Command(argv[0], argv[1:]...), dir: t.TempDir(), addr: freeAddr(t), reader: reader, log: bufio.NewReader(reader)}
	l.cmd.Dir, l.cmd.Stderr = l.dir, stderr
	l.cmd.Env = process.Environment(append(settings, "LISTEN_ADDR="+l.addr, "GOCOVERDIR="+t.TempDir())...)
	var err error
	if l.ended, err = process.Start(l.cmd); err != nil {
		t.Fatal(err)
	}
	if err := stderr.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = l.cmd.Process.Kill()
		<-l.ended
		_ = reader.Close()
	})
	return l
}

// freeAddr returns an address of a port that was free a moment ago.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// piped is lonely with a pipe of the smallest size.
func piped(t *testing.T, settings ...string) *loner {
	t.Helper()
	reader, stderr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(stderr.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	return lonely(t, []string{"async-data-processor", "standalone"}, reader, stderr, append(settings, "LOG_LEVEL=debug")...)
}

// ready waits until the process is ready; it may print nothing.
func (l *loner) ready() {
	l.Helper()
	rig.Eventually(l, "readiness", func() error {
		select {
		case <-l.ended:
			l.Fatalf("it ended: %v", l.cmd.ProcessState)
		default:
		}
		resp, err := http.Get("http://" + l.addr + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("it answers %s", resp.Status)
		}
		return nil
	})
}

// post posts n submissions of two entries, and some requests that are refused.
func (l *loner) post(n int) {
	l.Helper()
	for i := range n {
		for body, want := range map[string]int{rig.Entries(2*i, 2): http.StatusCreated, "[]": http.StatusBadRequest} {
			resp, err := http.Post("http://"+l.addr+"/message", "application/json", strings.NewReader(body))
			if err != nil {
				l.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != want {
				l.Fatalf("it answers %s (%v), want %d", resp.Status, err, want)
			}
			resp.Body.Close()
		}
	}
}

// signal sends a signal.
func (l *loner) signal(s syscall.Signal) {
	l.Helper()
	if err := l.cmd.Process.Signal(s); err != nil {
		l.Fatal(err)
	}
}

// insist sends a signal, and others until one ends the process: that has to be before
// the upload of hold, which has 5 s.
func (l *loner) insist() {
	l.Helper()
	began := time.Now()
	l.signal(syscall.SIGTERM)
	for n := 0; l.cmd.Process.Signal(syscall.Signal(0)) == nil && n < 20; n++ {
		time.Sleep(200 * time.Millisecond)
		_ = l.cmd.Process.Signal(syscall.SIGINT) // it may have ended
	}
	l.ends(time.Second, 1)
	if took := time.Since(began); took < time.Second {
		l.Errorf("it ended after %v", took)
	}
}

// ends waits for the end, which has to come within a time and with an exit code.
func (l *loner) ends(within time.Duration, code int) {
	l.Helper()
	select {
	case <-l.ended:
	case <-time.After(within):
		l.signal(syscall.SIGQUIT) // it says what its goroutines do
		_ = l.reader.SetReadDeadline(time.Now().Add(within))
		text, _ := io.ReadAll(l.log)
		l.Fatalf("it has not ended after %v:\n%s", within, text)
	}
	if got := l.cmd.ProcessState.ExitCode(); got != code {
		l.Errorf("%v, want exit code %d", l.cmd.ProcessState, code)
	}
}

// written wants so many entries in files.
func (l *loner) written(n int) {
	l.Helper()
	files, err := filepath.Glob(filepath.Join(l.dir, "data", "shard-*", "*.ndjson"))
	if err != nil {
		l.Fatal(err)
	}
	lines := 0
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			l.Fatal(err)
		}
		lines += strings.Count(string(text), "\n")
	}
	if lines != n {
		l.Errorf("%d entries are in files, want %d", lines, n)
	}
}

// drainLimit is well under the default of DRAIN_TIMEOUT, and long for a drain of a few
// entries on a busy machine.
const drainLimit = 20 * time.Second

// TestStderrGone: the reader of the log dies. The process goes on, and drains.
func TestStderrGone(t *testing.T) {
	t.Parallel()
	l := piped(t)
	if _, err := l.log.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := l.reader.Close(); err != nil {
		t.Fatal(err)
	}
	l.ready()
	l.post(20)
	l.signal(syscall.SIGTERM)
	l.ends(drainLimit, 0)
	l.written(40)
}

// TestStderrStuck: no one reads the log any more. Requests and health are answered, a
// signal drains, and a second one ends the process though it cannot say so.
func TestStderrStuck(t *testing.T) {
	t.Parallel()
	t.Run("drain", func(t *testing.T) {
		t.Parallel()
		l := piped(t)
		l.ready()
		l.post(50)
		l.ready()
		l.signal(syscall.SIGTERM)
		l.ends(drainLimit, 0)
		l.written(100)
	})
	t.Run("second signal", func(t *testing.T) {
		t.Parallel()
		l := piped(t, "BATCH_LINGER=10m")
		l.ready()
		l.post(50)
		l.hold()
		l.insist()
	})
}

// hold begins an upload that goes on, and so holds up the drain.
func (l *loner) hold() {
	l.Helper()
	conn, err := net.Dial("tcp", l.addr)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { conn.Close() })
	if _, err := fmt.Fprintf(conn, "POST /message HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n[", l.addr); err != nil {
		l.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // until the server reads it
}
