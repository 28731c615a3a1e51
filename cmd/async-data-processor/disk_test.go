package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"async-data-processor/pipeline"
)

// mountSmall mounts a file system of some MiB. Where that is not allowed it
// returns false; the tests of the packages cover the same ground with injected
// errors.
func mountSmall(t *testing.T, size int) (dir string, ok bool) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", size)); err != nil {
		t.Logf("cannot mount a file system here: %v", err)
		return "", false
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir, true
}

// fill takes what is free of a disk but for so many bytes, and returns how to
// give it back.
func fill(t *testing.T, disk string, but int) (release func()) {
	t.Helper()
	filler := filepath.Join(disk, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for left := free(t, disk) - but; left >= 4096; left = free(t, disk) - but {
		if _, err := f.Write(make([]byte, min(left, 1<<20)/4096*4096)); err != nil && but > 0 {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
}

func free(t *testing.T, disk string) int {
	t.Helper()
	var stat unix.Statfs_t
	if err := unix.Statfs(disk, &stat); err != nil {
		t.Fatal(err)
	}
	return int(stat.Bavail) * int(stat.Bsize)
}

// notReady waits until the process says that it is not ready for the reason, and
// that its broker is.
func (p *process) notReady(reason string) {
	p.t.Helper()
	eventually(p.t, "not being ready", func() error {
		resp, err := http.Get("http://" + p.addr + "/readyz?verbose")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), reason) ||
			!strings.Contains(string(body), `"broker":"ok"`) {
			return fmt.Errorf("%s: %s, want %q", resp.Status, body, reason)
		}
		return nil
	})
}

// checkOnce waits until every message is in a file, ends the processes, and
// fails if one is there twice or was given up.
func checkOnce(t *testing.T, dir string, ids []string, processes ...*process) {
	t.Helper()
	eventually(t, "every accepted message in a file", func() error {
		if n, example := readTree(t, dir, 5, 5).missing(ids); n > 0 {
			return fmt.Errorf("%d of %d missing, one is %s", n, len(ids), example)
		}
		return nil
	})
	for _, p := range processes {
		if code := p.stop(); code != exitClean {
			t.Errorf("exit %d", code)
		}
		for _, l := range p.lines {
			if strings.Contains(l.Message, "dead-lettered") {
				t.Errorf("a dead letter: %+v", l)
			}
		}
	}
	tr := readTree(t, dir, 5, 5)
	if n, example := tr.twice(); n > 0 || len(tr.lines) != len(ids) {
		t.Errorf("%d messages in files, want %d; %d twice, one is %s", len(tr.lines), len(ids), n, example)
	}
	if left := temporary(t, dir); len(left) > 0 {
		t.Errorf("temporary files are left: %v", left)
	}
}

// both is the processes, each once.
func both(consumer, server *process) []*process {
	if consumer == server {
		return []*process{server}
	}
	return []*process{server, consumer}
}

// TestOutputFullAtStart: a process is up over a full disk, consumes nothing and
// says why; when there is space it goes on by itself.
func TestOutputFullAtStart(t *testing.T) { onEach(t, testOutputFullAtStart) }

func testOutputFullAtStart(t *testing.T, b engineBroker, _ engine) {
	disk, ok := mountSmall(t, 4)
	if !ok {
		return
	}
	release := fill(t, disk, 0)
	settings := []string{"DATA_OUTPUT_DIR=" + disk, "OUTPUT_MIN_FREE=0", "OUTPUT_ERROR_TIMEOUT=1ms"}
	var consumer, server *process
	if b.consumer == "" {
		server = start(t, "standalone", append(settings, "BROKER_URL="+b.server)...)
		consumer = server
	} else {
		server = b.launchServer(t)
		consumer = start(t, "message-consumer", append(settings, "BROKER_URL="+b.consumer)...)
	}
	consumer.notReady("no space left on device")
	ids := postAll(t, server, 20, 7)
	consumer.await("a warning", func(l logLine) bool {
		return l.Level == "warn" && strings.HasPrefix(l.Message, "the shard cannot be taken")
	})
	if got := consumer.settled(); got.Messages != 0 {
		t.Errorf("%d messages written to a full disk", got.Messages)
	}
	release()
	consumer.ready()
	checkOnce(t, disk, ids, both(consumer, server)...)
}

// TestOutputFull: a disk that is full in the middle of the work stops it, until
// there is space.
func TestOutputFull(t *testing.T) { onEach(t, testOutputFull) }

func testOutputFull(t *testing.T, b engineBroker, _ engine) {
	disk, ok := mountSmall(t, 16)
	if !ok {
		return
	}
	consumer, server := b.launch(t, "DATA_OUTPUT_DIR="+disk, "OUTPUT_MIN_FREE=0", "OUTPUT_ERROR_TIMEOUT=1ms")
	ids := postAll(t, server, 20, 7)
	release := fill(t, disk, 0)
	ids = append(ids, postAll(t, server, 60, 7)...)
	consumer.await("a batch that is held", func(l logLine) bool { return strings.HasSuffix(l.Message, "holding it") })
	consumer.notReady("no space left on device")
	release()
	consumer.ready()
	ids = append(ids, postAll(t, server, 10, 7)...)
	checkOnce(t, disk, ids, both(consumer, server)...)
}

// TestOutputReserve: before the disk is full standalone refuses what is new, and
// writes what it has accepted; with space again it accepts.
func TestOutputReserve(t *testing.T) {
	for name, open := range map[string]func(*testing.T) engineBroker{"rabbitmq": newVhost, "embedded": newStore} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testOutputReserve(t, open(t))
		})
	}
}

