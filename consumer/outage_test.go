package consumer

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// scarcities are what passes without a repair of the disk: no space, no quota, no
// descriptors of the process or of the system.
var scarcities = []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE}

// TestTakeWaitsForSpace: a shard on a full disk, or without descriptors, is not
// owned, and nothing of it consumed, for as long as it takes; then it goes on by
// itself.
func TestTakeWaitsForSpace(t *testing.T) {
	for _, scarce := range scarcities {
		t.Run(scarce.Error(), func(t *testing.T) { testTakeWaits(t, scarce) })
	}
}

func testTakeWaits(t *testing.T, scarce syscall.Errno) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.fail(0, faults{open: broken("write", 0, scarce)})
		r.queue(0)
		r.queue(1)
		r.start()
		for range 8 {
			r.after(time.Hour)
			r.checkStatus("1 shard is not open (shard 0: write shard-0/.x.tmp: " + scarce.Error() + ")")
			r.checkWritten(1)
			r.checkWaiting(0, 1)
		}
		if r.told("cannot open the shard, consuming nothing of it", `"level":"warn"`) == 0 {
			t.Error("nothing is told")
		}
		r.fail(0, faults{})
		r.after(retryMax + time.Second + r.cfg.Batch.Linger)
		r.checkStatus("")
		r.checkWritten(2)
		r.stop()
	})
}

// TestStopWithoutAShard: a process that could take nothing stops in order.
func TestStopWithoutAShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for n := range shards {
			r.fail(n, faults{open: broken("fsync", n, syscall.EIO)})
		}
		r.start()
		r.after(10 * time.Second)
		r.stop()
	})
}

// TestHeldForLong: what a shard holds goes back to the broker once, long before
// that would take it back itself, and nothing more is consumed until there is
// space.
func TestHeldForLong(t *testing.T) {
	for _, scarce := range scarcities {
		t.Run(scarce.Error(), func(t *testing.T) { testHeldForLong(t, scarce) })
	}
}

func testHeldForLong(t *testing.T, scarce syscall.Errno) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		full := broken("write", 0, scarce)
		r.fail(0, faults{open: full, write: full})
		r.queue(0)
		r.after(holdLimit)
		r.checkStatus("1 worker cannot write its batch")
		r.checkWaiting(0, 0)
		r.after(10 * time.Second)
		tried := r.tried()
		for range 24 {
			r.checkStatus("1 shard is not open (shard 0: ")
			r.checkWaiting(0, 1)
			r.after(time.Hour)
		}
		if now := r.tried(); now != tried {
			t.Errorf("%d attempts to write what was returned", now-tried)
		}
		r.fail(0, faults{})
		r.after(retryMax + time.Second + r.cfg.Batch.Linger)
		r.checkStatus("")
		r.checkWritten(1)
		r.stop()
	})
}

// TestStopWhileHeld: a shard that is taken from the Set gives back what its output does
// not take, soon, because another process waits for it. One that drains keeps it.
func TestStopWhileHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		full := broken("write", 0, syscall.ENOSPC)
		r.fail(0, faults{open: full, write: full})
		r.queue(0)
		r.after(10 * time.Second)
		r.checkWaiting(0, 0)
		r.checkRunning(shards, shards)
		r.set.Stop(0)
		r.after(10 * time.Second)
		r.checkWaiting(0, 1)
		r.checkRunning(shards, shards-1)
		r.set.Start(0)
		r.fail(0, faults{})
		r.after(10 * time.Second)
		r.checkWritten(1)
		r.stop()
	})
}

// TestOutputFails: a disk that is not full but broken ends the process, after
// the time that it is given. What cannot be written is back at the broker at
// once, of a shard that waits for space as well; the others drain.
func TestOutputFails(t *testing.T) {
	for name, tc := range map[string]struct {
		faults faults
		want   string
	}{
		"while a batch is held":    {faults{write: broken("fsync", 0, syscall.EIO)}, "fsync shard-0/.x.tmp: input/output error"},
		"while the name stays":     {faults{write: fmt.Errorf("%w; more", broken("link", 0, syscall.EROFS))}, "link shard-0/.x.tmp: read-only file system; more"},
		"while the shard is taken": {faults{open: broken("mkdir", 0, syscall.EIO)}, "mkdir shard-0/.x.tmp: input/output error"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.cfg.Batch.Linger = 10 * time.Minute
				r.fail(0, tc.faults)
				r.fail(1, faults{write: broken("write", 1, syscall.ENOSPC)})
				r.start()
				for range r.cfg.Batch.Size {
					r.queue(0)
				}
				r.after(2 * time.Second) // shards 0 and 1 try at different times
				for range r.cfg.Batch.Size {
					r.queue(1)
				}
				r.queue(2) // lingers
				r.after(r.cfg.ErrorTimeout - 3*time.Second)
				select {
				case err := <-r.done:
					t.Fatalf("it ended early: %v", err)
				default:
				}
				<-r.set.Failed().Done()
				if took := time.Since(r.began); took > r.cfg.ErrorTimeout+retryMax {
					t.Errorf("it goes on for %v", took)
				}
				err := r.ended()
				if !errors.Is(err, ErrOutputFailed) {
					t.Errorf("it ended with %v", err)
				}
				since := r.began.Format(time.RFC3339)
				for _, want := range []string{"shard 0 in " + r.dir, tc.want, "since " + since, "--output-error-timeout", "start again"} {
					if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
						t.Errorf("the error has no %q: %v", want, err)
					}
				}
				r.checkWritten(1)
				for n, want := range []int{r.cfg.Batch.Size, r.cfg.Batch.Size, 0} {
					r.checkWaiting(n, want)
				}
			})
		})
	}
}

// TestOutputRecovers: what does not last does not end the process.
func TestOutputRecovers(t *testing.T) {
	broke, full := broken("fsync", 0, syscall.EIO), broken("write", 0, syscall.EDQUOT)
	for name, steps := range map[string][]faults{
		"a write between":       {{write: broke}, {}, {write: broke}},
		"another owner between": {{open: broke}, {standby: true}, {open: broke}},
		"a lack of space":       {{write: broke}, {write: full}, {write: broke}},
		"no failure of a disk":  {{write: errors.New("pending")}, {write: errors.New("pending")}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// What is between ends a failure, not that it is quiet meanwhile.
				r := newRig(t)
				r.cfg.WorkerTimeout = time.Hour
				r.fail(0, steps[0])
				r.start()
				for _, f := range steps {
					r.fail(0, f)
					r.queue(0)
					r.after(50 * time.Second)
				}
				r.fail(0, faults{})
				r.after(time.Minute)
				r.checkStatus("")
				r.checkWritten(len(steps))
				r.stop()
			})
		})
	}
}

// TestOldFailureIsForgotten: hours after a failure that ended without a write
// to prove it, another one is given its time, too.
func TestOldFailureIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &outage{patience: time.Minute, quiet: 40 * time.Second}
		fault := broken("fsync", 0, syscall.EIO)
		for range 3 {
			if err := o.met(fault); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Hour)
		}
		for range 2 {
			if err := o.met(fault); err != nil {
				t.Error(err)
			}
			time.Sleep(30 * time.Second)
		}
		if err := o.met(fault); !errors.Is(err, ErrOutputFailed) {
			t.Errorf("after a minute: %v", err)
		}
	})
}
