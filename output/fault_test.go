package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"async-data-processor/message"
)

// What a Write without errors asks of its folder, in this order: one that writes a
// file, and appends that fill their file, as its first or as another.
var (
	cleanCalls   = []string{"held", "create", "write", "fsync", "close", "open", "held", "link", "remove", "folder fsync"}
	firstCalls   = slices.Concat([]string{"held", "open", "create", "folder fsync", "held", "write", "fsync"}, publishCalls)
	anotherCalls = slices.Concat([]string{"held", "write", "fsync"}, publishCalls)
	publishCalls = []string{"close", "linked", "link", "folder fsync", "remove", "folder fsync"}
)

// kindOfWrite is a row of the table of faults: the tests below let every call of
// each fail.
type kindOfWrite struct {
	name   string
	calls  []string
	needed int // so many of them decide whether the batch is written
	before int // messages in its file already
	rolls  bool
}

var kindsOfWrite = []kindOfWrite{
	{"a file", cleanCalls, len(cleanCalls), 0, false},
	{"first append", firstCalls, len(firstCalls) - len(publishCalls), 0, true},
	{"another append", anotherCalls, len(anotherCalls) - len(publishCalls), 5, true},
}

// faultRun writes one batch under a plan, and then goes on without faults.
type faultRun struct {
	*testing.T
	kindOfWrite
	path  string
	old   []string // in the file already
	lines []string
	batch *message.Batch
	shard *Shard
	disk  *faulty
	err   error // of the last Write
}

// eachCall runs test for every call of every kind of write.
func eachCall(t *testing.T, test func(t *testing.T, k kindOfWrite, i int)) {
	for _, k := range kindsOfWrite {
		for i, call := range k.calls {
			t.Run(fmt.Sprintf("%s/%d %s", k.name, i, call), func(t *testing.T) { test(t, k, i) })
		}
	}
}

func (k kindOfWrite) begin(t *testing.T, p plan, err error) *faultRun {
	r := &faultRun{T: t, kindOfWrite: k, path: memoryDir(t), lines: numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 5)}
	r.batch = newBatch(r.lines...)
	var roll Roll
	if r.old = numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5D", k.before); k.rolls {
		roll.Bytes = 1
	}
	if k.before > 0 {
		roll.Bytes += int64(len(content(r.old)))
	}
	r.shard = rollingShard(t, r.path, roll)
	r.disk = newFaulty(t, r.shard, at(-1, pass), err)
	if k.before > 0 {
		write(t, r.shard, k.before, r.old...)
	}
	r.disk.calls, r.disk.plan = nil, p
	return r
}

// written is begin and write.
func (k kindOfWrite) written(t *testing.T, p plan, err error) *faultRun {
	r := k.begin(t, p, err)
	r.write()
	return r
}

func (r *faultRun) write() {
	r.err = guarded(func() error {
		_, _, err := r.shard.Write(context.Background(), worker, r.batch)
		return err
	})
}

// guarded returns what do panics with as an error.
func guarded(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = p.(error)
		}
	}()
	return do()
}

// visible is all that a reader can see.
func (r *faultRun) visible() string {
	var seen []byte
	names, _ := folderNames(r, r.path)
	for _, name := range names {
		seen = append(seen, content(linesOf(r, filepath.Join(r.path, "shard-0", name)))...)
	}
	return string(seen)
}

// checkAttempt fails if a failed Write left something visible without a word, or
// if one is visible neither now nor later.
func (r *faultRun) checkAttempt() {
	r.Helper()
	switch seen := strings.Count(r.visible(), r.lines[0]); {
	case seen > 1:
		r.Errorf("visible %d times", seen)
	case seen == 1 && r.err != nil && !errors.Is(r.err, ErrStillVisible):
		r.Errorf("visible although Write failed with %v", r.err)
	case seen == 0 && r.err == nil && r.shard.RollErr() == nil:
		r.Errorf("written, but not visible, nor late: %q", r.disk.calls)
	}
}

// checkRecovery fails unless the batch is written now, once, and everything is
// visible and durable when the shard is closed.
func (r *faultRun) checkRecovery() {
	r.Helper()
	r.disk.plan = at(-1, pass)
	_, written, err := r.shard.Write(context.Background(), worker, r.batch)
	if want := len(r.lines); err != nil || written != want && r.err != nil || written > 0 && r.err == nil {
		r.Errorf("the next attempt wrote %d, %v; the one before ended with %v", written, err, r.err)
	}
	if err := errors.Join(r.shard.Roll(context.Background()), r.shard.RollErr(), r.shard.Close()); err != nil {
		r.Error(err)
	}
	all := slices.Concat(r.old, r.lines)
	checkOnce(r, r.path, all...)
	var kept []byte
	for name, n := range r.disk.disk.durable {
		if ParseName(name) == Visible {
			kept = append(kept, n.synced...)
		}
	}
	if strings.Count(string(kept), "\n") != len(all) {
		r.Errorf("a loss of power leaves visible\n%s", kept)
	}
	r.checkReopened(all)
}

