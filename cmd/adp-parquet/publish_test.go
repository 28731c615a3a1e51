package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"async-data-processor/message"
)

// TestAgain: a second run succeeds and changes nothing. What another file, another
// setting or another program has made stays, and ends the run for ever.
func TestAgain(t *testing.T) {
	file := publishLines(t, lined(t, message.Strict, `{`+stamp+`}`, `{`+stamp+`,"value":"F"}`)...)
	dir := filepath.Join(t.TempDir(), "made", "by it")
	final := parquetOf(file, dir)
	wantCode(t, exitDone, "2 rows", nil, "--out", dir, file)
	before, err := os.ReadFile(final)
	must(t, err)
	info, err := os.Stat(final)
	must(t, err)
	wantCode(t, exitDone, "2 rows", nil, "--out", dir, file)
	again, err := os.Stat(final)
	must(t, err)
	if !os.SameFile(info, again) || !again.ModTime().Equal(info.ModTime()) {
		t.Error("the second run has written the result again")
	}
	wantCode(t, exitNever, "made of something else", nil, "--out", dir, "--timestamp-field", "value", file)

	text, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, bytes.Replace(text, []byte(`"F"`), []byte(`"G"`), 1), 0o644))
	wantCode(t, exitNever, "made of something else", nil, "--out", dir, file)
	if after, err := os.ReadFile(final); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the result has changed: %v", err)
	}
	must(t, os.WriteFile(final, []byte("not Parquet"), 0o644))
	wantCode(t, exitNever, "is no Parquet file", nil, "--out", dir, file)
	must(t, os.WriteFile(final, nil, 0o644))
	wantCode(t, exitNever, "is no Parquet file", nil, "--out", dir, file)
	if got := names(t, dir); !slices.Equal(got, []string{filepath.Base(final)}) {
		t.Errorf("left: %q", got)
	}
}

// traced returns the program behind strace, which injects a fault.
func traced(t *testing.T, fault string, args ...string) *exec.Cmd {
	return program(t, []string{"strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace=" + strings.SplitN(fault, ":", 2)[0], "-e", "inject=" + fault}, args...)
}

// TestKilled: kill -9 at each step of the publication leaves the whole result or none,
// and the next run makes it and leaves nothing beside it.
func TestKilled(t *testing.T) {
	lines := lined(t, message.Strict, slices.Repeat([]string{`{` + stamp + `}`}, 1000)...)
	for _, fault := range []string{
		"flock:signal=KILL:when=1", "pwrite64,write:signal=KILL:when=1", "fsync:signal=KILL:when=1",
		"renameat2:signal=KILL:when=1", "folder fsync:signal=KILL:when=1", // not the second one: each thread is counted by itself
		// Where the flag is not known the result is linked.
		"linkat:signal=KILL:when=1", "unlinkat:signal=KILL:when=1",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			file, dir := publishLines(t, lines...), t.TempDir()
			fault, ofFolder := strings.CutPrefix(fault, "folder ")
			cmd := traced(t, fault, "--out", dir, file)
			if ofFolder {
				cmd.Args = slices.Insert(cmd.Args, 1, "-P", dir)
			}
			if strings.Contains(fault, "link") {
				cmd.Args = slices.Insert(cmd.Args, 1, "-e", "inject=renameat2:error=EINVAL")
				cmd.Args[slices.Index(cmd.Args, "trace="+strings.SplitN(fault, ":", 2)[0])] += ",renameat2"
			}
			out, err := cmd.CombinedOutput()
			status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if err == nil || !status.Signaled() && status.ExitStatus() != 128+int(syscall.SIGKILL) {
				t.Fatalf("it was not killed: %v, %s", err, out)
			}
			final := parquetOf(file, dir)
			if in, err := os.ReadFile(final); err == nil && len(rowsOf(t, in)) != len(lines) {
				t.Fatal("the result is not whole")
			}
			wantCode(t, exitDone, "1000 rows", nil, "--out", dir, file)
			in, err := os.ReadFile(final)
			must(t, err)
			if n := len(rowsOf(t, in)); n != len(lines) {
				t.Errorf("%d rows, want %d", n, len(lines))
			}
			if got := names(t, dir); !slices.Equal(got, []string{filepath.Base(final)}) {
				t.Errorf("left: %q", got)
			}
		})
	}
}

