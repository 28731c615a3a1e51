package consumer

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker/brokertest"
	"async-data-processor/event"
	"async-data-processor/message"
)

// TestStop: a shard that is taken from a Set finishes what it has received, and
// its folder is free; given back, it goes on, with new numbers for its workers.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Batch.Linger = 10 * time.Minute
		r.start()
		r.queue(1)
		r.after(time.Second)
		r.set.Stop(1)
		r.after(time.Second)
		r.checkFiles(1, 1)
		r.checkFree(1)
		r.queue(1)
		r.after(time.Hour)
		r.checkRunning(shards, 2)
		r.checkFiles(1, 1)
		r.set.Start(1)
		r.after(20 * time.Minute)
		r.checkRunning(shards, 3)
		r.checkFiles(1, 2)
		r.stop()
		seen := make(map[string]bool)
		for _, w := range r.set.History() {
			if seen[w.ID] {
				t.Errorf("two workers have the number %s", w.ID)
			}
			seen[w.ID] = true
		}
		if !seen["1-4"] {
			t.Error("the second pool of shard 1 does not go on in the numbers of the first")
		}
	})
}

// TestStopAndStart: what is said last counts, however fast it follows.
func TestStopAndStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		for range 100 {
			r.set.Stop(2)
			r.set.Start(2)
		}
		r.after(time.Second)
		r.checkStatus("")
		r.checkRunning(shards, 3)
		r.set.Start(2)
		r.set.Stop(2)
		r.after(time.Second)
		r.checkRunning(shards, 2)
		r.stop()
	})
}

// TestStopOfAFailingShard: a shard that is stopped while its output takes nothing
// returns what it received, and ends neither the Set nor the other shards.
func TestStopOfAFailingShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.fail(0, faults{write: broken("write", 0, syscall.ENOSPC)})
		r.queue(0)
		r.after(2 * time.Second)
		r.checkStatus("1 worker cannot write its batch")
		r.set.Stop(0)
		r.after(holdLimit + 2*retryMax)
		r.checkWaiting(0, 1)
		r.checkTold(1, "shard stopped with an error", `"shard":0`)
		r.queue(1)
		r.after(2 * time.Second)
		r.checkWritten(1)
		r.stop()
	})
}

// TestHandOver passes a shard to and fro between two consumers of one folder,
// under load: nothing is lost, written twice, or delivered again.
func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newRig(t), newRig(t)
		b.memory, b.dir = a.memory, a.dir
		var redelivered atomic.Int32
		for _, r := range []*rig{a, b} {
			r.cfg.Queues = watched{a.memory.Open(nil), &redelivered}
			r.run()
		}
		a.set.Start(0)

		var load sync.WaitGroup
		ctx, stopLoad := context.WithCancel(t.Context())
		sent := 0
		load.Go(func() {
			for ; ctx.Err() == nil; sent++ {
				var text bytes.Buffer
				for i := range 7 {
					fmt.Fprintf(&text, `{"message_id":"E%d.%d","timestamp":"2019-10-12T08:10:54Z"}`+"\n", sent, i)
				}
				e := message.Envelope{ID: fmt.Sprint("E", sent), Count: 7, Body: text.Bytes()}
				if err := brokertest.Publish(t.Context(), a.larger, e); err != nil {
					t.Error(err)
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
		owner, other := a, b
		for range 8 {
			time.Sleep(500 * time.Millisecond)
			other.set.Start(0) // stands by
			time.Sleep(50 * time.Millisecond)
			owner.set.Stop(0)
			for wait := 0; running(other.set.Status(), 1) == 0 && wait < 1000; wait++ {
				time.Sleep(10 * time.Millisecond)
			}
			other.checkRunning(1, 1)
			owner, other = other, owner
		}
		stopLoad()
		load.Wait()
		time.Sleep(10 * time.Second)
		a.stop()
		b.stop()

		ids := a.written(0)
		slices.Sort(ids)
		if unique := slices.Compact(slices.Clone(ids)); len(ids) != 7*sent || len(unique) != 7*sent {
			t.Errorf("%d messages are in files, %d of them different, want %d", len(ids), len(unique), 7*sent)
		}
		a.checkDepth(0, 0)
		if n := redelivered.Load(); n != 0 {
			t.Errorf("%d envelopes were delivered again", n)
		}
		for _, w := range slices.Concat(a.set.History(), b.set.History()) {
			if w.Duplicates > 0 || w.State != event.Stopped {
				t.Errorf("worker %+v", w)
			}
		}
	})
}

// watched counts what is delivered again.
type watched struct {
	Queues
	redelivered *atomic.Int32
}

func (w watched) Consume(ctx context.Context, shard, prefetch int, deliveries chan<- *message.Delivery) error {
	in, done := make(chan *message.Delivery), make(chan struct{})
	go func() {
		defer close(done)
		for d := range in {
			if d.Redelivered {
				w.redelivered.Add(1)
			}
			deliveries <- d
		}
	}()
	err := w.Queues.Consume(ctx, shard, prefetch, in)
	close(in)
	<-done
	return err
}