// checkReopened fails unless a new owner finds all of it and leaves nothing else.
func (r *faultRun) checkReopened(all []string) {
	r.Helper()
	s := r.reopen()
	defer s.Close()
	if got := s.Rebuilt(); got.IDs != len(all) || got.Damaged+got.Foreign > 0 {
		r.Errorf("rebuilt %+v", got)
	}
	if _, other := folderNames(r, r.path); len(other) > 0 {
		r.Errorf("left over: %q", other)
	}
	write(r, s, 0, all...)
}

// reopen is the next owner, who removes the temporary files.
func (r *faultRun) reopen() *Shard {
	r.Helper()
	temps := 0
	_, other := folderNames(r, r.path)
	for _, name := range other {
		if ParseName(name) == Temporary {
			temps++
		}
	}
	s := openShard(r, r.path)
	if s.RemovedTemps() != temps {
		r.Errorf("removed %d of %q", s.RemovedTemps(), other)
	}
	return s
}

// checkCrashed fails unless the next owner publishes what was written, and writes
// only what is missing.
func (r *faultRun) checkCrashed() {
	r.Helper()
	// A dead process does nothing more; its lock goes with it.
	r.shard.dir.unlock()
	s := r.reopen()
	r.shard.dir.close()
	seen := r.visible()
	missing := func(lines ...string) (n int) {
		for _, l := range lines {
			n += 1 - strings.Count(seen, l)
		}
		return n
	}
	if missing(r.old...) > 0 {
		r.Fatalf("lost with the crash: of %q only\n%s", r.old, seen)
	}
	gone := missing(r.lines...)
	if r.err == nil && gone > 0 {
		r.Errorf("%d of the messages are missing of a Write that succeeded", gone)
	}
	if !r.rolls && gone%len(r.lines) != 0 {
		r.Errorf("%d of the messages are missing of a file", gone)
	}
	if got, want := s.Rebuilt().IDs, len(r.old)+len(r.lines)-gone; got != want {
		r.Errorf("%d ids are known from the files, want %d", got, want)
	}
	// The broker delivers the messages again, in other company.
	others := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5F", 2)
	some := []string{r.lines[3], others[0], r.lines[1]}
	write(r, s, missing(some...), some...)
	write(r, s, gone+2-missing(some...), slices.Concat(r.lines, others)...)
	all := slices.Concat(r.old, r.lines, others)
	checkOnce(r, r.path, all...)
	if err := s.Close(); err != nil {
		r.Error(err)
	}
	r.checkReopened(all)
}

// checkClosed is checkCrashed after a Close under what is left of the plan.
func (r *faultRun) checkClosed() {
	r.Helper()
	failed := guarded(r.shard.Close)
	if hidden := hiddenFile(r, r.path); failed == nil && !r.disk.crashed && hidden != "" {
		r.Errorf("closed, but %q is left", hidden)
	}
	r.checkCrashed()
}

func TestCallsOfAWrite(t *testing.T) {
	for _, k := range kindsOfWrite {
		r := k.written(t, at(-1, pass), nil)
		if r.err != nil || !slices.Equal(r.disk.calls, k.calls) {
			t.Errorf("%s: %v; got  %q\nwant %q", k.name, r.err, r.disk.calls, k.calls)
		}
		r.checkAttempt()
		r.checkRecovery()
	}
}

// TestFaultAtEveryCall lets every call fail, with and without having done its work.
// A batch that fails is in no file. A batch whose rolling file is not published is
// written all the same.
func TestFaultAtEveryCall(t *testing.T) {
	eachCall(t, func(t *testing.T, k kindOfWrite, i int) {
		for _, v := range []verdict{fail, happened, short, torn} {
			if (v == short || v == torn) && k.calls[i] != "write" {
				continue
			}
			for _, fault := range []error{unix.EIO, unix.ENOSPC, unix.EROFS, unix.EDQUOT} {
				t.Run(fmt.Sprintf("%s/%s", v, unix.ErrnoName(fault.(unix.Errno))), func(t *testing.T) {
					r := k.written(t, at(i, v), fault)
					behind := i >= k.needed
					want := fault
					switch {
					case behind:
						want = nil
					case v == short:
						want = io.ErrShortWrite
					}
					if !errors.Is(r.err, want) || (r.err == nil) != (want == nil) || errors.Is(r.err, ErrStillVisible) {
						t.Errorf("got error %v, want %v", r.err, want)
					}
					if !k.rolls {
						checkFolder(t, r.path)
					}
					r.checkRolling(i, behind, fault)
					r.checkAttempt()
					r.checkRecovery()
				})
			}
		}
	})
}

// checkRolling fails unless the rolling file is late and hidden only if the i-th
// call has to be done again for its publication.
func (r *faultRun) checkRolling(i int, behind bool, fault error) {
	r.Helper()
	call := r.calls[i]
	// What is repaired, or only untidy, is not late.
	late := behind && call != "close" && i < len(r.calls)-1
	if err := r.shard.RollErr(); (err != nil) != late || err != nil && !errors.Is(err, fault) {
		r.Errorf("late: %v", err)
	}
	// A repair gives back the room at once.
	if name := hiddenFile(r, r.path); i > slices.Index(r.calls, "write") && (name != "") != late && i < len(r.calls)-2 {
		r.Errorf("hidden: %q", name)
	}
	if behind && call == "close" && !slices.Contains(r.disk.calls, "reopen") {
		r.Errorf("what a close was to write is trusted: %q", r.disk.calls)
	}
}

