package live

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// TestReceipt follows a submission from its acceptance to its last message, on another
// node than that which accepted it.
func TestReceipt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, 3)
		server, a, b := s.start("server", true, false), s.start("a", false, true), s.start("b", false, true)
		s.own(a, 0, 2)
		s.own(b, 1)
		accepted := time.Now()
		id := newID(3)
		server.Accepted(id, []message.ShardCount{{Shard: 0, Messages: 2}, {Shard: 1, Messages: 1}})
		for _, n := range s.nodes {
			start := time.Now()
			r := n.receipt(id)
			if r.State != Queued || r.Done || r.Accepted != 3 || r.Pending != 3 || r.Unknown != nil || !r.AcceptedAt.Equal(stamp(accepted)) || r.Indexes.Pending != "0-2" {
				t.Errorf("%s: %+v", n.name, r)
			}
			if took := time.Since(start); took > 100*time.Millisecond {
				t.Errorf("%s answered after %v", n.name, took)
			}
		}
		time.Sleep(time.Second)
		s.write(id, 1, 1)
		if r := b.receipt(id); r.State != Writing || r.Written != 1 || r.Pending != 2 || r.Shards[1].Written != 1 || r.Indexes.Pending != "0,2" || r.RememberedUntil.IsZero() {
			t.Errorf("%+v", r)
		}
		time.Sleep(time.Second)
		last := time.Now()
		s.write(id, 0, 0, 2)
		for _, n := range s.nodes {
			if r := n.receipt(id); r.State != Written || !r.Done || r.Written != 3 || r.Pending != 0 || r.Shards[0].Written != 2 || !r.DoneAt.Equal(stamp(last)) || r.Indexes.Pending != "" {
				t.Errorf("%s: %+v", n.name, r)
			}
		}
		// Who has accepted it restarts, and the owners, too.
		for _, n := range []*node{server, a, b} {
			n.end()
		}
		c := s.start("c", true, true)
		s.own(c, 0, 1, 2)
		if r := c.receipt(id); !r.Done || r.State != Written {
			t.Errorf("after a restart: %+v", r)
		}
	})
}

// TestNoReceipt tells apart why there is none.
func TestNoReceipt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, 2)
		server, owner := s.start("server", true, false), s.start("owner", false, true)
		s.own(owner, 0, 1)
		check := func(what, id string, want error) {
			t.Helper()
			for _, n := range s.nodes {
				if r, err := n.ask(id); !errors.Is(err, want) {
					t.Errorf("%s: %s got %+v, %v, want %v", what, n.name, r, err, want)
				}
			}
		}
		id, old := newID(2), newID(2)
		for _, bad := range []string{"", "x", id[:25], id + "0", id + ".0", id + ".7", message.WithCount(id, 0), message.WithCount(id, message.MaxEntries+1), "8" + id[1:]} {
			check("bad", bad, ErrNoID)
		}
		check("never accepted", id, ErrNotKnown)
		time.Sleep(time.Hour)
		young := newID(2)
		s.forgot[1] = time.Now().Add(-time.Minute)
		check("older than what shard 1 remembers", old, ErrForgotten)
		check("younger", young, ErrNotKnown)
		check("keyed, without a time", keyedID("k", 2), ErrNotKnown)
		server.Accepted(keyedID("k", 2), []message.ShardCount{{Shard: 0, Messages: 2}})
		check("keyed, and accepted just now", keyedID("k", 2), nil)
		// It is not forgotten where its messages are.
		s.write(old, 0, 0, 1)
		check("old, and all is written", old, nil)
		partly := newID(3)
		time.Sleep(time.Hour)
		s.forgot[1] = time.Now().Add(-time.Minute)
		s.write(partly, 0, 0, 1)
		check("some of it may be forgotten", partly, ErrForgotten)
	})
}

// TestForgottenStays: what a shard forgot is not pending, whoever remembers that it was
// accepted, and however often nodes answer.
func TestForgottenStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, 2)
		n := s.start("n", true, true)
		s.own(n, 0, 1)
		all, partly := newID(2), newID(2)
		for _, id := range []string{all, partly} {
			n.Accepted(id, []message.ShardCount{{Shard: 0, Messages: 1}, {Shard: 1, Messages: 1}})
		}
		time.Sleep(time.Hour)
		s.forgot[1] = time.Now().Add(-time.Minute)
		s.write(partly, 0, 0)
		for _, id := range []string{all, partly} {
			w, err := n.Watch(id)
			if err != nil {
				t.Fatal(err)
			}
			<-w.Ready()
			for range 50 {
				if r, err := w.Receipt(); !errors.Is(err, ErrForgotten) {
					t.Fatalf("%+v, %v", r, err)
				}
				time.Sleep(tickInterval)
			}
			// It waited all the time.
			s.write(id, 0, 0)
			s.write(id, 1, 1)
			time.Sleep(tickInterval)
			if r, err := w.Receipt(); err != nil || !r.Done {
				t.Errorf("%+v, %v", r, err)
			}
			w.Close()
		}
	})
}

