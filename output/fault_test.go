package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

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

// secondFault is a plan that has a first verdict for the i-th call, and another for
// the one so many calls behind. reached tells that it came to that.
func secondFault(i int, first verdict, distance int, second verdict, reached *bool) plan {
	return func(j int, _ string) verdict {
		switch j {
		case i:
			return first
		case i + distance:
			*reached = true
			return second
		}
		return pass
	}
}

// TestSecondFault lets a second call fail, or the process die, while the first
// failure is being cleaned up, by the Write or by a Close.
func TestSecondFault(t *testing.T) {
	eachCall(t, func(t *testing.T, k kindOfWrite, i int) {
		for _, first := range []verdict{fail, happened, torn, panicBefore, panicAfter} {
			if first == torn && k.calls[i] != "write" {
				continue
			}
			for distance, reached := 1, true; reached; distance++ {
				reached = false
				for _, second := range []verdict{fail, happened, panicBefore, panicAfter, crashBefore, crashAfter} {
					t.Run(fmt.Sprintf("%s/+%d/%s", first, distance, second), func(t *testing.T) {
						r := k.written(t, secondFault(i, first, distance, second, &reached), unix.EIO)
						if r.err == nil && i < k.needed {
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
						if !reached || distance%2 == 0 { // by another owner
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
