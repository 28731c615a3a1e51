package faults

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"async-data-processor/faults/lossyfs"
	"async-data-processor/faults/rig"
)

// TestSignals: the end of a terminal drains, but not what nohup started. Two signals at
// once are one, and the second of two says that it is in a line of the log.
func TestSignals(t *testing.T) {
	t.Parallel()
	// What nohup starts ignores it, and so do its children. Those of a process that
	// listens to it do not.
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(ends) })
	start := func(t *testing.T, argv ...string) *loner {
		t.Parallel()
		reader, stderr, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		l := lonely(t, append(argv, "async-data-processor", "standalone"), reader, stderr)
		l.ready()
		l.post(5)
		return l
	}
	rest := func(l *loner) string {
		text, _ := io.ReadAll(l.log)
		return string(text)
	}
	t.Run("SIGHUP", func(t *testing.T) {
		l := start(t)
		l.signal(syscall.SIGHUP)
		l.ends(drainLimit, 0)
		l.written(10)
	})
	t.Run("SIGHUP under nohup", func(t *testing.T) {
		l := start(t, "nohup")
		l.signal(syscall.SIGHUP)
		time.Sleep(500 * time.Millisecond)
		l.post(5)
		l.signal(syscall.SIGTERM)
		l.ends(drainLimit, 0)
		l.written(20)
	})
	t.Run("two at once", func(t *testing.T) {
		l := start(t)
		l.hold() // or it may have ended before the last one
		for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM, syscall.SIGINT} {
			l.signal(s)
			time.Sleep(50 * time.Millisecond)
		}
		l.ends(drainLimit, 0)
		l.written(10)
	})
	t.Run("a second one", func(t *testing.T) {
		l := start(t)
		l.hold()
		l.insist()
		lines := strings.Split(strings.TrimSpace(rest(l)), "\n")
		if last := lines[len(lines)-1]; !strings.HasPrefix(last, "{") || !strings.Contains(last, `"error":"second signal (interrupt), stopped at once`) {
			t.Errorf("the last line is %s", last)
		}
	})
}

// TestFrozen: a disk that does not answer holds up the start. The deadline of the drain
// counts all the same: exit code 3, as soon as the kernel lets go of the process.
func TestFrozen(t *testing.T) {
	t.Parallel()
	disk, dir := lossyfs.New(), t.TempDir()
	mount, err := disk.Mount(dir)
	if errors.Is(err, os.ErrPermission) {
		t.Skipf("run this test as root: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer mount.Unmount()
	frozen, thaw := make(chan struct{}, 100), make(chan struct{})
	disk.SetHook(func(op lossyfs.Op) error {
		if op.Kind == lossyfs.Mkdir && !op.Done {
			frozen <- struct{}{}
			<-thaw
		}
		return nil
	})
	p := rig.Spawn(t, "standalone", "DRAIN_TIMEOUT=1s", "BROKER_URL=embedded:"+filepath.Join(t.TempDir(), "broker"), "DATA_OUTPUT_DIR="+filepath.Join(dir, "data"))
	select {
	case <-frozen:
	case <-time.After(rig.Patience):
		t.Fatal("it does not use the disk")
	}
	if in, err := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", p.PID())); err != nil || strings.Contains(string(in), "fuse") || strings.Contains(string(in), "request") {
		t.Errorf("the first thread, which has to take signals, waits in %s, %v", in, err)
	}
	p.Signal(syscall.SIGTERM)
	time.Sleep(8 * time.Second) // more than the time-out, and what the process takes to give up
	close(thaw)
	if code := p.Wait(); code != 3 {
		t.Errorf("exit %d, want 3", code)
	}
}

// TestTerminal: a person at a terminal sees a head of six lines, then what was accepted
// and written, then what was done; nothing of workers.
func TestTerminal(t *testing.T) {
	t.Parallel()
	terminal, stderr := pty(t)
	l := lonely(t, []string{"async-data-processor", "standalone"}, terminal, stderr, "NO_COLOR=1")
	l.ready()
	text := make(chan string)
	go func() {
		var all strings.Builder
		_, _ = io.Copy(&all, l.log) // its error says that the process has ended
		text <- strings.ReplaceAll(all.String(), "\r\n", "\n")
	}()
	l.post(3)
	time.Sleep(5 * time.Second) // the files are there after one, the line after two
	l.signal(syscall.SIGTERM)
	l.ends(drainLimit, 0)
	l.written(6)
	got := <-text
	_, port, _ := strings.Cut(l.addr, ":")
	head := "\n  address  http://127.0.0.1:" + port + ", every program on this machine may post\n" +
		"  queue    " + l.dir + "/data/broker/, fsynced before the answer 201; it survives kill -9 and loss of power\n" +
		"  files    " + l.dir + "/data/shard-*/, each of 5 entries, or fewer 1s after the first\n" +
		"  look at  http://127.0.0.1:" + port + "/ in a browser, and async-data-processor dead-letters list\n" +
		"  try      curl -sS http://127.0.0.1:" + port + "/message -H 'Content-Type: application/json' -d '[{\"timestamp\":\"2019-10-12T07:20:50.52Z\",\"value\":\"A\"}]'\n"
	for _, want := range []string{
		"made a new, empty one", "\nasync-data-processor ", head, "request answered component=server ",
		" INF draining\n", " INF drained: 6 requests, 3 refused, 6 entries accepted, 6 written in ", " files, 0 dead letters\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("it lacks %q", want)
		}
	}
	for _, routine := range []string{"worker", "shard owned", "started", "broker connected", "{\"level\""} {
		if strings.Contains(got, routine) {
			t.Errorf("it has %q", routine)
		}
	}
	if n := strings.Count(got, " entries accepted"); n < 2 || n > 4 { // it took two seconds or so
		t.Errorf("%d lines tell what was accepted", n)
	}
	if t.Failed() {
		t.Log(got)
	}
}

// pty returns the two ends of a new terminal.
func pty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}
