package consumer

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker/brokertest"
	"async-data-processor/message"
	"async-data-processor/workerpool"
)

// watching is a Watch that keeps what it is told.
type watching struct {
	wanted atomic.Bool
	hear   func(shard int, id string) // of what is written; nil for nothing

	mu   sync.Mutex // guards what follows
	ids  []string
	dead []string
}

func (w *watching) Watched() bool { return w.wanted.Load() }

func (w *watching) Written(shard int, b workerpool.Written) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range b.Messages {
		if w.hear != nil {
			w.hear(shard, m.ID())
		}
		w.ids = append(w.ids, m.ID())
	}
}

func (w *watching) Dead(_ int, line []byte, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = append(w.dead, message.Message{Line: line}.ID()+": "+reason)
}

// TestWatch: who watches is told of each message once, of no duplicate, and of nothing
// unless it asks.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		w := new(watching)
		r.cfg.Watch = w
		r.start()
		r.accept(0, 7)
		r.after(5 * time.Second)
		if len(w.ids) > 0 {
			t.Errorf("told of %q without asking", w.ids)
		}
		before := r.written(0)
		w.wanted.Store(true)
		r.accept(0, 7)
		r.after(5 * time.Second)
		r.stop()
		want := r.written(0)
		want = slices.DeleteFunc(want, func(id string) bool { return slices.Contains(before, id) })
		slices.Sort(want)
		slices.Sort(w.ids)
		if !slices.Equal(w.ids, want) || len(want) != 7 {
			t.Errorf("told of %q, want %q", w.ids, want)
		}
	})
}

// TestKnown: the owner of shards knows what is written of a submission, before it is
// told to who watches, and says nothing of shards that it does not own.
func TestKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		w := new(watching)
		w.wanted.Store(true)
		early := 0
		w.hear = func(shard int, id string) {
			submission, _, _ := strings.Cut(id, ".")
			if known := r.set.Known(submission, 7, []int{shard}); len(known) != 1 || known[0].Bits == nil {
				early++
			}
		}
		r.cfg.Watch = w
		r.fail(2, faults{standby: true})
		r.start()
		r.accept(0, 7)
		r.after(5 * time.Second)
		all := r.written(0)
		submission, _, _ := strings.Cut(all[0], ".")
		known := r.set.Known(submission, 7, nil)
		if len(known) != 2 || known[0].Shard != 0 || known[1].Shard != 1 || !slices.Equal(known[0].Bits, []uint64{1<<7 - 1}) || known[1].Bits != nil || known[0].Memory.Forgot {
			t.Errorf("%+v", known)
		}
		if known := r.set.Known(submission, 7, []int{1, 2, 9}); len(known) != 1 || known[0].Shard != 1 {
			t.Errorf("%+v", known)
		}
		if early > 0 {
			t.Errorf("%d were told before they were known", early)
		}
		r.stop()
		if known := r.set.Known(submission, 7, nil); len(known) > 0 {
			t.Errorf("%+v after the end", known)
		}
	})
}

// TestWatchDead: who watches is told of each message that the dead-letter queue has taken.
func TestWatchDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		w := new(watching)
		r.cfg.Watch = w
		r.start()
		publish := func(body string) {
			t.Helper()
			must(t, brokertest.Publish(t.Context(), r.larger, message.Envelope{ID: message.NewID(), Shard: 0, Count: strings.Count(body, "\n"), Body: []byte(body)}))
			r.after(5 * time.Second)
		}
		const good, bad = `{"message_id":"01JD8Y6G5V3X9Q2R7T4B1C0003.0","timestamp":"2019-10-12T08:10:54Z"}` + "\n", `{"message_id":"01JD8Y6G5V3X9Q2R7T4B1C0003.1","timestamp":}` + "\n"
		publish(good + bad)
		if len(w.dead) > 0 {
			t.Errorf("told of %q without asking", w.dead)
		}
		w.wanted.Store(true)
		publish(strings.Replace(good, "1C0003", "1C0004", 1) + bad)
		publish(bad + bad + "{")
		const foreign = `{"timestamp":"yesterday"}`
		must(t, brokertest.Publish(t.Context(), r.larger, message.Envelope{ID: "order-1", Shard: 0, Count: 1, Body: []byte(foreign), Foreign: true}))
		r.after(5 * time.Second)
		r.stop()
		ours, others := 0, []string(nil)
		for _, told := range w.dead {
			if strings.HasPrefix(told, "01JD8Y6G5V3X9Q2R7T4B1C0003.1: ") {
				ours++
			} else {
				others = append(others, told)
			}
		}
		if ours < 3 || len(others) != 2 || !strings.HasPrefix(others[1], ": ") {
			t.Errorf("told of %q", w.dead)
		}
	})
}
