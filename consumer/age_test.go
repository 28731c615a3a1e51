package consumer

import (
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/message"
	"async-data-processor/workerpool"
)

// accept queues an envelope of n messages that are accepted now.
func (r *rig) accept(shard, n int) {
	r.t.Helper()
	r.publishAs(message.NewID(), shard, n)
	synctest.Wait()
}

// checkOldest fails unless the shard's oldest message is as old as said, within a
// second; 0 for none. A negative age is for one that is not known.
func (r *rig) checkOldest(shard int, want time.Duration) {
	r.t.Helper()
	for _, sh := range r.set.Status() {
		if sh.Shard != shard {
			continue
		}
		age := time.Duration(0)
		switch {
		case !sh.OldestKnown:
			age = -1
		case !sh.Oldest.IsZero():
			age = time.Since(sh.Oldest)
		}
		if known := want >= 0; sh.OldestKnown != known || known && (want == 0) != (age == 0) || known && (age-want).Abs() > time.Second {
			r.t.Errorf("after %v the oldest message of shard %d is %v old, want %v (%d queued, %d unsettled, %s)",
				time.Since(r.began), shard, age, want, sh.Queued, sh.Unsettled, sh.State)
		}
		return
	}
	r.t.Errorf("shard %d is not there", shard)
}

// TestOldest follows the oldest message of a shard through what may hold it up.
func TestOldest(t *testing.T) {
	full := faults{write: broken("write", 0, syscall.ENOSPC)}
	for name, tt := range map[string]func(r *rig){
		"nothing": func(r *rig) {
			r.start()
			r.after(2 * time.Second)
			r.checkOldest(0, 0)
		},
		"in hand": func(r *rig) {
			r.cfg.Batch.Linger = time.Minute
			r.start()
			r.after(2 * time.Second)
			r.accept(0, 1)
			for range 55 {
				r.checkOldest(0, time.Duration(time.Since(r.began)-2*time.Second))
				r.after(time.Second)
			}
			r.after(10 * time.Second)
			r.checkOldest(0, 0)
			r.checkWritten(1)
		},
		"held by a full disk, and returned": func(r *rig) {
			r.fail(0, full)
			r.start()
			r.after(2 * time.Second)
			for range 50 { // more than the prefetch
				r.accept(0, 1)
			}
			for range 12 * 60 {
				r.after(time.Second)
				r.checkOldest(0, time.Since(r.began)-2*time.Second)
			}
			r.fail(0, faults{})
			r.after(10 * time.Second)
			r.checkOldest(0, 0)
			r.checkWritten(50)
		},
		"queued only": func(r *rig) {
			r.fail(0, faults{open: broken("open", 0, syscall.ENOSPC)})
			r.start()
			r.after(90 * time.Second)
			r.checkOldest(0, 0)
			r.accept(0, 1)
			r.after(2 * time.Second)
			r.accept(0, 1)
			for range 60 {
				r.after(time.Second)
				r.checkOldest(0, time.Since(r.began)-90*time.Second)
			}
			r.fail(0, faults{})
			r.after(10 * time.Second)
			r.checkOldest(0, 0)
			r.checkWritten(2)
		},
		"just taken over": func(r *rig) {
			r.fail(0, faults{standby: true, write: full.write})
			r.start()
			r.accept(0, 1)
			r.after(time.Hour)
			r.checkOldest(0, -1) // its owner knows
			r.fail(0, full)
			for range 10 {
				r.after(time.Second)
				r.checkOldest(0, time.Since(r.began))
			}
			r.fail(0, faults{})
			r.after(10 * time.Second)
			r.checkOldest(0, 0)
			r.checkWritten(1)
		},
		"taken over with a queue that no one has looked into": func(r *rig) {
			r.accept(0, 1)
			r.fail(0, faults{open: broken("open", 0, syscall.ENOSPC)})
			r.start()
			r.after(10 * time.Second)
			r.checkOldest(0, -1)
			r.fail(0, faults{})
			r.after(10 * time.Second)
			r.checkOldest(0, 0)
		},
		"a queue in which there is always something": func(r *rig) {
			r.start()
			r.after(time.Second)
			for range 100 {
				r.accept(0, 5)
				r.after(100 * time.Millisecond)
			}
			if sh := r.set.Status()[0]; !sh.OldestKnown || !sh.Oldest.IsZero() && time.Since(sh.Oldest) > time.Second {
				r.t.Errorf("the oldest message is of %v", sh.Oldest)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				tt(r)
				r.stop()
			})
		})
	}
}

// TestQueued: the status has the depth of the queue, and what was remembered.
func TestQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.fail(1, faults{write: broken("write", 1, syscall.ENOSPC)})
		r.start()
		r.accept(0, 5)
		for range r.cfg.Prefetch + 7 {
			r.accept(1, 1)
		}
		r.after(3 * time.Second)
		status := r.set.Status()
		if a, b := status[0], status[1]; a.Queued != 0 || b.Queued != 7 || !a.Owned || a.IDs != 5 || a.IDsAge < time.Second || a.IDsAge > 4*time.Second {
			t.Errorf("got %+v and %+v", a, b)
		}
		if w := status[1].Workers; w.Holding == 0 || w.Holding+w.Busy+w.Idle < r.cfg.WorkersMin || w.TimedOut != 0 {
			t.Errorf("workers: %+v", w)
		}
		r.fail(1, faults{})
		r.after(10 * time.Second)
		r.stop()
	})
}

