package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/event"
	"async-data-processor/message"
)

// ward is the half behind the broker over an output that fails as it is told,
// on the clock of the test's bubble.
type ward struct {
	works
	half  *consuming // set by start
	began time.Time

	mu     sync.Mutex // guards what follows
	faults map[int]faults
	writes int // tried
}

// faults is what fails of a shard.
type faults struct {
	take, write error
	standby     bool // another process owns it
}

func newWard(t *testing.T, change func(*Config)) *ward {
	cfg := DefaultConfig()
	cfg.OutputDir, cfg.OutputMinFree, cfg.Shards = t.TempDir(), 0, 3
	if change != nil {
		change(&cfg)
	}
	w := &ward{began: time.Now(), faults: make(map[int]faults)}
	w.works = works{t: t, cfg: cfg, memory: brokertest.NewMemory(cfg.Shards), done: make(chan error, 1)}
	return w
}

// start runs the half until the test stops it, or it fails.
func (w *ward) start() {
	var ctx context.Context
	ctx, w.signal = context.WithCancel(w.t.Context())
	build := func(p *plant) (half, error) {
		h, err := newConsuming(p)
		if err != nil {
			return nil, err
		}
		c := h.(*consuming)
		real := c.takeShard
		c.takeShard = func(ctx context.Context, n int, onStandby func()) (folder, error) {
			for f := w.of(n); f.take != nil || f.standby; f = w.of(n) {
				if f.take != nil {
					return nil, f.take
				}
				onStandby()
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
					return nil, context.Cause(ctx)
				}
			}
			f, err := real(ctx, n, onStandby)
			return sickFolder{f, w, n}, err
		}
		w.half = c
		return c, nil
	}
	open := func(_ Config, events event.Sink) (broker.Broker, error) { return w.memory.Open(events), nil }
	go func() { w.done <- run(ctx, w.cfg, newTeller(zerolog.New(&w.works)), open, build) }()
	synctest.Wait()
}

type sickFolder struct {
	folder
	ward *ward
	n    int
}

func (f sickFolder) Write(ctx context.Context, worker string, b *message.Batch) (string, int, error) {
	f.ward.mu.Lock()
	f.ward.writes++
	f.ward.mu.Unlock()
	if err := f.ward.of(f.n).write; err != nil {
		return "", 0, err
	}
	return f.folder.Write(ctx, worker, b)
}

func (w *ward) of(n int) faults {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.faults[n]
}

func (w *ward) set(n int, f faults) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults[n] = f
}

func (w *ward) tried() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writes
}

// queue queues one message for the shard.
func (w *ward) queue(n int) {
	w.memory.PublishForeign(n, "", fmt.Appendf(nil, `{"timestamp":"2019-10-12T08:10:54Z","value":"%d at %v"}`, n, time.Since(w.began)))
}

// after lets the time pass.
func (w *ward) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// checkReady fails unless the process is ready, or not for that reason.
func (w *ward) checkReady(reason string) {
	w.t.Helper()
	var failed []string
	for _, c := range w.half.ready() {
		if c.Err != nil {
			failed = append(failed, c.Name+": "+c.Err.Error())
		}
	}
	if text := strings.Join(failed, "\n"); (text != "") != (reason != "") || !strings.Contains(text, reason) {
		w.t.Errorf("after %v not ready because of %q, want %q", time.Since(w.began), text, reason)
	}
}

// checkWritten fails unless so many messages are in files, and no dead letters.
func (w *ward) checkWritten(want int) {
	w.t.Helper()
	if got := len(w.values()); got != want {
		w.t.Errorf("after %v %d messages are in files, want %d", time.Since(w.began), got, want)
	}
	if dead := w.memory.Dead(); len(dead) > 0 {
		w.t.Errorf("dead letters: %v", dead)
	}
}

// ended returns how the half ended by itself, within a second.
func (w *ward) ended() error {
	w.t.Helper()
	select {
	case err := <-w.done:
		return err
	case <-time.After(time.Second):
		w.t.Fatalf("it goes on; the log:\n%s", &w.log)
		return nil
	}
}

// broken is the error of a step on a disk.
func broken(step string, n int, err error) error {
	return &fs.PathError{Op: step, Path: fmt.Sprintf("shard-%d/.x.tmp", n), Err: err}
}

