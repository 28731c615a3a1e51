package live

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// TestHostileBodies: what others tell is counted and skipped, or stays within bounds.
func TestHostileBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, 2)
		n := s.start("n", true, true)
		s.own(n, 0, 1)
		id := newID(3)
		n.Accepted(id, []message.ShardCount{{Shard: 0, Messages: 3}})
		w, err := n.Watch(id)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		<-w.Ready()
		tell := func(topic, body string) {
			t.Helper()
			if err := s.memory.Tell(topic, []byte(body)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		own := answerTopic + n.to
		bad := []struct{ topic, body string }{
			{interestTopic, ""},
			{interestTopic, "[]"},
			{interestTopic, "{"},
			{interestTopic, `{"v":"1"}`},
			{interestTopic, `{"v":1}`},
			{interestTopic, `{"v":1,"to":"../../etc","ids":[]}`},
			{interestTopic, `{"v":1,"to":"` + strings.ToUpper(n.to) + `"}`},
			{interestTopic, `{"v":1,"to":"` + n.to + `","ids":[{"id":"x"}]}`},
			{interestTopic, `{"v":1,"to":"` + n.to + `","ids":[{"id":"` + id + `","shards":"0-99999999"}]}`},
			{interestTopic, `{"v":1,"to":"` + n.to + `","ids":[` + strings.Repeat(`{},`, maxAsked) + `{}]}`},
			{own, `{"v":1}`},
			{own, `{"v":1,"node":"` + strings.Repeat("x", maxNode+1) + `"}`},
			{own, `{"v":1,"node":"x","owns":"3-1"}`},
			{own, `{"v":1,"node":"x","owns":"0-2048"}`},
			{own, `{"v":1,"node":"x","forgot":[{"n":-1}]}`},
			{own, `{"v":1,"node":"x","forgot":[{"n":1,"since":-5}]}`},
			{own, `{"v":1,"node":"x","owns":"0","paused":[{"shards":"0-2048"}]}`},
			{own, `{"v":1,"node":"x","owns":"0","paused":[{"shards":"0","until":-1}]}`},
			{own, `{"v":1,"node":"x","owns":"0","paused":[` + strings.Repeat(`{},`, maxPauses) + `{}]}`},
			{own, fmt.Sprintf(`{"v":1,"node":"x","ids":[{"id":%q,"w":[{"n":0,"bits":"3"}]}]}`, id)},
			{own, fmt.Sprintf(`{"v":1,"node":"x","ids":[{"id":%q,"w":[{"n":-1,"bits":"0"}]}]}`, id)},
			{own, fmt.Sprintf(`{"v":1,"node":"x","ids":[{"id":%q,"w":[{"n":0,"bits":"0","last":253402300800000}]}]}`, id)},
			{own, fmt.Sprintf(`{"v":1,"node":"x","ids":[{"id":%q,"d":[{"n":0,"bits":"0-9999999"}]}]}`, id)},
		}
		for i, b := range bad {
			tell(b.topic, b.body)
			if _, broken := n.cfg.Skips.Counts(); broken != int64(i+1) {
				t.Fatalf("%s %.80s: %d skipped, want %d", b.topic, b.body, broken, i+1)
			}
		}
		tell(interestTopic, "null")
		tell(interestTopic, `{"v":2}`)
		tell(own, `{"v":2,"ids":7}`)
		if version, _ := n.cfg.Skips.Counts(); version != 3 {
			t.Errorf("%d of another version, want 3", version)
		}
		if r, err := w.Receipt(); err != nil || r.Written+r.Dead > 0 {
			t.Errorf("%+v, %v", r, err)
		}
		// Of reasons only some are kept, and each is short and can be told.
		for i := range 100 {
			why := fmt.Sprintf("%d\xff%s", i, strings.Repeat("é", maxReason))
			tell(own, string(broker.Body(answer{V: 1, Node: "x", IDs: []idState{{ID: id, Dead: []deadState{{0, "1", why}}}}})))
		}
		r, err := w.Receipt()
		if err != nil || r.Dead != 1 || len(n.entries[id].dead) > maxReasons+1 || len(r.Indexes.Dead) > 1 || len(r.Indexes.Dead[0].Reason) > maxReason {
			t.Errorf("%+v, %v", r, err)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Error(err)
		}
	})
}

