package live

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// TestReceiptPaused: a receipt tells which shards with pending messages are paused, why
// and until when, as long as they are.
func TestReceiptPaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, 5)
		server, a, b := s.start("server", true, false), s.start("a", false, true), s.start("b", false, true)
		s.own(a, 0, 1, 2)
		s.own(b, 3, 4)
		id := newID(2)
		server.Accepted(id, []message.ShardCount{{Shard: 0, Messages: 1}, {Shard: 2, Messages: 1}, {Shard: 3, Messages: 1}})
		w, err := server.Watch(id)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		want := func(what string, want ...PausedShards) {
			t.Helper()
			for told := false; !told; {
				select {
				case <-w.Changed():
					got, err := w.Receipt()
					if err != nil {
						t.Fatalf("%s: %v", what, err)
					}
					told = reflect.DeepEqual(got.Paused, want)
				case <-time.After(2 * time.Second):
					got, err := w.Receipt()
					t.Fatalf("%s: %+v, %v, want %+v", what, got.Paused, err, want)
				}
			}
		}
		soon := stamp(time.Now().Add(10 * time.Second))
		for _, n := range []int{0, 1, 3} {
			s.pause(n, Pause{Reason: "a new disk"})
		}
		want("paused", PausedShards{Shards: []int{0, 3}, Reason: "a new disk"})
		s.pause(2, Pause{Until: soon})
		want("another", PausedShards{Shards: []int{0, 3}, Reason: "a new disk"}, PausedShards{Shards: []int{2}, Until: soon})
		s.resume(0)
		want("one goes on", PausedShards{Shards: []int{2}, Until: soon}, PausedShards{Shards: []int{3}, Reason: "a new disk"})
		b.end()
		time.Sleep(5 * time.Second)
		if r := server.receipt(id); len(r.Unknown) != 1 || len(r.Paused) != 1 {
			t.Errorf("a paused shard whose owner is gone: %+v", r)
		}
		time.Sleep(10 * time.Second)
		if r := server.receipt(id); len(r.Paused) != 0 {
			t.Errorf("after the end of a pause: %+v", r)
		}
		s.pause(2, Pause{})
		time.Sleep(2 * time.Second)
		s.write(id, 0, 0, 1)
		time.Sleep(time.Second)
		if r := server.receipt(id); !r.Done || r.Paused != nil {
			t.Errorf("when all is written: %+v", r)
		}
	})
}

// TestManyPauses: however many pauses there are, an answer fits the bus, and a receipt is
// bounded.
func TestManyPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const shards = 1024
		s := newSystem(t, shards)
		n := s.start("n", true, true)
		for i := range shards {
			s.own(n, i)
			s.forgot[i] = time.Now()
			s.pause(i, Pause{Reason: fmt.Sprint(i, strings.Repeat("\x01", 500))})
		}
		id := newID(message.MaxEntries)
		for i := range message.MaxEntries {
			if i%2 == 0 {
				s.write(id, i%shards, i)
			}
		}
		var longest int
		n.owner.tell = func(_ string, a answer) { longest = max(longest, len(broker.Body(a))) }
		n.owner.hear(&interest{V: 1, Node: "n", To: n.to, IDs: []asked{{ID: id}}})
		if longest == 0 || longest > broker.MaxBusBody {
			t.Errorf("an answer has %d bytes", longest)
		}
		n.owner.tell = n.tellAnswer
		r := n.receipt(id)
		if len(r.Paused) != maxPauses || len(r.Paused[maxPauses-1].Shards) != shards-maxPauses+1 || r.Paused[maxPauses-1].Reason != "several reasons" {
			t.Errorf("%d pauses, the last is %+v", len(r.Paused), r.Paused[len(r.Paused)-1])
		}
	})
}

// TestPausedForms: a receipt for people says in each form that shards are paused. The
// reason is text of others, and stays in its line.
func TestPausedForms(t *testing.T) {
	r := Receipt{State: Queued, Accepted: 2, Pending: 2, Paused: []PausedShards{
		{Shards: []int{0, 3}, Reason: "a <b>\ndisk", Until: time.Unix(1e9, 0).UTC()}, {Shards: []int{7}},
	}}
	if got, want := line(&r), "queued: 0 of 2 written, 0 dead, 2 pending; shards 0 3 paused until 2001-09-09T01:46:40Z: a <b> disk; shards 7 paused\n"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	const row = `<tr><th scope="row">Shards 0 3</th><td>paused until 2001-09-09T01:46:40Z: a &lt;b&gt; disk</td></tr>`
	if got := string(page(&r)); !strings.Contains(got, row) {
		t.Errorf("got %s", got)
	}
	other, silent := r, r
	other.Paused, silent.Unknown = r.Paused[:1], []int{1}
	if !same(&r, &r) || same(&r, &other) || same(&r, &silent) {
		t.Error("a pause or a silent owner is no change, or nothing is one")
	}
}
