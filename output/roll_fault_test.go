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

// The calls of an append that fills its file, the first one or another, in
// this order.
var (
	firstCalls   = slices.Concat([]string{"held", "open", "create", "folder fsync", "held", "write", "fsync"}, publishCalls)
	anotherCalls = slices.Concat([]string{"held", "write", "fsync"}, publishCalls)
	publishCalls = []string{"close", "linked", "link", "folder fsync", "remove", "folder fsync"}
)

// rollRun appends a batch under a plan, and then goes on without faults.
type rollRun struct {
	*testing.T
	path   string
	before []string // in the file already
	lines  []string
	batch  *message.Batch
	shard  *Shard
	disk   *faulty
	err    error // of the last Write
}

// eachRollRun runs test for the first append of a file and for another.
func eachRollRun(t *testing.T, test func(t *testing.T, calls []string, begin func(t *testing.T, plan func(int, string) verdict, err error) *rollRun)) {
	for before, calls := range [][]string{firstCalls, anotherCalls} {
		test(t, calls, func(t *testing.T, plan func(int, string) verdict, err error) *rollRun {
			r := &rollRun{T: t, path: memoryDir(t), lines: numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 5)}
			r.batch = newBatch(r.lines...)
			r.shard = rollingShard(t, r.path, Roll{Bytes: int64(1 + before*len(content(r.lines)))})
			r.disk = newFaulty(t, r.shard, at(-1, pass), err)
			if before > 0 {
				r.before = numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5D", 5)
				write(t, r.shard, 5, r.before...)
			}
			r.disk.calls, r.disk.plan = nil, plan
			return r
		})
	}
}

// visible is what can be seen, a content for each file.
func (r *rollRun) visible() (contents [][]byte) {
	names, _ := folderNames(r, r.path)
	for _, name := range names {
		contents = append(contents, content(linesOf(r, filepath.Join(r.path, "shard-0", name))))
	}
	return contents
}