func testOutputReserve(t *testing.T, b engineBroker) {
	const reserve = 16 << 20
	disk, ok := mountSmall(t, 64)
	if !ok {
		return
	}
	setting := "OUTPUT_MIN_FREE=" + strconv.Itoa(reserve)
	p := start(t, "standalone", "BROKER_URL="+b.server, "DATA_OUTPUT_DIR="+disk, setting).ready()
	release := fill(t, disk, reserve+4<<20)

	var ids []string
	large := fmt.Sprintf(`[{"timestamp":"2019-10-12T08:10:54Z","value":%q}]`, strings.Repeat("x", 100<<10))
	for {
		status, r, header := p.post(large)
		if status == http.StatusServiceUnavailable {
			if header.Get("Retry-After") == "" || header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("503 with %v", header)
			}
			break
		}
		if ids = append(ids, r.ids()...); status != http.StatusCreated || len(ids) > 1000 {
			t.Fatalf("status %d after %d accepted", status, len(ids))
		}
	}
	resp, err := http.Post("http://"+p.addr+"/message", "application/json", strings.NewReader(large))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var problem struct{ Type, Detail string }
	if err := json.NewDecoder(resp.Body).Decode(&problem); err != nil ||
		!strings.HasSuffix(problem.Type, ":not-published") || !strings.HasPrefix(problem.Detail, "the disk of the output is nearly full") {
		t.Errorf("%s: %+v, %v", resp.Status, problem, err)
	}
	p.notReady(disk + " is full")
	p.await("a warning", func(l logLine) bool { return l.Level == "warn" && l.Message == "the output's disk runs low" })
	eventually(t, "what was accepted in files", func() error {
		if n, _ := readTree(t, disk, 5, 5).missing(ids); n > 0 {
			return fmt.Errorf("%d missing", n)
		}
		return nil
	})
	if left := free(t, disk); left < reserve/2 {
		t.Errorf("only %d bytes were free when intake ended", left)
	}

	if b.consumer != "" { // what others submit is written below the mark, too
		if code := p.stop(); code != exitClean {
			t.Errorf("exit %d", code)
		}
		server := b.launchServer(t)
		ids = append(ids, postAll(t, server, 5, 7)...)
		consumer := start(t, "message-consumer", "BROKER_URL="+b.consumer, "DATA_OUTPUT_DIR="+disk, setting)
		consumer.notReady(disk + " is full")
		checkOnce(t, disk, ids, consumer, server)
		return
	}
	release()
	p.ready()
	ids = append(ids, postAll(t, p, 5, 7)...)
	p.await("the end of it", func(l logLine) bool { return l.Message == "the output's disk has enough space again" })
	checkOnce(t, disk, ids, p)
}