// TestInterestsAreBounded: whoever asks for too much is answered, and hears of changes
// when it asks again.
func TestInterestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, 1)
		n, client := s.start("n", false, true), s.start("client", false, false)
		s.own(n, 0)
		for i := 0; i < maxInterests+100; i += 1000 {
			in := interest{V: 1, Node: "x", To: strings.Repeat("x", replyLen)}
			for range 1000 {
				in.IDs = append(in.IDs, asked{ID: newID(1)})
			}
			if err := s.memory.Tell(interestTopic, broker.Body(in)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if interests, askers := n.owner.size(); interests != maxInterests || askers != maxInterests {
			t.Errorf("%d interests of %d, want %d", interests, askers, maxInterests)
		}
		id := newID(1)
		w, err := client.watch(id, []message.ShardCount{{Shard: 0, Messages: 1}}, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		synctest.Wait()
		s.write(id, 0, 0)
		time.Sleep(tellAgain + 100*time.Millisecond)
		if r, err := w.Receipt(); err != nil || !r.Done {
			t.Errorf("%+v, %v", r, err)
		}
		time.Sleep(leaseTime + time.Second)
		if got, _ := n.owner.size(); got > 1 {
			t.Errorf("%d interests are left after their lease", got)
		}
		w.Close()
		time.Sleep(leaseTime + time.Second)
		if interests, askers := n.owner.size(); n.Watched() || askers != 0 || interests > 0 {
			t.Errorf("%d are still interested", askers)
		}
	})
}

// size is how many submissions others want to hear of, and how many nodes want that, each
// counted for each.
func (o *owner) size() (interests, askers int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.interests), o.askers
}

// TestWaitsAreBounded: so many may wait, half of them of one client, and each gives its
// place back.
func TestWaitsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSystem(t, 1).start("n", true, false)
		shards := []message.ShardCount{{Shard: 0, Messages: 1}}
		wait := func(client string) (*Waiting, bool) { return n.Await(newID(1), client, func(Progress) {}) }
		for range 2 {
			var all []*Waiting
			for _, client := range []string{"a", "b"} {
				for i := range maxWaits / 2 {
					w, ok := wait(client)
					if !ok {
						t.Fatalf("no place for wait %d of client %s", i, client)
					}
					if i%2 == 0 {
						w.Accepted(shards)
					}
					all = append(all, w)
				}
				if _, ok := wait(client); ok {
					t.Errorf("client %s waits for more than half of what there may be", client)
				}
			}
			if _, ok := wait("c"); ok {
				t.Error("one more than may wait")
			}
			var watches []*Watch
			for {
				w, err := n.Watch(newID(1))
				if err != nil {
					break
				}
				watches = append(watches, w)
			}
			if len(watches) != maxWatches-maxWaits {
				t.Errorf("%d watches beside %d waits", len(watches), maxWaits)
			}
			for _, w := range watches {
				w.Close()
				w.Close()
			}
			for _, w := range all {
				w.End()
				w.End()
			}
			if n.waits.taken != 0 || len(n.waits.of) != 0 || n.watches != 0 || len(n.entries) != 0 {
				t.Fatalf("%d waits, %d watches, %d entries are left", n.waits.taken, n.watches, len(n.entries))
			}
		}
	})
}

// counting counts what is told.
type counting struct {
	broker.Bus
	bodies map[string]int
}

func (c *counting) Tell(topic string, body []byte) error {
	kind := topic
	if strings.HasPrefix(topic, answerTopic) {
		kind = answerTopic
	}
	c.bodies[kind]++
	return c.Bus.Tell(topic, body)
}

