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

	"async-data-processor/faults/rig"
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

// awaitNotReady waits until the process says that it is not ready for the
// reason, and that its broker is.
func awaitNotReady(t *testing.T, p *rig.Process, reason string) {
	t.Helper()
	rig.Eventually(t, "not being ready", func() error {
		err := p.NotReady()
		if err == nil || !strings.Contains(err.Error(), reason) || !strings.Contains(err.Error(), `"broker":"ok"`) {
			return fmt.Errorf("%v, want %q", err, reason)
		}
		return nil
	})
}

// checkOnce waits until every message is in a file, ends the processes, and
// fails if one is there twice or was given up.
func checkOnce(t *testing.T, dir string, ids []string, processes ...*rig.Process) {
	t.Helper()
	rig.Eventually(t, "every accepted message in a file", func() error {
		if n, example := rig.ReadTree(t, dir, 5, 5).Missing(ids); n > 0 {
			return fmt.Errorf("%d of %d missing, one is %s", n, len(ids), example)
		}
		return nil
	})
	for _, p := range processes {
		if code := p.Stop(); code != exitClean {
			t.Errorf("exit %d", code)
		}
		for _, l := range p.Lines() {
			if strings.Contains(l.Message, "dead-lettered") {
				t.Errorf("a dead letter: %+v", l)
			}
		}
	}
	tr := rig.ReadTree(t, dir, 5, 5)
	if n, example := tr.Twice(); n > 0 || len(tr.Lines) != len(ids) {
		t.Errorf("%d messages in files, want %d; %d twice, one is %s", len(tr.Lines), len(ids), n, example)
	}
	if left := rig.Temporary(t, dir); len(left) > 0 {
		t.Errorf("temporary files are left: %v", left)
	}
}

// both is the processes, each once.
func both(consumer, server *rig.Process) []*rig.Process {
	if consumer == server {
		return []*rig.Process{server}
	}
	return []*rig.Process{server, consumer}
}

// TestOutputFullAtStart: a process is up over a full disk, consumes nothing and
// says why; when there is space it goes on by itself.
func TestOutputFullAtStart(t *testing.T) { rig.OnEach(t, testOutputFullAtStart) }

func testOutputFullAtStart(t *testing.T, b rig.Broker, _ rig.Engine) {
	disk, ok := mountSmall(t, 4)
	if !ok {
		return
	}
	release := fill(t, disk, 0)
	settings := []string{"DATA_OUTPUT_DIR=" + disk, "OUTPUT_MIN_FREE=0", "OUTPUT_ERROR_TIMEOUT=1ms"}
	var consumer, server *rig.Process
	if b.Consumer == "" {
		server = rig.Start(t, "standalone", append(settings, "BROKER_URL="+b.Server)...)
		consumer = server
	} else {
		server = b.LaunchServer(t)
		consumer = rig.Start(t, "message-consumer", append(settings, "BROKER_URL="+b.Consumer)...)
	}
	awaitNotReady(t, consumer, "no space left on device")
	ids := server.PostAll(20, 7)
	consumer.Await("a warning", func(l rig.Line) bool {
		return l.Level == "warn" && strings.HasPrefix(l.Message, "the shard cannot be taken")
	})
	if got := consumer.Settled(); got.Messages != 0 {
		t.Errorf("%d messages written to a full disk", got.Messages)
	}
	release()
	consumer.Ready()
	checkOnce(t, disk, ids, both(consumer, server)...)
}

// TestOutputFull: a disk that is full in the middle of the work stops it, until
// there is space.
func TestOutputFull(t *testing.T) { rig.OnEach(t, testOutputFull) }

func testOutputFull(t *testing.T, b rig.Broker, _ rig.Engine) {
	disk, ok := mountSmall(t, 16)
	if !ok {
		return
	}
	consumer, server := b.Launch(t, "DATA_OUTPUT_DIR="+disk, "OUTPUT_MIN_FREE=0", "OUTPUT_ERROR_TIMEOUT=1ms")
	ids := server.PostAll(20, 7)
	release := fill(t, disk, 0)
	ids = append(ids, server.PostAll(60, 7)...)
	consumer.Await("a batch that is held", func(l rig.Line) bool { return strings.HasSuffix(l.Message, "holding it") })
	awaitNotReady(t, consumer, "no space left on device")
	release()
	consumer.Ready()
	ids = append(ids, server.PostAll(10, 7)...)
	checkOnce(t, disk, ids, both(consumer, server)...)
}

// TestOutputReserve: before the disk is full standalone refuses what is new, and
// writes what it has accepted; with space again it accepts.
func TestOutputReserve(t *testing.T) {
	for name, open := range map[string]func(testing.TB) rig.Broker{"rabbitmq": rig.NewVhost, "embedded": rig.NewStore} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testOutputReserve(t, open(t))
		})
	}
}