func (r *rollRun) write() {
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

// checkAttempt fails if something of a failed Write can be seen, or if one is
// visible and not over.
func (r *rollRun) checkAttempt() {
	r.Helper()
	seen := string(slices.Concat(r.visible()...))
	if r.err != nil && strings.Contains(seen, r.lines[0]) {
		r.Errorf("visible although Write failed with %v:\n%s", r.err, seen)
	}
	if r.err == nil && r.shard.RollErr() == nil && !strings.Contains(seen, r.lines[0]) {
		r.Errorf("the file is full, but not visible, nor missing: %q", r.disk.calls)
	}
}

// checkRecovery fails unless the batch is written now, once, and everything is
// visible and durable when the shard is closed.
func (r *rollRun) checkRecovery() {
	r.Helper()
	r.disk.plan = at(-1, pass)
	_, written, err := r.shard.Write(context.Background(), worker, r.batch)
	if want := len(r.lines); err != nil || written != want && r.err != nil || written > 0 && r.err == nil {
		r.Errorf("the next attempt wrote %d, %v; the one before ended with %v", written, err, r.err)
	}
	if err := errors.Join(r.shard.Roll(context.Background()), r.shard.RollErr(), r.shard.Close()); err != nil {
		r.Error(err)
	}
	all := slices.Concat(r.before, r.lines)
	checkOnce(r, r.path, all...)
	var kept []byte
	for name, n := range r.disk.durable {
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
func (r *rollRun) checkReopened(all []string) {
	r.Helper()
	s := openShard(r, r.path)
	defer s.Close()
	if got := s.Rebuilt(); got.IDs != len(all) || got.Damaged+got.Foreign > 0 {
		r.Errorf("recalled %+v", got)
	}
	if _, other := folderNames(r, r.path); len(other) > 0 {
		r.Errorf("left over: %q", other)
	}
	write(r, s, 0, all...)
}

// checkCrashed fails unless the next owner publishes what was written, and only
// what is missing is written again.
func (r *rollRun) checkCrashed() {
	r.Helper()
	// A dead process does nothing more; its lock goes with it.
	r.shard.dir.folder.unlock()
	s := openShard(r, r.path)
	r.shard.dir.folder.close()
	seen := string(slices.Concat(r.visible()...))
	for _, l := range r.before {
		if !strings.Contains(seen, l) {
			r.Fatalf("lost with the crash: %s", l)
		}
	}
	there := 0
	for _, l := range r.lines {
		there += strings.Count(seen, l)
	}
	if r.err == nil && there < len(r.lines) {
		r.Errorf("%d of the messages are left of a Write that succeeded", there)
	}
	others := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5F", 2)
	write(r, s, len(r.lines)-there+2, slices.Concat(r.lines, others)...)
	all := slices.Concat(r.before, r.lines, others)
	checkOnce(r, r.path, all...)
	if err := s.Close(); err != nil {
		r.Error(err)
	}
	r.checkReopened(all)
}

func TestCallsOfAnAppend(t *testing.T) {
	eachRollRun(t, func(t *testing.T, calls []string, begin func(*testing.T, func(int, string) verdict, error) *rollRun) {
		r := begin(t, at(-1, pass), nil)
		r.write()
		if r.err != nil || !slices.Equal(r.disk.calls, calls) {
			t.Errorf("%v; got  %q\nwant %q", r.err, r.disk.calls, calls)
		}
		r.checkAttempt()
		r.checkRecovery()
	})
}

// TestFaultAtEveryCallOfAnAppend: a batch whose append fails is in no file, a
// batch whose file is not published is written all the same.
func TestFaultAtEveryCallOfAnAppend(t *testing.T) {
	eachRollRun(t, func(t *testing.T, calls []string, begin func(*testing.T, func(int, string) verdict, error) *rollRun) {
		for i, call := range calls {
			for _, v := range []verdict{fail, happened, short, torn} {
				if (v == short || v == torn) && call != "write" {
					continue
				}
				for _, fault := range []error{unix.EIO, unix.ENOSPC} {
					t.Run(fmt.Sprintf("%d %s of %d/%s/%v", i, call, len(calls), v, fault), func(t *testing.T) {
						r := begin(t, at(i, v), fault)
						r.write()
						behind := i >= len(calls)-len(publishCalls)
						want := fault
						switch {
						case behind:
							want = nil
						case v == short:
							want = io.ErrShortWrite
						}
						if !errors.Is(r.err, want) || (r.err == nil) != (want == nil) {
							t.Errorf("got error %v, want %v", r.err, want)
						}
						// What is mended, or only untidy, is not late.
						late := behind && call != "close" && i < len(calls)-1
						if err := r.shard.RollErr(); (err != nil) != late || err != nil && !errors.Is(err, fault) {
							t.Errorf("unrolled: %v", err)
						}
						// A mend gives back the room at once.
						if name := hiddenFile(t, r.path); i > slices.Index(calls, "write") && (name != "") != late && i < len(calls)-2 {
							t.Errorf("hidden: %q", name)
						}
						if call == "close" && !slices.Contains(r.disk.calls, "reopen") {
							t.Errorf("what a close was to write is trusted: %q", r.disk.calls)
						}
						r.checkAttempt()
						r.checkRecovery()
					})
				}
			}
		}
	})
}

// TestSecondFaultOfAnAppend lets a second call fail, or the process die, while
// the first failure is being made good.
func TestSecondFaultOfAnAppend(t *testing.T) {
	eachRollRun(t, func(t *testing.T, calls []string, begin func(*testing.T, func(int, string) verdict, error) *rollRun) {
		for i, call := range calls {
			for _, first := range []verdict{pass, fail, happened, torn, panicBefore, panicAfter} {
				for distance := 1; distance <= 9; distance++ {
					for _, second := range []verdict{fail, happened, panicBefore, panicAfter, crashBefore, crashAfter} {
						if first == torn && call != "write" {
							continue
						}
						t.Run(fmt.Sprintf("%d %s of %d/%s/+%d/%s", i, call, len(calls), first, distance, second), func(t *testing.T) {
							r := begin(t, func(j int, _ string) verdict {
								switch j {
								case i:
									return first
								case i + distance:
									return second
								}
								return pass
							}, unix.EIO)
							r.write()
							if r.disk.crashed {
								r.checkCrashed()
								return
							}
							r.checkAttempt()
							if distance%2 == 0 { // by another owner
								r.checkClosed()
								return
							}
							r.checkRecovery()
						})
					}
				}
			}
		}
	})
}

// checkClosed is checkCrashed behind a Close under what is left of the plan.
func (r *rollRun) checkClosed() {
	r.Helper()
	failed := guarded(r.shard.Close)
	visible, other := folderNames(r, r.path)
	if failed == nil && !r.disk.crashed && len(other) > 0 {
		r.Errorf("closed, but %q is left beside %q", other, visible)
	}
	r.checkCrashed()
}

// TestPanicAtEveryCallOfAnAppend: the panic is the writer's if the batch was not
// written yet; if it was, nobody must think that it was not.
func TestPanicAtEveryCallOfAnAppend(t *testing.T) {
	eachRollRun(t, func(t *testing.T, calls []string, begin func(*testing.T, func(int, string) verdict, error) *rollRun) {
		for i, call := range calls {
			for _, v := range []verdict{panicBefore, panicAfter} {
				for more := range 5 {
					t.Run(fmt.Sprintf("%d %s of %d/%s/and %d more", i, call, len(calls), v, more), func(t *testing.T) {
						r := begin(t, func(j int, _ string) verdict {
							if j >= i && j <= i+more {
								return v
							}
							return pass
						}, nil)
						r.write()
						if behind := i >= len(calls)-len(publishCalls); behind && r.err != nil || !behind && !errors.Is(r.err, errPanicked) {
							t.Errorf("Write ended with %v", r.err)
						}
						r.checkAttempt()
						r.checkRecovery()
					})
				}
			}
		}
	})
}

// TestExitAtEveryCallOfAnAppend: a goroutine may end within a Write.
func TestExitAtEveryCallOfAnAppend(t *testing.T) {
	eachRollRun(t, func(t *testing.T, calls []string, begin func(*testing.T, func(int, string) verdict, error) *rollRun) {
		for i, call := range calls {
			t.Run(fmt.Sprintf("%d %s of %d", i, call, len(calls)), func(t *testing.T) {
				r := begin(t, func(j int, _ string) verdict {
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
				if i < len(calls)-len(publishCalls) {
					r.err = errInterrupted // of a batch that is not written
				}
				r.checkAttempt()
				r.checkRecovery()
			})
		}
	})
}

// TestDiskGoneOfAnAppend lets all calls fail from one on, for several attempts.
func TestDiskGoneOfAnAppend(t *testing.T) {
	eachRollRun(t, func(t *testing.T, calls []string, begin func(*testing.T, func(int, string) verdict, error) *rollRun) {
		for i, call := range calls {
			for _, v := range []verdict{fail, happened, panicBefore} {
				t.Run(fmt.Sprintf("%d %s of %d/%s", i, call, len(calls), v), func(t *testing.T) {
					r := begin(t, func(j int, _ string) verdict {
						if j >= i {
							return v
						}
						return pass
					}, unix.EIO)
					r.write()
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
		}
	})
}

// TestCrashAtEveryCallOfAnAppend lets the process die before and after every
// call.
func TestCrashAtEveryCallOfAnAppend(t *testing.T) {
	eachRollRun(t, func(t *testing.T, calls []string, begin func(*testing.T, func(int, string) verdict, error) *rollRun) {
		for i, call := range calls {
			for _, v := range []verdict{crashBefore, crashAfter} {
				t.Run(fmt.Sprintf("%d %s of %d/%s", i, call, len(calls), v), func(t *testing.T) {
					r := begin(t, at(i, v), nil)
					r.write()
					r.checkCrashed()
				})
			}
		}
	})
}
