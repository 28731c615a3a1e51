package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/dashboard/openapitest"
	"async-data-processor/event"
)

// parts has the nodes of a system tell of their shards.
func (n *testNode) tellParts(workers int) {
	n.cfg.Part = func() Part {
		n.asked.Add(1)
		if n.mute.Load() {
			time.Sleep(time.Hour) // its answers come too late
		}
		p := Part{Checks: []Check{{Name: "output", OK: true}}, Disk: &Disk{Folder: "/data", Free: 7}}
		if n.cfg.Owner == nil {
			return p
		}
		c := n.has()
		for _, shard := range c.Runs {
			p.Shards = append(p.Shards, ShardPart{Shard: int(shard), State: event.ShardRunning, InHand: 1, Workers: workers, Totals: Totals{Written: 10}})
			p.Totals.Written += 10
		}
		for _, shard := range c.Waits {
			p.Shards = append(p.Shards, ShardPart{Shard: int(shard), State: event.ShardStandby})
		}
		return p
	}
	n.cfg.Workers = func() (all []WorkerPart) {
		for _, shard := range n.has().Runs {
			for i := range workers {
				all = append(all, WorkerPart{Worker: fmt.Sprint(shard, "-", i+1), Shard: int(shard), State: "idle"})
			}
		}
		return all
	}
	n.cfg.Backlogs = func(context.Context, int) ([]broker.Backlog, error) {
		var all []broker.Backlog
		for shard := range testShards {
			all = append(all, broker.Backlog{Shard: shard, Envelopes: shard})
		}
		return all, n.blind
	}
}

// get returns the answer of the node.
func get[T any](t *testing.T, n *testNode, path string) (answer T) {
	t.Helper()
	w := httptest.NewRecorder()
	openapitest.Handler(t, n.Node).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" {
		t.Fatalf("%s: status %d, header %v", path, w.Code, w.Header())
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// TestSystem: every node answers for all. One that does not answer is unknown, and so
// is what it owns.
func TestSystem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a, b, server := s.node(), s.node(), s.node("server")
		after(10 * time.Second)
		for _, n := range []*testNode{a, b, server} {
			began := time.Now()
			o := get[Overview](t, n, "/api/v1/overview")
			if took := time.Since(began); took > 100*time.Millisecond {
				t.Errorf("an overview took %v", took)
			}
			if !o.Complete || o.Node != n.ID() || o.Nodes["here"] != 3 || o.Shards["running"] != 10 || o.Queued == nil || *o.Queued != 45 ||
				o.InHand != 10 || o.Workers != 20 || o.Written != 100 || len(o.Disks) != 3 {
				t.Errorf("got %+v", o)
			}
			for _, sh := range get[ShardsAnswer](t, n, "/api/v1/shards").Shards {
				if sh.Owner != a.ID() && sh.Owner != b.ID() || sh.State != event.ShardRunning || *sh.Queued != sh.Shard || sh.Part.Written != 10 {
					t.Errorf("shard %+v", sh)
				}
			}
			if w := get[WorkersAnswer](t, n, "/api/v1/workers"); len(w.Workers) != 20 || !w.Complete || w.Next != "" {
				t.Errorf("%d workers", len(w.Workers))
			}
		}

		b.mute.Store(true)
		server.blind = errors.New("no broker")
		after(6 * time.Second)
		began := time.Now()
		o := get[Overview](t, server, "/api/v1/overview")
		if took := time.Since(began); took > broker.AskTimeout {
			t.Errorf("an overview took %v", took)
		}
		if o.Complete || o.Nodes["here"] != 2 || o.Nodes["unknown"] != 1 || o.Shards["running"] != 5 || o.Shards["unknown"] != 5 || o.Queued != nil || o.Written != 50 {
			t.Errorf("got %+v", o)
		}
		for _, sh := range get[ShardsAnswer](t, server, "/api/v1/shards").Shards {
			if (sh.State == ShardUnknown) != (sh.Owner == b.ID()) || (sh.Part == nil) != (sh.Owner == b.ID()) || sh.Queued != nil {
				t.Errorf("shard %+v", sh)
			}
		}
		for _, v := range get[NodesAnswer](t, server, "/api/v1/nodes").Nodes {
			if silent := v.Node == b.ID(); silent != (v.State == NodeUnknown) || silent != (v.Totals == nil) || silent != (v.Mine == nil) {
				t.Errorf("node %+v", v)
			}
		}
		b.kill()
		after(goneAfter + 2*time.Second)
		if o := get[Overview](t, server, "/api/v1/overview"); !o.Complete || o.Nodes["gone"] != 1 || o.Shards["running"] != 10 {
			t.Errorf("got %+v", o)
		}
		a.client.Close() // a is without the bus, and answers for itself
		after(goneAfter + 2*time.Second)
		if o := get[Overview](t, a, "/api/v1/overview"); o.Complete || o.Nodes["here"] != 1 || o.Nodes["unknown"] != 1 || o.Nodes["gone"] != 1 || o.Shards["running"] != 10 {
			t.Errorf("got %+v", o)
		}
		a.kill()
		server.end()
		time.Sleep(time.Hour)
	})
}