// TestSilentOwner: what an owner does not say is unknown, and never done.
func TestSilentOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, 3)
		server, owner := s.start("server", true, false), s.start("owner", false, true)
		s.own(owner, 0, 1)
		made := newID(1)
		start := time.Now()
		if r := server.receipt(made); r.State != Unknown || r.Done || len(r.Unknown) != 1 || r.Unknown[0] != 2 {
			t.Errorf("%+v", r)
		}
		if took := time.Since(start); took < silentAfter || took > silentAfter+2*tickInterval {
			t.Errorf("it took %v", took)
		}
		// A shard that has none of its messages does not matter.
		id := newID(2)
		server.Accepted(id, []message.ShardCount{{Shard: 0, Messages: 2}})
		s.write(id, 0, 0)
		w, err := server.Watch(id)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		<-w.Ready()
		if r, err := w.Receipt(); err != nil || r.Unknown != nil || r.State != Writing {
			t.Errorf("%+v, %v", r, err)
		}
		// Its owner goes, and with it the word on the rest. A dead letter is no such word:
		// it may have been written.
		s.bury(false, id, 0, "bad", 1)
		owner.end()
		time.Sleep(lookAfter + lookEvery + 3*time.Second)
		if r, err := w.Receipt(); err != nil || r.Done || r.Dead != 1 || len(r.Unknown) != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		next := s.start("next", false, true)
		s.own(next, 0, 1)
		time.Sleep(2 * time.Second)
		if r, err := w.Receipt(); err != nil || !r.Done || r.Unknown != nil || r.State != DeadLetters {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// TestDead: a message is dead however it became so, stays dead after a restart of all,
// and counts as written once it was replayed and written.
func TestDead(t *testing.T) {
	for name, tells := range map[string]bool{"its owner tells": true, "by the broker alone": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSystem(t, 1)
				n := s.start("n", true, true)
				s.own(n, 0)
				id := newID(3)
				n.Accepted(id, []message.ShardCount{{Shard: 0, Messages: 3}})
				s.write(id, 0, 2)
				w, err := n.Watch(id)
				if err != nil {
					t.Fatal(err)
				}
				<-w.Ready()
				s.bury(tells, id, 0, "bad", 0, 1)
				want := 100 * time.Millisecond
				if !tells {
					want = lookAfter + lookEvery + time.Second
				}
				time.Sleep(want)
				r, err := w.Receipt()
				if err != nil || !r.Done || r.State != DeadLetters || r.Dead != 2 || r.Written != 1 || r.Shards[0] != (ShardReceipt{1, 2}) {
					t.Errorf("%+v, %v", r, err)
				}
				if len(r.Indexes.Dead) != 1 || r.Indexes.Dead[0] != (DeadIndexes{"0-1", "bad"}) {
					t.Errorf("%+v", r.Indexes)
				}
				w.Close()
				n.end()
				time.Sleep(time.Minute)
				n = s.start("m", true, true)
				s.own(n, 0)
				if r := n.receipt(id); !r.Done || r.Dead != 2 || r.State != DeadLetters {
					t.Errorf("after a restart: %+v", r)
				}
				s.write(id, 0, 0)
				if r := n.receipt(id); !r.Done || r.Dead != 1 || r.Written != 2 {
					t.Errorf("after a replay: %+v", r)
				}
			})
		})
	}
}

// firstLost is a bus that loses the first body that is told.
type firstLost struct {
	broker.Bus
	lost atomic.Bool
}

func (b *firstLost) Tell(topic string, body []byte) error {
	if !b.lost.Swap(true) {
		return nil
	}
	return b.Bus.Tell(topic, body)
}

// TestFirstLost: a body that the bus loses makes no shard unknown.
func TestFirstLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, 2)
		owner := s.start("owner", false, true)
		s.own(owner, 0, 1)
		s.bus = func(b broker.Bus) broker.Bus { return &firstLost{Bus: b} }
		server := s.start("server", true, false)
		id := newID(2)
		server.Accepted(id, []message.ShardCount{{Shard: 0, Messages: 1}, {Shard: 1, Messages: 1}})
		s.write(id, 0, 0)
		if r := server.receipt(id); r.State != Writing || r.Unknown != nil {
			t.Errorf("%+v", r)
		}
	})
}
