package consumer

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/event"
	"async-data-processor/message"
)

// TestPauseUntil: a pause ends by itself, also at another owner.
func TestPauseUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.command(0, Command{Verb: PauseShard, Until: time.Now().Add(time.Hour)})
		r.command(1, Command{Verb: PauseShard, Until: time.Now().Add(10 * time.Hour)})
		r.queue(0)
		r.queue(1)
		r.after(59 * time.Minute)
		r.checkWritten(0)
		r.after(time.Minute + 2*time.Second)
		r.checkState(0, event.ShardRunning)
		r.checkState(1, event.ShardPaused)
		if known := r.set.Known(message.NewID(), 1, []int{0, 1}); known[0].Pause != nil || known[1].Pause == nil || known[1].Pause.Until.IsZero() {
			t.Errorf("what is known of a shard whose pause is over, and of a paused one: %+v", known)
		}
		r.checkWritten(1)
		r.command(1, Command{Verb: PauseShard, Until: time.Now().Add(20 * time.Hour)})
		r.after(10 * time.Hour)
		r.checkState(1, event.ShardPaused)
		r.stop()
		r.after(11 * time.Hour)
		r.start()
		r.after(2 * time.Second)
		r.checkState(1, event.ShardRunning)
		r.checkWritten(2)
		r.stop()
	})
}

// TestPauseOfAFailingOutput: there is no answer before all is written and visible. A
// resume that comes first takes the pause back.
func TestPauseOfAFailingOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.fail(0, faults{write: broken("write", 0, syscall.ENOSPC)})
		r.queue(0)
		r.after(2 * time.Second)
		if _, err := r.try(0, Command{Verb: PauseShard}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a pause without space: %v", err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := r.try(0, Command{Verb: PauseShard})
			done <- err
		}()
		r.after(time.Second)
		r.command(0, Command{Verb: ResumeShard})
		if err := <-done; !errors.Is(err, ErrSuperseded) {
			t.Errorf("a pause that was taken back: %v", err)
		}
		go func() {
			_, err := r.try(0, Command{Verb: PauseShard})
			done <- err
		}()
		r.after(10 * time.Second)
		r.fail(0, faults{})
		must(t, <-done)
		r.checkFiles(0, 1)
		r.checkState(0, event.ShardPaused)
		r.stop()
	})
}

// TestPauseGivesBack: what cannot be written for long is back at the broker, the folder
// is taken anew, and that completes the pause.
func TestPauseGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.fail(0, faults{write: broken("write", 0, syscall.ENOSPC)})
		r.queue(0)
		r.after(2 * time.Second)
		_, _ = r.try(0, Command{Verb: PauseShard})
		r.after(holdLimit + 2*retryMax)
		r.checkState(0, event.ShardPaused)
		r.checkWaiting(0, 1)
		r.command(0, Command{Verb: PauseShard})
		r.stop()
	})
}

// stubborn is a folder that does not take a control file.
type stubborn struct {
	Folder
	err *error
}

func (f stubborn) SetControl(ctx context.Context, content []byte) error {
	if *f.err != nil {
		return *f.err
	}
	return f.Folder.SetControl(ctx, content)
}

// TestCommandIsDurableFirst: what cannot be made durable is not done, and not answered.
func TestCommandIsDurableFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		full := broken("write", 0, syscall.ENOSPC)
		r.around = func(_ int, f Folder) Folder { return stubborn{f, &full} }
		r.start()
		for _, c := range []Command{{Verb: PauseShard}, {Verb: ResizeShard, Min: 1, Max: 1}} {
			if _, err := r.try(0, c); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%s: %v", c.Verb, err)
			}
		}
		r.checkState(0, event.ShardRunning)
		if s := r.set.Status()[0]; s.WorkersMax != 4 {
			t.Errorf("%d workers at most", s.WorkersMax)
		}
		r.checkTold(1, "command failed", `"verb":"pause"`)
		full = nil
		r.command(0, Command{Verb: PauseShard})
		full = broken("write", 0, syscall.ENOSPC)
		if _, err := r.try(0, Command{Verb: ResumeShard}); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("resume: %v", err)
		}
		r.checkState(0, event.ShardPaused)
		r.stop()
	})
}