// TestTakeWaitsForSpace: a shard on a full disk is not owned, and nothing of it
// consumed, for as long as it takes; then it goes on by itself.
func TestTakeWaitsForSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, nil)
		w.set(0, faults{take: broken("write", 0, syscall.ENOSPC)})
		w.queue(0)
		w.queue(1)
		w.start()
		for range 8 {
			w.after(time.Hour)
			w.checkReady("output: 1 shards are not taken, shard 0 because: write shard-0/.x.tmp: no space left on device")
			w.checkWritten(1)
			if waiting := len(w.memory.Waiting(0)); waiting != 1 {
				t.Fatalf("%d envelopes wait, want all", waiting)
			}
		}
		if !w.logged(`"message":"the shard cannot be taken, nothing of it is consumed"`) {
			t.Error("nobody is told")
		}
		w.set(0, faults{})
		w.after(takeMax + time.Second + w.cfg.BatchLinger)
		w.checkReady("")
		w.checkWritten(2)
		if err := w.stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestStopWithoutAShard: a process that could take nothing stops in order.
func TestStopWithoutAShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, nil)
		for n := range w.cfg.Shards {
			w.set(n, faults{take: broken("fsync", n, syscall.EIO)})
		}
		w.start()
		w.after(10 * time.Second)
		if err := w.stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestHeldForLong: what a shard holds goes back to the broker once, long before
// that would take it back itself, and nothing more is consumed until there is
// space.
func TestHeldForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, nil)
		w.start()
		full := broken("write", 0, syscall.ENOSPC)
		w.set(0, faults{take: full, write: full})
		w.queue(0)
		w.after(holdLimit)
		w.checkReady("1 workers hold their batch")
		if waiting := len(w.memory.Waiting(0)); waiting != 0 {
			t.Errorf("%d envelopes are back at once", waiting)
		}
		w.after(10 * time.Second)
		tried := w.tried()
		for range 24 {
			w.checkReady("1 shards are not taken, shard 0")
			if waiting := len(w.memory.Waiting(0)); waiting != 1 {
				t.Fatalf("after %v %d envelopes are back, want 1", time.Since(w.began), waiting)
			}
			w.after(time.Hour)
		}
		if now := w.tried(); now != tried {
			t.Errorf("%d attempts to write what is not in hand", now-tried)
		}
		w.set(0, faults{})
		w.after(takeMax + time.Second + w.cfg.BatchLinger)
		w.checkReady("")
		w.checkWritten(1)
		if err := w.stop(); err != nil {
			t.Error(err)
		}
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
		"while the shard is taken": {faults{take: broken("mkdir", 0, syscall.EIO)}, "mkdir shard-0/.x.tmp: input/output error"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWard(t, func(cfg *Config) { cfg.BatchLinger = MaxLinger })
				w.set(0, tc.faults)
				w.set(1, faults{write: broken("write", 1, syscall.ENOSPC)})
				w.start()
				for range w.cfg.BatchSize {
					w.queue(0)
				}
				w.after(2 * time.Second) // shards 0 and 1 try at different times
				for range w.cfg.BatchSize {
					w.queue(1)
				}
				w.queue(2) // lingers
				w.after(w.cfg.OutputErrorTimeout - 3*time.Second)
				select {
				case err := <-w.done:
					t.Fatalf("it ended early: %v", err)
				default:
				}
				<-w.half.failed.Done()
				if took := time.Since(w.began); took > w.cfg.OutputErrorTimeout+takeMax {
					t.Errorf("it goes on for %v", took)
				}
				err := w.ended()
				if !errors.Is(err, ErrOutputFailed) || errors.Is(err, ErrDrainDeadline) {
					t.Errorf("it ended with %v", err)
				}
				since := w.began.Format(time.RFC3339)
				for _, want := range []string{"shard 0 in " + w.cfg.OutputDir, tc.want, "since " + since, "--output-error-timeout", "start again"} {
					if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
						t.Errorf("the error has no %q: %v", want, err)
					}
				}
				w.checkWritten(1)
				for n, want := range []int{w.cfg.BatchSize, w.cfg.BatchSize, 0} {
					if waiting := len(w.memory.Waiting(n)); waiting != want {
						t.Errorf("shard %d: %d envelopes are back at the broker, want %d", n, waiting, want)
					}
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
		"another owner between": {{take: broke}, {standby: true}, {take: broke}},
		"a lack of space":       {{write: broke}, {write: full}, {write: broke}},
		"no failure of a disk":  {{write: errors.New("in hand")}, {write: errors.New("in hand")}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// What is between ends a failure, not that it is quiet meanwhile.
				w := newWard(t, func(cfg *Config) { cfg.WorkerTimeout = time.Hour })
				w.set(0, steps[0])
				w.start()
				for _, f := range steps {
					w.set(0, f)
					w.queue(0)
					w.after(50 * time.Second)
				}
				w.set(0, faults{})
				w.after(time.Minute)
				w.checkReady("")
				w.checkWritten(len(steps))
				if err := w.stop(); err != nil {
					t.Error(err)
				}
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