// TestFewBodies: a thousand submissions a second that are waited for share their bodies
// on the bus.
func TestFewBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, 1)
		c := &counting{bodies: make(map[string]int)}
		s.bus = func(b broker.Bus) broker.Bus {
			c.Bus = b
			return c
		}
		n := s.start("n", true, true)
		s.own(n, 0)
		const rate, seconds = 1000, 5
		var done atomic.Int64 // several tell at once
		var all []*Waiting
		type due struct {
			id string
			at time.Time
		}
		var later []due
		for range rate * seconds {
			id := newID(1)
			w, _ := n.Await(id, "a", func(Progress) { done.Add(1) })
			w.Accepted([]message.ShardCount{{Shard: 0, Messages: 1}})
			all, later = append(all, w), append(later, due{id, time.Now().Add(20 * time.Millisecond)})
			time.Sleep(time.Second / rate)
			for len(later) > 0 && !time.Now().Before(later[0].at) {
				s.write(later[0].id, 0, 0)
				later = later[1:]
			}
		}
		for _, d := range later {
			s.write(d.id, 0, 0)
		}
		time.Sleep(time.Second)
		synctest.Wait() // what others have written can be read
		if got := done.Load(); got != rate*seconds {
			t.Errorf("%d of %d are done", got, rate*seconds)
		}
		// One for the interests of 5 ms and its answer, one for the changes of 8 ms.
		if got := c.bodies[interestTopic]; got > seconds*220 {
			t.Errorf("%d bodies tell %d interests", got, rate*seconds)
		}
		if got := c.bodies[answerTopic]; got > seconds*(220+140) {
			t.Errorf("%d bodies answer", got)
		}
		for _, w := range all {
			w.End()
		}
	})
}

// TestInterestBeforeLook: what is written while the owner looks is told at once.
func TestInterestBeforeLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, 1)
		n := s.start("n", true, true)
		s.own(n, 0)
		id, looked := newID(1), false
		look := n.cfg.Owned
		n.cfg.Owned = func(submission string, count int, shards []int) []Owned {
			known := look(submission, count, shards)
			if !looked {
				looked = true
				s.write(id, 0, 0)
			}
			return known
		}
		w, err := n.watch(id, []message.ShardCount{{Shard: 0, Messages: 1}}, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		time.Sleep(100 * time.Millisecond)
		if r, err := w.Receipt(); err != nil || !r.Done || !looked {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// TestNobodyWaits: what nobody waits for costs no allocation, and no word on the bus.
func TestNobodyWaits(t *testing.T) {
	r := NewReceipts(ReceiptConfig{Server: true, Shards: 5})
	id, shards := newID(1), []message.ShardCount{{Shard: 0, Messages: 1}}
	for range remembered + 1 {
		r.Accepted(id, shards)
	}
	if n := testing.AllocsPerRun(1000, func() { r.Accepted(id, shards) }); n > 0 {
		t.Errorf("%v allocations for an accepted submission", n)
	}
	if n := testing.AllocsPerRun(1000, func() {
		if r.Watched() {
			t.Error("watched")
		}
	}); n > 0 {
		t.Errorf("%v allocations for a batch", n)
	}
}

func BenchmarkAccepted(b *testing.B) {
	r := NewReceipts(ReceiptConfig{Server: true, Shards: 5})
	ids := make([]string, 1<<12)
	for i := range ids {
		ids[i] = newID(1)
	}
	shards := []message.ShardCount{{Shard: 0, Messages: 1}}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.Accepted(ids[i%len(ids)], shards)
	}
}

func BenchmarkWatched(b *testing.B) {
	r := NewReceipts(ReceiptConfig{Shards: 5})
	for b.Loop() {
		if r.Watched() {
			b.Fatal("watched")
		}
	}
}
