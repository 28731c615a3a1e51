package live

import (
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// TestMoved: a message that is mended may go to another shard than its server remembers.
// The receipt is whole all the same, one that is open and one that is asked for later.
func TestMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, 3)
		server, a, b := s.start("server", true, false), s.start("a", false, true), s.start("b", false, true)
		s.own(a, 0)
		s.own(b, 1, 2)
		id, other := newID(2), newID(1)
		server.Accepted(id, []message.ShardCount{{Shard: 0, Messages: 2}})
		server.Accepted(other, []message.ShardCount{{Shard: 1, Messages: 1}})
		s.write(id, 0, 0)
		watch, err := server.Watch(id)
		if err != nil {
			t.Fatal(err)
		}
		defer watch.Close()
		time.Sleep(2 * time.Second)
		for _, body := range []string{"", "{", `{"v":1,"id":"x"}`, `{"v":1,"id":"` + id + `.0"}`, `{"v":9,"id":"` + id + `"}`} {
			movements{server.Receipts}.hear([]byte(body), 0)
		}
		movements{server.Receipts}.hear(nil, broker.Reconnected)
		s.write(id, 2, 1)
		time.Sleep(5 * time.Second)
		if r, err := watch.Receipt(); err != nil || r.Written != 1 {
			t.Fatalf("before anybody tells: %+v, %v", r, err)
		}
		b.Moved(id)
		time.Sleep(2 * time.Second)
		if r, err := watch.Receipt(); err != nil || !r.Done || r.Written != 2 {
			t.Errorf("open: %+v, %v", r, err)
		}
		for _, n := range s.nodes {
			if r := n.receipt(id); !r.Done || r.Written != 2 {
				t.Errorf("%s: %+v", n.name, r)
			}
		}
		if _, shards, found := server.memory.find(id); !found || shards != nil {
			t.Errorf("the server remembers the shards %v", shards)
		}
		if _, shards, found := server.memory.find(other); !found || !shards.has(1) || shards.count() != 1 {
			t.Errorf("another submission is in the shards %v", shards)
		}
	})
}