func testOutputReserve(t *testing.T, b rig.Broker) {
	const reserve = 16 << 20
	disk, ok := mountSmall(t, 64)
	if !ok {
		return
	}
	setting := "OUTPUT_MIN_FREE=" + strconv.Itoa(reserve)
	p := rig.Start(t, "standalone", "BROKER_URL="+b.Server, "DATA_OUTPUT_DIR="+disk, setting).Ready()
	release := fill(t, disk, reserve+4<<20)

	var ids []string
	large := fmt.Sprintf(`[{"timestamp":"2019-10-12T08:10:54Z","value":%q}]`, strings.Repeat("x", 100<<10))
	for {
		status, r, header := p.Post(large)
		if status == http.StatusServiceUnavailable {
			if header.Get("Retry-After") == "" || header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("503 with %v", header)
			}
			break
		}
		if ids = append(ids, r.IDs()...); status != http.StatusCreated || len(ids) > 1000 {
			t.Fatalf("status %d after %d accepted", status, len(ids))
		}
	}
	resp, err := http.Post("http://"+p.Addr+"/message", "application/json", strings.NewReader(large))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var problem struct{ Type, Detail string }
	if err := json.NewDecoder(resp.Body).Decode(&problem); err != nil ||
		!strings.HasSuffix(problem.Type, ":not-published") || !strings.HasPrefix(problem.Detail, "the disk of the output takes no more now") {
		t.Errorf("%s: %+v, %v", resp.Status, problem, err)
	}
	awaitNotReady(t, p, disk+" is full")
	p.Await("a warning", func(l rig.Line) bool { return l.Level == "warn" && l.Message == "the output's disk runs low" })
	rig.Eventually(t, "what was accepted in files", func() error {
		if n, _ := rig.ReadTree(t, disk, 5, 5).Missing(ids); n > 0 {
			return fmt.Errorf("%d missing", n)
		}
		return nil
	})
	if left := free(t, disk); left < reserve/2 {
		t.Errorf("only %d bytes were free when intake ended", left)
	}

	if b.Consumer != "" { // what others submit is written below the mark, too
		if code := p.Stop(); code != exitClean {
			t.Errorf("exit %d", code)
		}
		server := b.LaunchServer(t)
		ids = append(ids, server.PostAll(5, 7)...)
		consumer := rig.Start(t, "message-consumer", "BROKER_URL="+b.Consumer, "DATA_OUTPUT_DIR="+disk, setting)
		awaitNotReady(t, consumer, disk+" is full")
		checkOnce(t, disk, ids, consumer, server)
		return
	}
	release()
	p.Ready()
	ids = append(ids, p.PostAll(5, 7)...)
	p.Await("the end of it", func(l rig.Line) bool { return l.Message == "the output's disk has enough space again" })
	checkOnce(t, disk, ids, p)
}

// awaitFailed waits until the process ends by itself because of its output, and
// checks that its last line says what somebody has to know.
func awaitFailed(t *testing.T, p *rig.Process, words ...string) {
	t.Helper()
	if code := p.Wait(); code != exitFailure {
		t.Errorf("exit %d, want %d", code, exitFailure)
	}
	lines, found := p.Lines(), p.Errors()
	last := lines[len(lines)-1]
	for _, word := range append(words, "the output has failed for too long: shard ", "; since ", "start again") {
		if last.Message != "stopped" || last.Level != "error" || !strings.Contains(last.Error, word) ||
			found[len(found)-1] != last.Message+": "+last.Error { // or something is no line of the log
			t.Errorf("the last line has no %q: %+v, %q", word, last, found)
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
func TestOutputUnusable(t *testing.T) { rig.OnEach(t, testOutputUnusable) }

func testOutputUnusable(t *testing.T, b rig.Broker, _ rig.Engine) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "shard-3")
	if err := os.WriteFile(bad, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	settings := []string{"DATA_OUTPUT_DIR=" + dir, "OUTPUT_ERROR_TIMEOUT=3s", "BATCH_LINGER=10m"}
	var ids []string
	if b.Consumer == "" {
		p := rig.Start(t, "standalone", append(settings, "BROKER_URL="+b.Server)...)
		awaitNotReady(t, p, "not a directory")
		for n := range 50 {
			_, r, _ := p.Post(rig.Entries(n*7, 7))
			ids = append(ids, r.IDs()...)
		}
		awaitFailed(t, p, "shard 3 in "+dir, bad+": not a directory")
	} else {
		server := b.LaunchServer(t)
		ids = server.PostAll(50, 7)
		awaitFailed(t, rig.Start(t, "message-consumer", append(settings, "BROKER_URL="+b.Consumer)...), "shard 3 in "+dir, bad+": not a directory")
		server.Stop()
	}
	if len(ids) == 0 {
		t.Error("nothing was accepted before")
	}
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	consumer, server := b.Launch(t, "DATA_OUTPUT_DIR="+dir)
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
	b := rig.NewVhost(t)
	consumer, server := b.Launch(t, "DATA_OUTPUT_DIR="+dir, "OUTPUT_ERROR_TIMEOUT=2s", "DRAIN_TIMEOUT=10m")
	ids := server.PostAll(20, 7)
	for n := range 5 {
		consumer.Await("its shards", func(l rig.Line) bool { return l.Message == "shard owned" && l.Shard == n })
	}
	tracer := exec.Command(strace, "-f", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO", "-p", strconv.Itoa(consumer.PID()))
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
	ids = append(ids, server.PostAll(50, 7)...)
	awaitFailed(t, consumer, "shard-", "fsync", "input/output error", dir)

	last := b.LaunchConsumer(t, "DATA_OUTPUT_DIR="+dir)
	checkOnce(t, dir, ids, last, server)
}
