package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"async-data-processor/message"
)

// cleanCalls is what a Write without errors asks of its folder, in this order.
var cleanCalls = []string{
	"held", "create", "write", "fsync", "close",
	"open", "held", "link", "remove", "folder fsync",
}

// at returns a plan that has the verdict for the i-th call.
func at(i int, v verdict) func(int, string) verdict {
	return func(j int, _ string) verdict {
		if i == j {
			return v
		}
		return pass
	}
}

// faultRun writes one batch under a plan, and then goes on without faults.
type faultRun struct {
	*testing.T
	path  string
	lines []string
	batch *message.Batch
	shard *Shard
	disk  *faulty
	err   error // of the Write under the plan
}

func startFaultRun(t *testing.T, plan func(int, string) verdict, err error) *faultRun {
	r := newFaultRun(t, plan, err)
	r.write()
	return r
}

func newFaultRun(t *testing.T, plan func(int, string) verdict, err error) *faultRun {
	r := &faultRun{T: t, path: memoryDir(t), lines: numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 5)}
	r.batch = newBatch(r.lines...)
	r.shard = openShard(t, r.path)
	r.disk = newFaulty(t, r.shard, plan, err)
	return r
}

func (r *faultRun) write() {
	defer func() {
		if p := recover(); p != nil {
			r.err = p.(error)
		}
	}()
	_, _, r.err = r.shard.Write(context.Background(), worker, r.batch)
}

// checkUndone fails unless the failed Write left nothing visible, or said so.
func (r *faultRun) checkUndone() {
	r.Helper()
	switch visible, _ := folderNames(r, r.path); {
	case r.err == nil:
		r.Error("Write reported success")
	case len(visible) > 1:
		r.Errorf("two files of one batch: %q", visible)
	case len(visible) == 1 && !errors.Is(r.err, ErrStillVisible):
		r.Errorf("still visible: %q, without a word in %q", visible, r.err)
	}
}

// checkInvisible fails if a reader can see anything.
func (r *faultRun) checkInvisible() {
	r.Helper()
	if visible, _ := folderNames(r, r.path); len(visible) > 0 {
		r.Errorf("visible: %q", visible)
	}
}

// checkRecovery fails unless the next Write publishes the batch exactly once,
// and a new owner finds nothing else.
func (r *faultRun) checkRecovery() {
	r.Helper()
	r.disk.plan = func(int, string) verdict { return pass }
	name := mustWrite(r, r.shard, r.batch)
	r.disk.checkDurable(path.Base(name), content(r.lines))
	if visible, _ := folderNames(r, r.path); !slices.Equal(visible, []string{path.Base(name)}) {
		r.Errorf("visible: %q, want only %s", visible, name)
	}
	r.checkReopened(1)
}

// checkReopened fails unless a new owner sees this many complete files and
// sweeps the rest.
func (r *faultRun) checkReopened(files int) {
	r.Helper()
	if err := r.shard.Close(); err != nil {
		r.Errorf("close: %v", err)
	}
	_, orphans := folderNames(r, r.path)
	s := openShard(r, r.path)
	if s.RemovedTemps() != len(orphans) {
		r.Errorf("swept %d of %q", s.RemovedTemps(), orphans)
	}
	checkFolder(r, r.path, slices.Repeat([][]byte{content(r.lines)}, files)...)
}

func TestCallsOfAWrite(t *testing.T) {
	r := startFaultRun(t, at(-1, pass), nil)
	if r.err != nil {
		t.Fatal(r.err)
	}
	if !slices.Equal(r.disk.calls, cleanCalls) {
		t.Errorf("got  %q\nwant %q", r.disk.calls, cleanCalls)
	}
}

// TestFaultAtEveryCall lets every call of a Write fail, with and without having
// done its work.
func TestFaultAtEveryCall(t *testing.T) {
	for i, call := range cleanCalls {
		for _, v := range []verdict{fail, happened, short, torn} {
			if (v == short || v == torn) && call != "write" {
				continue
			}
			for _, fault := range []error{unix.EIO, unix.ENOSPC, unix.EROFS, unix.EDQUOT} {
				t.Run(fmt.Sprintf("%d %s/%s/%s", i, call, v, unix.ErrnoName(fault.(unix.Errno))), func(t *testing.T) {
					r := startFaultRun(t, at(i, v), fault)
					if v == short {
						fault = io.ErrShortWrite
					}
					if !errors.Is(r.err, fault) || errors.Is(r.err, ErrStillVisible) {
						t.Errorf("got error %v, want %v", r.err, fault)
					}
					checkFolder(t, r.path)
					r.checkUndone()
					r.checkRecovery()
				})
			}
		}
	}
}

// TestSecondFault lets a second call fail, or the process die, while the first
// failure is being cleaned up.
func TestSecondFault(t *testing.T) {
	for i, call := range cleanCalls {
		for _, first := range []verdict{fail, happened} {
			for distance := 1; distance <= 5; distance++ {
				for _, second := range []verdict{fail, happened, crashBefore, crashAfter} {
					t.Run(fmt.Sprintf("%d %s/%s/+%d/%s", i, call, first, distance, second), func(t *testing.T) {
						r := startFaultRun(t, func(j int, _ string) verdict {
							switch j {
							case i:
								return first
							case i + distance:
								return second
							}
							return pass
						}, unix.EIO)
						if second == crashBefore || second == crashAfter {
							r.checkCrashed()
							return
						}
						r.checkUndone()
						r.checkRecovery()
					})
				}
			}
		}
	}
}