// failed waits until the process ends by itself because of its output, and
// checks that its last line says what somebody has to know.
func (p *process) failed(words ...string) {
	p.t.Helper()
	if code := p.wait(); code != exitFailure {
		p.t.Errorf("exit %d, want %d", code, exitFailure)
	}
	last := p.lines[len(p.lines)-1]
	for _, word := range append(words, "the output has failed for too long: shard ", "; since ", "start again") {
		if last.Message != "stopped" || last.Level != "error" || !strings.Contains(last.Error, word) || len(p.others) > 0 {
			p.t.Errorf("the last line has no %q: %+v, %q", word, last, p.others)
		}
	}
}

// TestExitOfAFailedOutput: that its drain took too long as well is not what a
// supervisor has to hear.
func TestExitOfAFailedOutput(t *testing.T) {
	err := failure{errors.Join(pipeline.ErrDrainDeadline, pipeline.ErrOutputFailed), true}
	if code := exitCode(err, io.Discard); code != exitFailure {
		t.Errorf("exit %d, want %d", code, exitFailure)
	}
}

// TestOutputUnusable: a folder that stays unusable ends the process, the server
// in it included; what the other shards had is in files, and the rest once it is
// mended.
func TestOutputUnusable(t *testing.T) { onEach(t, testOutputUnusable) }

func testOutputUnusable(t *testing.T, b engineBroker, _ engine) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "shard-3")
	if err := os.WriteFile(bad, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	settings := []string{"DATA_OUTPUT_DIR=" + dir, "OUTPUT_ERROR_TIMEOUT=3s", "BATCH_LINGER=10m"}
	var ids []string
	if b.consumer == "" {
		p := start(t, "standalone", append(settings, "BROKER_URL="+b.server)...)
		p.notReady("not a directory")
		for n := range 50 {
			_, r, _ := p.post(entries(n*7, 7))
			ids = append(ids, r.ids()...)
		}
		p.failed("shard 3 in "+dir, bad+": not a directory")
	} else {
		server := b.launchServer(t)
		ids = postAll(t, server, 50, 7)
		start(t, "message-consumer", append(settings, "BROKER_URL="+b.consumer)...).failed("shard 3 in "+dir, bad+": not a directory")
		server.stop()
	}
	if len(ids) == 0 {
		t.Error("nothing was accepted before")
	}
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	consumer, server := b.launch(t, "DATA_OUTPUT_DIR="+dir)
	checkOnce(t, dir, ids, both(consumer, server)...)
}

// TestOutputBreaks lets every fsync of a running message-consumer fail from one
// moment on: it exits 1, with batches in hand and long before the drain's
// deadline, and its successor on a sound disk writes what came back.
func TestOutputBreaks(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Log("there is no strace here")
		return
	}
	dir := t.TempDir()
	b := newVhost(t)
	consumer, server := b.launch(t, "DATA_OUTPUT_DIR="+dir, "OUTPUT_ERROR_TIMEOUT=2s", "DRAIN_TIMEOUT=10m")
	ids := postAll(t, server, 20, 7)
	for n := range 5 {
		consumer.await("its shards", func(l logLine) bool { return l.Message == "shard owned" && l.Shard == n })
	}
	tracer := exec.Command(strace, "-f", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO", "-p", strconv.Itoa(consumer.cmd.Process.Pid))
	stderr, err := tracer.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tracer.Start(); err != nil {
		t.Fatal(err)
	}
	attached := make(chan string, 1)
	go func() {
		for in := bufio.NewScanner(stderr); in.Scan(); {
			select {
			case attached <- in.Text():
			default: // only the first line matters
			}
		}
		close(attached)
	}()
	t.Cleanup(func() {
		tracer.Process.Kill()
		tracer.Wait()
	})
	if line := <-attached; !strings.Contains(line, "attached") {
		t.Logf("strace may not: %s", line)
		return
	}
	ids = append(ids, postAll(t, server, 50, 7)...)
	consumer.failed("shard-", "fsync", "input/output error", dir)

	last := b.launchConsumer(t, "DATA_OUTPUT_DIR="+dir)
	checkOnce(t, dir, ids, last, server)
}