// TestOnWritten: what messages have waited is told with their number, as long as they
// have waited.
func TestOnWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var mu sync.Mutex
		waits := map[time.Duration]int{}
		r.cfg.OnWritten = func(wait time.Duration, messages int) {
			mu.Lock()
			defer mu.Unlock()
			waits[wait.Round(10*time.Millisecond)] += messages
		}
		r.cfg.Batch.Linger = 2 * time.Second
		r.start()
		r.after(time.Second)
		r.accept(0, 8) // five at once, and three linger
		r.after(500 * time.Millisecond)
		r.accept(0, 1)
		r.after(5 * time.Second)
		r.stop()
		want := map[time.Duration]int{0: 5, 2 * time.Second: 3, 1500 * time.Millisecond: 1}
		if len(waits) != 3 || waits[0] != 5 || waits[2*time.Second] != 3 || waits[1500*time.Millisecond] != 1 {
			t.Errorf("told %v, want %v", waits, want)
		}
	})
}

// TestAgeModel: however deliveries are settled, the oldest one that is not is known.
func TestAgeModel(t *testing.T) {
	a := newAge()
	type held struct {
		ticket int
		at     time.Time
	}
	var all []held
	now := time.UnixMilli(1_800_000_000_000)
	for range 20_000 {
		now = now.Add(time.Millisecond)
		if len(all) < 300 && rand.IntN(2) == 0 {
			all = append(all, held{a.receive(now, ""), now})
			if got := a.accepted(all[len(all)-1].ticket); !got.Equal(now) {
				t.Fatalf("accepted at %v, want %v", got, now)
			}
		} else if len(all) > 0 {
			i := rand.IntN(len(all))
			a.settled(all[i].ticket)
			all = slices.Delete(all, i, i+1)
		}
		_, got, _ := a.oldest()
		if len(all) == 0 && !got.IsZero() || len(all) > 0 && !got.Equal(all[0].at) {
			t.Fatalf("the oldest of %d is of %v", len(all), got)
		}
	}
	if n := len(*a.slots.Load()) * len(page{}); n > 1000 {
		t.Errorf("%d slots for 300 deliveries", n)
	}
}

// TestAgeIsFree: a delivery takes no memory.
func TestAgeIsFree(t *testing.T) {
	a := newAge()
	now := time.Now()
	a.settled(a.receive(now, ""))
	if n := testing.AllocsPerRun(100, func() { a.settled(a.receive(now, "")) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	e := message.Envelope{ID: message.NewID()}
	if n := testing.AllocsPerRun(100, func() { acceptedAt(&e) }); n > 0 {
		t.Errorf("%v allocations for the time of an envelope", n)
	}
	d := message.NewDelivery(e, false, nil)
	d.Ticket = a.receive(now, "")
	var b message.Batch
	b.Add(d, message.Message{})
	told := 0
	sh := shard{age: a, set: &Set{cfg: Config{OnWritten: func(_ time.Duration, messages int) { told += messages }}}}
	if n := testing.AllocsPerRun(100, func() { sh.onWritten(workerpool.Written{Batch: &b, At: now}) }); n > 0 || told == 0 {
		t.Errorf("%v allocations for a batch, %d messages are told", n, told)
	}
}

// TestOldestOfAPausedShard: an owner that comes while a shard is paused knows how old its
// oldest message is, whether the queue was empty when the pause began or not.
func TestOldestOfAPausedShard(t *testing.T) {
	for name, before := range map[string]bool{"queued before": true, "queued since": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newRig(t)
				a.cfg.Batch.Linger = 10 * time.Millisecond
				a.start()
				a.after(2 * time.Second)
				accepted := time.Now()
				if before { // more than what can be received
					a.fail(0, faults{write: broken("write", 0, syscall.ENOSPC)})
					for range a.cfg.Prefetch + 5 {
						a.accept(0, 1)
					}
					go func() {
						time.Sleep(30 * time.Second)
						a.fail(0, faults{})
					}()
				}
				a.command(0, Command{Verb: PauseShard})
				if !before {
					a.after(time.Minute)
					accepted = time.Now()
					a.accept(0, 1)
				}
				a.after(5 * time.Second)
				crashed := t.TempDir()
				must(t, os.CopyFS(crashed, os.DirFS(a.dir)))
				a.stop()
				for _, dir := range []string{a.dir, crashed} {
					b := newRig(t)
					b.memory, b.dir, b.cfg.Queues = a.memory, dir, a.memory
					b.start()
					for range 3 {
						b.after(10 * time.Second)
						b.checkOldest(0, time.Since(accepted))
					}
					b.stop()
				}
			})
		})
	}
}