// TestSecondFault lets a second call fail, or the process die, while the first
// failure is being cleaned up.
func TestSecondFault(t *testing.T) {
	eachCall(t, func(t *testing.T, k kindOfWrite, i int) {
		for _, first := range []verdict{pass, fail, happened, torn, panicBefore, panicAfter} {
			if first == torn && k.calls[i] != "write" {
				continue
			}
			for distance := 1; distance <= 9; distance++ {
				for _, second := range []verdict{fail, happened, panicBefore, panicAfter, crashBefore, crashAfter} {
					t.Run(fmt.Sprintf("%s/+%d/%s", first, distance, second), func(t *testing.T) {
						r := k.written(t, func(j int, _ string) verdict {
							switch j {
							case i:
								return first
							case i + distance:
								return second
							}
							return pass
						}, unix.EIO)
						if r.err == nil && first != pass && i < k.needed {
							t.Error("Write reported success")
						}
						if r.disk.crashed {
							r.checkCrashed()
							return
						}
						// A panic cannot say what it leaves.
						if k.rolls || !errors.Is(r.err, errPanicked) {
							r.checkAttempt()
						}
						if distance%2 == 0 { // by another owner
							r.checkClosed()
							return
						}
						r.checkRecovery()
					})
				}
			}
		}
	})
}

// TestPanicAtEveryCall lets every call panic, before and after its work, and calls
// of the undo in their turn. The claim is released, so the next Write must find
// nothing of the first. If the batch was written, Write must not panic.
func TestPanicAtEveryCall(t *testing.T) {
	eachCall(t, func(t *testing.T, k kindOfWrite, i int) {
		for _, first := range []verdict{panicBefore, panicAfter} {
			for more := range 5 {
				for _, second := range []verdict{panicBefore, panicAfter, fail} {
					t.Run(fmt.Sprintf("%s/and %d more/%s", first, more, second), func(t *testing.T) {
						r := k.written(t, func(j int, _ string) verdict {
							switch {
							case j == i:
								return first
							case j > i && j <= i+more:
								return second
							}
							return pass
						}, unix.EIO)
						if behind := i >= k.needed; behind && r.err != nil || !behind && !errors.Is(r.err, errPanicked) {
							t.Errorf("Write ended with %v", r.err)
						}
						if k.rolls || more == 0 {
							r.checkAttempt()
						}
						r.checkRecovery()
					})
				}
			}
		}
	})
}

// TestExitAtEveryCall: a goroutine that ends within a Write leaves nothing.
func TestExitAtEveryCall(t *testing.T) {
	eachCall(t, func(t *testing.T, k kindOfWrite, i int) {
		r := k.begin(t, func(j int, _ string) verdict {
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
		if i < k.needed {
			r.err = errInterrupted // of a batch that is not written
		}
		r.checkAttempt()
		r.checkRecovery()
	})
}

// TestDiskGone lets all calls fail from one on, for several attempts.
func TestDiskGone(t *testing.T) {
	eachCall(t, func(t *testing.T, k kindOfWrite, i int) {
		for _, v := range []verdict{fail, happened, panicBefore} {
			if v == panicBefore && !k.rolls { // which cannot say what it leaves
				continue
			}
			t.Run(v.String(), func(t *testing.T) {
				r := k.written(t, func(j int, _ string) verdict {
					if j >= i {
						return v
					}
					return pass
				}, unix.EIO)
				r.checkAttempt()
				for range 3 {
					_ = guarded(func() error { return r.shard.Roll(context.Background()) })
					if r.err != nil {
						r.write()
					}
					r.checkAttempt()
				}
				r.checkRecovery()
			})
		}
	})
}

// TestCrashAtEveryCall lets the process die before and after every call.
func TestCrashAtEveryCall(t *testing.T) {
	eachCall(t, func(t *testing.T, k kindOfWrite, i int) {
		for _, v := range []verdict{crashBefore, crashAfter} {
			t.Run(v.String(), func(t *testing.T) { k.written(t, at(i, v), nil).checkCrashed() })
		}
	})
}

// TestUndoIsDurable: what failed after its link is durably invisible before
// anything is published again, and the fsync that makes it so must succeed.
func TestUndoIsDurable(t *testing.T) {
	again := []string{"open", "folder fsync"} // an open folder is not trusted either
	syncs := 0
	r := kindsOfWrite[0].written(t, func(_ int, kind string) verdict {
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
		if len(calls) < len(again) || !slices.Equal(calls[:len(again)], again) {
			t.Errorf("attempt %d begins with %q, want %q", attempt, calls, again)
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
	again = slices.DeleteFunc(slices.Clone(cleanCalls), func(call string) bool { return call == "open" })
	if calls := r.disk.calls[before:]; r.err != nil || !slices.Equal(calls, again) {
		t.Errorf("the next batch: %v, %q; want %q", r.err, calls, again)
	}
}