// TestSystemFlood: any number of requests, and of questions on the bus, cost one look
// in a while.
func TestSystemFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a, b := s.node(), s.node()
		after(10 * time.Second)
		a.asked.Store(0)
		b.asked.Store(0)
		for range 1000 {
			go a.System()
		}
		after(100 * time.Millisecond)
		for range 100 {
			if err := s.memory.Ask(t.Context(), snapshotTopic, []byte("anything"), func([]byte) bool { return false }); err != nil {
				t.Error(err)
			}
		}
		after(100 * time.Millisecond)
		if n, m := a.asked.Load(), b.asked.Load(); n > 1 || m > 1 {
			t.Errorf("the nodes looked at themselves %d and %d times, want once", n, m)
		}
		a.end()
		b.end()
	})
}

// TestSystemHostileAnswers: what is no part, or of a node that is not known, or of
// another one, changes nothing.
func TestSystemHostileAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.node()
		b := s.node("server")
		after(10 * time.Second)
		for _, text := range []string{
			"", "[]", `{"v":2}`, `{"v":1,"node":"x","shards":[{"shard":0,"state":"running"}]}`, strings.Repeat("[", 200_000),
			`{"v":1,"node":"` + a.ID() + `","shards":[{"shard":-1,"state":"running"},{"shard":1000000,"state":"running"}],"totals":{"written":5}}`,
		} {
			defer s.memory.Answer(snapshotTopic, func([]byte) []byte { return []byte(text) })()
		}
		b.mute.Store(true)
		after(time.Second)
		o := get[Overview](t, a, "/api/v1/overview")
		if o.Nodes["here"] != 1 || o.Nodes["unknown"] != 1 || o.Shards["running"] != 10 || o.Written != 100 {
			t.Errorf("got %+v", o)
		}
		a.end()
		b.end()
		time.Sleep(time.Hour)
	})
}

// TestSystemManyItems: a node that tells of more than there can be is unknown, and its
// answer is not kept.
func TestSystemManyItems(t *testing.T) {
	for _, list := range []string{
		`"shards":[` + strings.Repeat("{},", maxItems) + `{}]`,
		`"checks":[` + strings.Repeat("{},", maxChecks) + `{}]`,
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSystem(t)
			a, b := s.node(), s.node("server")
			after(5 * time.Second)
			b.mute.Store(true)
			after(time.Second)
			text := `{"v":1,"node":"` + b.ID() + `",` + list + `}`
			defer s.memory.Answer(snapshotTopic, func([]byte) []byte { return []byte(text) })()
			o := get[Overview](t, a, "/api/v1/overview")
			if _, refused := a.cfg.Skips.Counts(); refused != 1 || o.Nodes["unknown"] != 1 {
				t.Errorf("%d answers were refused; got %+v", refused, o)
			}
			a.end()
			b.end()
			time.Sleep(time.Hour)
		})
	}
}

// TestFit: a part is never longer than the bus takes, and says what it lacks.
func TestFit(t *testing.T) {
	p := Part{V: broker.BusVersion, Node: "n"}
	for n := range 1024 {
		p.Shards = append(p.Shards, ShardPart{Shard: n, State: event.ShardRunning, Since: start, Why: strings.Repeat("x", maxWhy)})
	}
	read := func(body []byte) (p Part) {
		if err := broker.ReadBody(body, &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	got := read(fit(p, 512<<10))
	if len(got.Shards) != 1024 || got.Shards[0].Why != "" || got.LeftOut.Shards != 0 {
		t.Errorf("%d shards, without %+v", len(got.Shards), got.LeftOut)
	}
	got = read(fit(p, 10_000))
	if len(got.Shards)+got.LeftOut.Shards != 1024 || len(got.Shards) == 0 {
		t.Errorf("%d shards, without %+v", len(got.Shards), got.LeftOut)
	}
}

// marks are what a test changes of a node.
type marks struct {
	asked atomic.Int32 // how often it has looked at itself
	mute  atomic.Bool  // it does not answer
	blind error        // why it does not see the queues
}
