package consumer

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/message"
)

// TestWhere follows messages on their way: queued, in a batch that gathers, with a worker
// whose disk is full, written. They are ours and another program's.
func TestWhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Batch.Linger = 10 * time.Second
		r.fail(1, faults{write: broken("write", 1, syscall.ENOSPC)})
		r.fail(2, faults{standby: true})
		r.start()
		check := func(id, want string) {
			t.Helper()
			synctest.Wait()
			var got []string
			places := Where(r.set, []byte(id))
			if !slices.EqualFunc(places, []int{0, 1}, func(p Place, n int) bool { return p.Shard == n }) {
				t.Errorf("%+v, want what is owned", places)
			}
			for _, p := range places {
				if p.Written {
					got = append(got, fmt.Sprintf("%d written %v", p.Shard, time.Since(p.At)))
				}
				if p.Received {
					got = append(got, fmt.Sprintf("%d received", p.Shard))
				}
				if p.Worker != "" {
					got = append(got, fmt.Sprintf("by %s for %v", strings.Split(p.Worker, "-")[0], time.Since(p.Since)))
				}
			}
			if text := strings.Join(got, ", "); text != want {
				t.Errorf("after %v %s is %q, want %q", time.Since(r.began), id, text, want)
			}
		}
		check("S0.0", "")
		r.publish(0, 7)
		r.memory.PublishForeign(0, "order-1", []byte(`{"timestamp":"2019-10-12T08:10:54Z","value":"a","message_id_of":"S0.0"}`))
		r.publish(1, 5)
		check("S0.0", "0 written 0s, 0 received") // the envelope has others
		check("S0.6", "0 received")
		check("order-1", "0 received")
		check("S0.7", "")
		check("S0", "")
		r.after(2 * time.Second)
		check("S0.0", "0 written 2s, 0 received")
		check("S1.4", "1 received, by 1 for 2s")
		check("S2.0", "")
		r.publish(2, 1)
		check("S2.0", "") // another process owns it
		r.after(10 * time.Second)
		check("S0.6", "0 written 2s")
		check("order-1", "0 written 2s")
		check("S1.4", "1 received, by 1 for 12s")
		r.fail(1, faults{})
		r.after(10 * time.Second)
		if p := Where(r.set, []byte("S1.4"))[1]; !p.Written || p.Received || p.Worker != "" {
			t.Errorf("%+v", p)
		}
		r.fail(2, faults{})
		r.stop()
	})
}

// TestWhereWithoutID: a message that another program gave no id has one of its bytes.
func TestWhereWithoutID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.queue(0)
		synctest.Wait()
		r.after(100 * time.Millisecond)
		held := func() (id string) {
			for _, p := range *r.set.running[0].age.slots.Load() {
				for i := range p {
					if d := p[i].delivery.Load(); d != nil {
						messages, _, err := message.Strict.Open(d.Envelope)
						must(t, err)
						id = messages[0].ID()
					}
				}
			}
			return id
		}()
		if p := Where(r.set, []byte(held))[0]; held == "" || !p.Received {
			t.Errorf("%s: %+v", held, p)
		}
		r.after(2 * time.Second)
		if p := Where(r.set, []byte(held))[0]; !p.Written || p.Received {
			t.Errorf("%s: %+v", held, p)
		}
		for _, p := range *r.set.running[0].age.slots.Load() {
			for i := range p {
				if p[i].delivery.Load() != nil {
					t.Error("a settled delivery is kept")
				}
			}
		}
		r.stop()
	})
}