// TestPanicAtEveryCall lets every call of a Write panic, before and after its
// work, and calls of the undo panic in their turn. The claim is released, so
// the next Write must find nothing of the first.
func TestPanicAtEveryCall(t *testing.T) {
	for i, call := range cleanCalls {
		for _, first := range []verdict{panicBefore, panicAfter} {
			for distance := range 5 { // 0: the undo works
				for _, second := range []verdict{panicBefore, panicAfter, fail} {
					t.Run(fmt.Sprintf("%d %s/%s/+%d/%s", i, call, first, distance, second), func(t *testing.T) {
						r := startFaultRun(t, func(j int, _ string) verdict {
							switch {
							case j == i:
								return first
							case j > i && j <= i+distance:
								return second
							}
							return pass
						}, unix.EIO)
						if !errors.Is(r.err, errPanicked) {
							t.Fatalf("Write ended with %v, want the panic", r.err)
						}
						if distance == 0 {
							r.checkInvisible()
						}
						r.checkRecovery()
					})
				}
			}
		}
	}
}

// TestExitAtEveryCall: a goroutine that ends within a Write leaves nothing.
func TestExitAtEveryCall(t *testing.T) {
	for i, call := range cleanCalls {
		t.Run(fmt.Sprintf("%d %s", i, call), func(t *testing.T) {
			r := newFaultRun(t, func(j int, _ string) verdict {
				if i == j {
					runtime.Goexit()
				}
				return pass
			}, nil)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				r.write()
				t.Error("Write returned")
			}()
			<-ended
			r.checkInvisible()
			r.checkRecovery()
		})
	}
}

// TestDiskGone lets all calls fail from one on, for several attempts.
func TestDiskGone(t *testing.T) {
	for i, call := range cleanCalls {
		for _, v := range []verdict{fail, happened} {
			t.Run(fmt.Sprintf("%d %s/%s", i, call, v), func(t *testing.T) {
				r := startFaultRun(t, func(j int, _ string) verdict {
					if j >= i {
						return v
					}
					return pass
				}, unix.EIO)
				for range 3 {
					r.checkUndone()
					r.write()
				}
				r.checkUndone()
				r.checkRecovery()
			})
		}
	}
}

// TestCrashAtEveryCall lets the process die before and after every call.
func TestCrashAtEveryCall(t *testing.T) {
	for i, call := range cleanCalls {
		for _, v := range []verdict{crashBefore, crashAfter} {
			t.Run(fmt.Sprintf("%d %s/%s", i, call, v), func(t *testing.T) {
				startFaultRun(t, at(i, v), nil).checkCrashed()
			})
		}
	}
}

// checkCrashed fails unless the next owner finds the batch complete or not at
// all, can go on, and writes only what is not there.
func (r *faultRun) checkCrashed() {
	r.Helper()
	visible, orphans := folderNames(r, r.path)
	if len(visible) > 1 || len(orphans) > 1 {
		r.Errorf("found %q and %q", visible, orphans)
	}
	// A dead process removes nothing; its lock goes with it.
	r.shard.dir.folder.unlock()
	s := openShard(r, r.path)
	r.shard.dir.folder.close()
	if s.RemovedTemps() != len(orphans) {
		r.Errorf("swept %d of %q", s.RemovedTemps(), orphans)
	}
	checkFolder(r, r.path, slices.Repeat([][]byte{content(r.lines)}, len(visible))...)
	if got, want := s.Rebuilt().IDs, len(visible)*len(r.lines); got != want {
		r.Errorf("%d ids are known from the files, want %d", got, want)
	}
	// The broker delivers the messages again, in other company.
	again := len(r.lines) * (1 - len(visible))
	others := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5F", 2)
	write(r, s, min(again, 2)+1, r.lines[3], others[0], r.lines[1])
	write(r, s, max(again-2, 0)+1, append(slices.Clone(r.lines), others...)...)
	write(r, s, 0, r.lines...)
	checkOnce(r, r.path, append(slices.Clone(r.lines), others...)...)
}

// TestUndoIsDurable: what failed behind its link is durably invisible before
// anything is published again, and the fsync that makes it so must succeed.
func TestUndoIsDurable(t *testing.T) {
	settle := []string{"open", "folder fsync"} // an open folder is not trusted either
	syncs := 0
	r := startFaultRun(t, func(_ int, kind string) verdict {
		if kind == "folder fsync" {
			if syncs++; syncs <= 2 {
				return fail
			}
		}
		return pass
	}, unix.EIO)
	for attempt := 2; attempt <= 3; attempt++ {
		before := len(r.disk.calls)
		r.write()
		calls := r.disk.calls[before:]
		if len(calls) < len(settle) || !slices.Equal(calls[:len(settle)], settle) {
			t.Errorf("attempt %d begins with %q, want %q", attempt, calls, settle)
		}
		if attempt == 2 && (r.err == nil || slices.Contains(calls, "create")) {
			t.Errorf("attempt 2 goes on although the fsync failed: %v, %q", r.err, calls)
		}
	}
	if r.err != nil {
		t.Error(r.err)
	}
	before := len(r.disk.calls)
	r.batch = newBatch(numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5F", 5)...)
	r.write()
	again := slices.DeleteFunc(slices.Clone(cleanCalls), func(call string) bool { return call == "open" })
	if calls := r.disk.calls[before:]; r.err != nil || !slices.Equal(calls, again) {
		t.Errorf("the next batch: %v, %q; want %q", r.err, calls, again)
	}
}
