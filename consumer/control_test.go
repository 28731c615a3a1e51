package consumer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/event"
	"async-data-processor/message"
	"async-data-processor/output"
)

// TestDamagedControl: what cannot be understood pauses the shard, is told, and is
// replaced by the next command.
func TestDamagedControl(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "no JSON": `{"v":1,"pause"`, "more behind it": `{"v":1}{}`, "of the future": `{"v":2}`, "without a version": `{}`, "too large": strings.Repeat(" ", output.MaxControl) + `{"v":1}`,
		"too many workers": `{"v":1,"workers":{"min":1,"max":33}}`, "no workers": `{"v":1,"workers":{}}`, "of another type": `[]`, "null": `null`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				must(t, os.Mkdir(r.folder(0), 0o755))
				must(t, os.WriteFile(filepath.Join(r.folder(0), ".control.json"), []byte(text), 0o644))
				r.queue(0)
				r.start()
				r.after(time.Minute)
				r.checkState(0, event.ShardPaused)
				r.checkStatus("")
				r.checkWritten(0)
				r.checkTold(1, "the shard's control file is damaged", `"level":"error"`)
				r.command(0, Command{Verb: ResumeShard})
				r.after(2 * time.Second)
				r.checkWritten(1)
				r.stop()
				r.start()
				r.checkState(0, event.ShardRunning)
				r.stop()
			})
		})
	}
}

// TestUnreadableControl: a shard whose control cannot be read is not consumed.
func TestUnreadableControl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		name := filepath.Join(r.folder(0), ".control.json")
		must(t, os.MkdirAll(name, 0o755))
		r.queue(0)
		r.start()
		r.after(30 * time.Second)
		r.checkStatus("1 shard is not open (shard 0: read shard-0/.control.json: is a directory)")
		r.checkWritten(0)
		must(t, os.Remove(name))
		r.after(retryMax + 2*time.Second)
		r.checkStatus("")
		r.checkWritten(1)
		r.stop()
	})
}

// slowToStop is a broker whose Consume ends at once, while the call that ends its context
// goes on: that has many children.
type slowToStop struct{ Queues }

func (q slowToStop) Consume(ctx context.Context, shard, prefetch int, deliveries chan<- *message.Delivery) error {
	var ends []context.CancelFunc // not called: ctx ends them all
	for range 100_000 {
		_, end := context.WithCancel(ctx)
		ends = append(ends, end)
	}
	defer runtime.KeepAlive(ends)
	quick, end := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		<-ctx.Done()
		end()
	}()
	return q.Queues.Consume(quick, shard, prefetch, deliveries)
}

// TestPauseOfALostFolder: the shard takes the folder anew, however fast it ends. Who
// moves the folder away ends no pause.
func TestPauseOfALostFolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Queues = slowToStop{r.memory}
		r.start()
		must(t, os.Rename(r.folder(0), filepath.Join(r.dir, "idle")))
		if _, err := r.try(0, Command{Verb: PauseShard}); !errors.Is(err, output.ErrLost) {
			t.Errorf("a pause of a lost folder: %v", err)
		}
		r.after(time.Second)
		r.command(0, Command{Verb: PauseShard, Reason: "move it"})
		must(t, os.Rename(r.folder(0), filepath.Join(r.dir, "paused")))
		r.queue(0)
		r.after(10 * time.Second)
		r.checkState(0, event.ShardPaused)
		r.checkTold(2, "gave the shard's folder back", "no longer the one that was locked")
		r.checkWritten(0)
		if _, err := os.Stat(filepath.Join(r.folder(0), ".control.json")); err != nil {
			t.Error(err)
		}
		r.command(0, Command{Verb: ResumeShard})
		r.after(2 * time.Second)
		r.checkWritten(1)
		r.stop()
	})
}

