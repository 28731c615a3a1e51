package consumer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker/brokertest"
	"async-data-processor/event"
	"async-data-processor/message"
	"async-data-processor/output"
)

// both runs a test with a file for each batch, and with files that roll.
func both(t *testing.T, test func(t *testing.T, r *rig)) {
	for name, roll := range map[string]output.Roll{"files": {}, "rolling": {Interval: time.Hour}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.roll = roll
				test(t, r)
			})
		})
	}
}

// command sends a command to a shard, and fails unless it is applied within a minute.
func (r *rig) command(shard int, c Command) Outcome {
	r.t.Helper()
	out, err := r.try(shard, c)
	if err != nil {
		r.t.Errorf("after %v: %v", time.Since(r.began), err)
	}
	return out
}

func (r *rig) try(shard int, c Command) (Outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return r.set.Command(ctx, shard, c)
}

// load publishes an envelope of 7 messages to shard 0 every interval, until it is told
// to stop.
func (r *rig) load(interval time.Duration) (stop func() (messages int)) {
	var load sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	sent := 0
	load.Go(func() {
		for ; ctx.Err() == nil; sent++ {
			var text bytes.Buffer
			for i := range 7 {
				fmt.Fprintf(&text, `{"message_id":"L%d.%d","timestamp":"2019-10-12T08:10:54Z"}`+"\n", sent, i)
			}
			e := message.Envelope{ID: fmt.Sprint("L", sent), Count: 7, Body: text.Bytes()}
			if err := brokertest.Publish(context.Background(), r.larger, e); err != nil {
				r.t.Error(err)
			}
			time.Sleep(interval)
		}
	})
	return func() int {
		cancel()
		load.Wait()
		return 7 * sent
	}
}

// visible returns the names in the shard's folder that a reader sees.
func (r *rig) visible(shard int) []string {
	names, _ := filepath.Glob(filepath.Join(r.folder(shard), "*.ndjson"))
	return names
}

// checkState fails unless the shard has the state.
func (r *rig) checkState(shard int, want event.ShardState) {
	r.t.Helper()
	synctest.Wait()
	for _, sh := range r.set.Status() {
		if sh.Shard == shard {
			if sh.State != want || (sh.Pause != nil) != (want == event.ShardPaused) {
				r.t.Errorf("after %v shard %d is %s with %+v, want %s", time.Since(r.began), shard, sh.State, sh.Pause, want)
			}
			return
		}
	}
	r.t.Errorf("shard %d is not there", shard)
}

// checkOnce fails unless so many messages of shard 0 are in files, each once.
func (r *rig) checkOnce(want int) {
	r.t.Helper()
	ids := r.written(0)
	slices.Sort(ids)
	if n := len(slices.Compact(slices.Clone(ids))); len(ids) != want || n != want {
		r.t.Errorf("after %v %d messages are in files, %d of them different, want %d", time.Since(r.began), len(ids), n, want)
	}
}

// TestPauseUnderLoad: after the answer no file appears, nothing is in hand, and the
// process is ready; resumed, the shard has all, once.
func TestPauseUnderLoad(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.start()
		stop := r.load(50 * time.Millisecond)
		r.after(10 * time.Second)
		out := r.command(0, Command{Verb: PauseShard, Reason: "maintenance", By: "ann"})
		if out.Before != "running, 3 to 4 workers" || out.After != "paused, 3 to 4 workers" || out.Repeated {
			t.Errorf("outcome %+v", out)
		}
		names := r.visible(0)
		if len(names) == 0 {
			t.Error("nothing was written before the answer")
		}
		if hidden, _ := filepath.Glob(filepath.Join(r.folder(0), ".*.rolling")); len(hidden) > 0 {
			t.Errorf("after the answer there are %q", hidden)
		}
		r.checkState(0, event.ShardPaused)
		if u := r.set.Status()[0].Unsettled; u != 0 {
			t.Errorf("%d envelopes are unsettled", u)
		}
		r.checkDepth(0, r.memory.Waiting(0))
		r.after(5 * time.Second)
		sent := stop()
		r.after(31 * time.Minute)
		if now := r.visible(0); !slices.Equal(now, names) {
			t.Errorf("after the answer %d files have become %d", len(names), len(now))
		}
		r.checkStatus("")
		if n := r.set.Status().Owned(shards); n != shards {
			t.Errorf("%d shards are owned", n)
		}
		r.checkTold(4, "the shard is paused", `"reason":"maintenance"`) // at once, and every 10 minutes
		r.checkTold(1, "command taken", `"before":"running, 3 to 4 workers"`)
		r.checkTold(1, "command applied", `"by":"ann"`)
		r.command(0, Command{Verb: ResumeShard})
		r.checkState(0, event.ShardRunning)
		r.after(time.Minute)
		r.command(0, Command{Verb: FlushShard})
		r.checkOnce(sent)
		r.stop()
		r.checkOnce(sent)
	})
}

// counted counts how often a shard is consumed.
type counted struct {
	Queues
	consumed *atomic.Int32
}

func (c counted) Consume(ctx context.Context, shard, prefetch int, deliveries chan<- *message.Delivery) error {
	if shard == 0 {
		c.consumed.Add(1)
	}
	return c.Queues.Consume(ctx, shard, prefetch, deliveries)
}