// TestLinked: a result that a killed run has linked twice survives the next run, even if
// it was moved away in between.
func TestLinked(t *testing.T) {
	file, dir, away := publishLines(t, lined(t, message.Strict, `{`+stamp+`}`)...), t.TempDir(), t.TempDir()
	wantCode(t, exitDone, "1 rows", nil, "--out", dir, file)
	final := parquetOf(file, dir)
	must(t, os.Link(final, filepath.Join(dir, "."+filepath.Base(final)+".tmp")))
	moved := filepath.Join(away, "moved")
	must(t, os.Rename(final, moved))
	wantCode(t, exitDone, "1 rows", nil, "--out", dir, file)
	old, err := os.Stat(moved)
	must(t, err)
	made, err := os.Stat(final)
	must(t, err)
	if os.SameFile(old, made) {
		t.Error("the moved result was written again")
	}
}

// TestDiskErrors: a full disk is tried again later, another error spends an attempt, and
// neither leaves anything.
func TestDiskErrors(t *testing.T) {
	lines := lined(t, message.Strict, slices.Repeat([]string{`{` + stamp + `}`}, 1000)...)
	for _, tt := range []struct {
		fault string
		want  int
	}{
		{"write:error=ENOSPC:when=1", exitLater}, // before the runtime has written anything
		{"fsync:error=ENOSPC:when=1", exitLater},
		{"fsync:error=EDQUOT:when=1", exitLater},
		{"fsync:error=EIO:when=1", exitFailure},
		{"renameat2:error=EACCES:when=1", exitFailure},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			t.Parallel()
			file, dir := publishLines(t, lines...), t.TempDir()
			cmd := traced(t, tt.fault, "--out", dir, file)
			out, _ := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != tt.want {
				t.Errorf("code %d, want %d: %s", code, tt.want, out)
			}
			wantNothing(t, dir)
		})
	}
}

// TestTwins: runs of one file at the same time all succeed, and make one result.
func TestTwins(t *testing.T) {
	lines := lined(t, message.Strict, slices.Repeat([]string{`{` + stamp + `}`}, 5000)...)
	file, dir := publishLines(t, lines...), t.TempDir()
	var twins sync.WaitGroup
	for range 6 {
		cmd := program(t, nil, "--out", dir, file)
		twins.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "5000 rows") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	twins.Wait()
	in, err := os.ReadFile(parquetOf(file, dir))
	must(t, err)
	if n := len(rowsOf(t, in)); n != len(lines) {
		t.Errorf("%d rows", n)
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("left: %q", got)
	}
}

// TestStopped: a signal ends a run that waits for its twin, and one that works, which
// leaves nothing.
func TestStopped(t *testing.T) {
	file, dir := publishLines(t, lined(t, message.Strict, `{`+stamp+`}`)...), t.TempDir()
	signalled, stop := context.WithCancelCause(t.Context())
	stop(errors.New("terminated"))
	wantStopped := func() {
		t.Helper()
		var told bytes.Buffer
		code := run(signalled, []string{"--out", dir, file}, func(string) string { return "" }, &told, &told)
		if code != exitFailure || !strings.Contains(told.String(), "terminated") {
			t.Errorf("code %d: %s", code, told.String())
		}
	}
	wantStopped()
	wantNothing(t, dir)

	f, err := os.Create(filepath.Join(dir, "."+filepath.Base(parquetOf(file, dir))+".tmp"))
	must(t, err)
	must(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
	wantStopped()
	must(t, f.Close())
	wantCode(t, exitDone, "1 rows", nil, "--out", dir, file)
}