// TestResizeShard: the running workers get the bounds at once, and lose them again.
func TestResizeShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		workers := func(want int) {
			t.Helper()
			synctest.Wait()
			got := 0
			for _, w := range r.set.History() {
				if w.Shard == 0 && w.State != event.Stopped {
					got++
				}
			}
			if got != want {
				t.Errorf("%d workers, want %d", got, want)
			}
		}
		r.start()
		workers(3)
		r.command(0, Command{Verb: ResizeShard, Min: 6, Max: 8})
		workers(6)
		r.command(0, Command{Verb: PauseShard})
		r.command(0, Command{Verb: ResumeShard})
		workers(6)
		r.command(0, Command{Verb: ResizeShard, Min: 1, Max: 1})
		r.after(time.Second)
		workers(1)
		out := r.command(0, Command{Verb: ResizeShard})
		if out.Before != "running, 1 to 1 workers" || out.After != "running, 3 to 4 workers" {
			t.Errorf("outcome %+v", out)
		}
		workers(3)
		r.stop()
	})
}

// TestFlushShard: what is incomplete is visible after the answer.
func TestFlushShard(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.cfg.Batch.Linger = 10 * time.Minute
		r.around = func(_ int, f Folder) Folder { return slowFolder{f, 100 * time.Millisecond} }
		r.start()
		for range 5 {
			r.publish(0, 313)
			r.queue(0)
			synctest.Wait()
			before := time.Now()
			r.command(0, Command{Verb: FlushShard})
			if took := time.Since(before); took > 30*time.Second {
				t.Errorf("the flush took %v", took)
			}
			r.checkDepth(0, 0)
		}
		r.checkFiles(0, 313+5) // the same envelope each time
		r.command(0, Command{Verb: PauseShard})
		r.command(0, Command{Verb: FlushShard})
		r.stop()
	})
}

// TestFlushReturned: what goes back to the broker is not told to be flushed.
func TestFlushReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.fail(0, faults{write: broken("write", 0, syscall.ENOSPC)})
		r.queue(0)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := r.set.Command(ctx, 0, Command{Verb: FlushShard}); !errors.Is(err, errReturned) {
			t.Errorf("a flush without space: %v", err)
		}
		r.fail(0, faults{})
		r.after(time.Minute)
		r.stop()
	})
}

// TestFlushAgain: a flush waits also for what an earlier one, that was given up, waited for.
func TestFlushAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.fail(0, faults{write: broken("write", 0, syscall.ENOSPC)})
		r.queue(0)
		synctest.Wait()
		for range 3 {
			if _, err := r.try(0, Command{Verb: FlushShard}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a flush of what is held: %v", err)
			}
		}
		r.fail(0, faults{})
		r.command(0, Command{Verb: FlushShard})
		r.checkFiles(0, 1)
		r.stop()
	})
}

// TestBadCommands never reach a shard.
func TestBadCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		long := strings.Repeat("x", MaxCommandText+1)
		for _, c := range []Command{
			{},
			{Verb: "stop"},
			{Verb: PauseShard, Reason: long},
			{Verb: PauseShard, By: long},
			{Verb: PauseShard, ID: long},
			{Verb: PauseShard, ID: "a b"},
			{Verb: PauseShard, Reason: "\xff"},
			{Verb: PauseShard, Until: time.Now()},
			{Verb: ResumeShard, Until: time.Now().Add(time.Hour)},
			{Verb: PauseShard, Until: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
			{Verb: FlushShard, Max: 3},
			{Verb: ResizeShard, Min: 1},
			{Verb: ResizeShard, Min: 3, Max: 2},
			{Verb: ResizeShard, Min: 1, Max: 33},
			{Verb: ResizeShard, Min: -1, Max: 3},
		} {
			if _, err := r.try(0, c); !errors.Is(err, ErrBadCommand) {
				t.Errorf("%+v: %v", c, err)
			}
		}
		if _, err := r.try(7, Command{Verb: PauseShard}); !errors.Is(err, ErrNotOwner) {
			t.Errorf("a shard that is not there: %v", err)
		}
		if _, err := os.Stat(filepath.Join(r.folder(0), ".control.json")); err == nil {
			t.Error("a bad command has left a control file")
		}
		r.stop()
	})
}

// TestControlIsBounded: the largest commands fit.
func TestControlIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		for i := range 3 * recentLimit {
			r.command(0, Command{
				ID:   fmt.Sprintf("%s%03d", strings.Repeat("x", maxCommandID-3), i),
				Verb: []Verb{PauseShard, ResumeShard, ResizeShard}[i%3], Reason: map[bool]string{true: strings.Repeat("\x01", MaxCommandText)}[i%3 == 0],
				By: strings.Repeat("\x01", MaxCommandText),
			})
		}
		r.stop()
	})
}