// TestPauseMovesWithTheFolder: another process that takes the folder consumes nothing,
// however the one before has ended; what a crash has left is visible then.
func TestPauseMovesWithTheFolder(t *testing.T) {
	both(t, func(t *testing.T, a *rig) {
		a.start()
		a.queue(0)
		a.after(2 * time.Second)
		a.command(0, Command{ID: "one", Verb: PauseShard, Reason: "why", By: "ann"})
		a.command(0, Command{Verb: ResizeShard, Min: 1, Max: 2})
		crashed := t.TempDir()
		must(t, os.CopyFS(crashed, os.DirFS(a.dir)))
		a.queue(0)
		a.stop()
		for _, dir := range []string{a.dir, crashed} {
			var consumed atomic.Int32
			b := newRig(t)
			b.memory, b.dir, b.roll = a.memory, dir, a.roll
			b.cfg.Queues = counted{a.memory, &consumed}
			b.start()
			b.after(time.Hour)
			b.checkState(0, event.ShardPaused)
			b.checkStatus("")
			b.checkFiles(0, 1)
			if n := consumed.Load(); n != 0 {
				t.Errorf("a paused shard was consumed %d times", n)
			}
			if out := b.command(0, Command{ID: "one", Verb: PauseShard}); !out.Repeated {
				t.Error("the next owner does not know the command")
			}
			if s := b.set.Status()[0]; s.Pause.Reason != "why" || s.Pause.By != "ann" || s.WorkersMin != 1 || s.WorkersMax != 2 {
				t.Errorf("the next owner has %+v, %+v", s, s.Pause)
			}
			if dir == crashed {
				b.command(0, Command{Verb: ResumeShard})
				b.after(2 * time.Second)
				b.command(0, Command{Verb: FlushShard})
				b.checkFiles(0, 2)
				workers := 0
				for _, w := range b.set.History() {
					if w.Shard == 0 && w.State != event.Stopped {
						workers++
					}
				}
				if workers != 1 {
					t.Errorf("%d workers, want 1", workers)
				}
			}
			b.stop()
		}
	})
}

// TestPauseOfAHandOver: a shard that is taken from the Set while it pauses completes the
// command, and its next owner is paused.
func TestPauseOfAHandOver(t *testing.T) {
	both(t, func(t *testing.T, a *rig) {
		a.cfg.Batch.Linger = 10 * time.Minute
		a.cfg.WorkersMin = 1
		a.around = func(_ int, f Folder) Folder { return slowFolder{f, 10 * time.Second} }
		a.start()
		b := newRig(t)
		b.memory, b.dir, b.roll, b.cfg.Queues = a.memory, a.dir, a.roll, a.memory.Open(nil)
		b.run()
		a.queue(0)
		a.after(time.Second)
		done := make(chan error, 1)
		go func() {
			_, err := a.try(0, Command{Verb: PauseShard})
			done <- err
		}()
		a.after(time.Second)
		a.set.Stop(0)
		b.set.Start(0)
		if err := <-done; err != nil {
			t.Error(err)
		}
		a.checkFiles(0, 1)
		b.after(2 * time.Second)
		b.checkState(0, event.ShardPaused)
		if _, err := a.try(0, Command{Verb: ResumeShard}); !errors.Is(err, ErrNotOwner) {
			t.Errorf("who does not own the shard takes a command: %v", err)
		}
		a.stop()
		b.stop()
	})
}

// lateFolder tells late that the control file is durable.
type lateFolder struct{ Folder }

func (f lateFolder) SetControl(ctx context.Context, content []byte) error {
	err := f.Folder.SetControl(ctx, content)
	time.Sleep(time.Second)
	return err
}

// TestPauseEndsTheOwner: a pause that becomes durable while the shard is given up is
// answered as what it is.
func TestPauseEndsTheOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newRig(t)
		a.around = func(_ int, f Folder) Folder { return lateFolder{f} }
		a.start()
		time.AfterFunc(500*time.Millisecond, func() { a.set.Stop(0) })
		a.command(0, Command{Verb: PauseShard})
		a.around = nil
		a.set.Start(0)
		a.after(time.Second)
		a.checkState(0, event.ShardPaused)
		a.stop()
	})
}

// nowhere is a folder that takes a control file.
type nowhere struct{ Folder }

func (nowhere) SetControl(context.Context, []byte) error { return nil }

// TestPauseOfABeginning: a shard that was paused and begins to consume is not paused.
func TestPauseOfABeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Dir, r.cfg.Open = new(output.Dir), func(context.Context, int, func()) (Folder, error) { return nil, nil }
		r.cfg.Events = func(event.Event) {}
		s := New(r.cfg)
		sh := newShard(s, t.Context(), 0, toConsume)
		s.running[0] = sh
		sh.folder, sh.state = nowhere{}, event.ShardPaused
		_, stop := sh.begin()
		defer stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := s.Command(ctx, 0, Command{Verb: PauseShard}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want no answer", err)
		}
	})
}

// slowFolder takes its time for a write.
type slowFolder struct {
	Folder
	takes time.Duration
}

func (f slowFolder) Write(ctx context.Context, worker string, b *message.Batch) (string, []message.Message, error) {
	time.Sleep(f.takes)
	return f.Folder.Write(ctx, worker, b)
}
