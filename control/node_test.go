package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testShards = 10

// system is nodes in the test's bubble, over a bus in memory, and the one folder that
// they write to.
type system struct {
	t      *testing.T
	memory *brokertest.Memory
	mu     sync.Mutex            // guards what follows
	owner  [testShards]*testNode // of each shard's folder
	nodes  []*testNode           // all that were
	events []event.Event
}

// testNode is a node under test, with its consumer.
type testNode struct {
	*Node
	marks
	s        *system
	client   *brokertest.Client
	bus      *cutBus
	intake   testIntake // of a server
	commands *commandOwner
	stop     context.CancelFunc
	done     chan struct{}
	assigned [testShards]bool // guarded by s.mu
	useless  bool             // it cannot write; as assigned
}

func newSystem(t *testing.T) *system {
	s := &system{t: t, memory: brokertest.NewMemory(testShards)}
	t.Cleanup(func() { s.memory.Close() })
	return s
}

// node runs another node, with all shards.
func (s *system) node(roles ...string) *testNode {
	n := &testNode{s: s, client: s.memory.Open(nil), done: make(chan struct{})}
	n.bus = &cutBus{Bus: n.client}
	cfg := Config{Bus: n.bus, Skips: new(broker.Skips), Name: "n", Info: Info{Roles: roles}, Shards: testShards, Events: s.hear}
	if len(roles) == 0 {
		cfg.Owner, cfg.Consumer, cfg.Sought = n, n.has, n.sought
		for shard := range testShards {
			n.Start(shard)
		}
	}
	if slices.Contains(roles, ServerRole) {
		cfg.Intake = n.intake.set
	}
	n.Node = New(cfg)
	s.mu.Lock()
	s.nodes = append(s.nodes, n)
	s.mu.Unlock()
	n.tellParts(2)
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	n.takeCommands(ctx)
	go func() {
		defer close(n.done)
		n.Run(ctx)
	}()
	return n
}

// end has the node say goodbye; kill does not.
func (n *testNode) end() {
	n.stop()
	<-n.done
	n.kill()
}

func (n *testNode) kill() {
	n.client.Close()
	n.stop()
	<-n.done
	for shard := range testShards {
		n.Stop(shard)
	}
}

func (n *testNode) Start(shard int) { n.set(shard, true) }
func (n *testNode) Stop(shard int)  { n.set(shard, false) }

func (n *testNode) set(shard int, to bool) {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	n.assigned[shard] = to
	if !to && n.s.owner[shard] == n {
		n.s.owner[shard] = nil
	}
}

// has takes what is free and assigned, and returns what the node has.
func (n *testNode) has() Consumer {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	c := Consumer{Works: !n.useless}
	for shard := range testShards {
		if n.assigned[shard] && n.s.owner[shard] == nil {
			n.s.owner[shard] = n
		}
		switch {
		case n.s.owner[shard] == n:
			c.Runs.Add(shard)
		case n.assigned[shard]:
			c.Waits.Add(shard)
		}
	}
	return c
}

func (s *system) hear(e event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

// checkTold fails unless so many events have the text.
func (s *system) checkTold(want int, text string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	got := 0
	for _, e := range s.events {
		if strings.Contains(fmt.Sprintf("%T%+v", e, e), text) {
			got++
		}
	}
	if got != want {
		s.t.Errorf("%q is told %d times, want %d: %+v", text, got, want, s.events)
	}
}

// checkOwns fails unless the nodes own so many shards each.
func (s *system) checkOwns(want map[*testNode]int) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	got := make(map[*testNode]int)
	for _, n := range s.owner {
		got[n]++
	}
	for n, want := range want {
		if got[n] != want {
			s.t.Errorf("%s owns %d shards, want %d", n.ID(), got[n], want)
		}
	}
}

// after lets the time pass.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// TestNodes: nodes hear of each other at once, share the shards, take those of a node
// that is gone, and tell of all that.
func TestNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.node()
		after(time.Second)
		s.checkOwns(map[*testNode]int{a: 10})
		b, server := s.node(), s.node("server")
		after(200 * time.Millisecond)
		s.checkTold(2, "NodeCame{Node:"+a.ID())
		s.checkTold(2, "NodeCame{Node:"+b.ID())
		s.checkTold(2, "NodeCame{Node:"+server.ID()+" Roles:[server]")
		s.checkOwns(map[*testNode]int{a: 10})
		after(3 * time.Second)
		s.checkOwns(map[*testNode]int{a: 5, b: 5})
		s.checkTold(2, "SharesChanged{Consumers:2 Shards:10 Mine:5}")
		if a.Mine() != 5 {
			t.Errorf("%d shards are meant for a, want 5", a.Mine())
		}

		b.kill()
		after(goneAfter - 2500*time.Millisecond)
		s.checkOwns(map[*testNode]int{a: 5})
		after(3 * time.Second)
		s.checkOwns(map[*testNode]int{a: 10})
		s.checkTold(2, "NodeGone{Node:"+b.ID())

		c := s.node()
		after(5 * time.Second)
		s.checkOwns(map[*testNode]int{a: 5, c: 5})
		a.Drain()
		after(100 * time.Millisecond) // c waits for what a gives up now
		a.end()
		after(time.Second)
		s.checkOwns(map[*testNode]int{c: 10})
		after(time.Minute)
		s.checkTold(0, "NodeGone{Node:"+a.ID()) // it has said goodbye
		c.end()
		server.end()
	})
}

// TestNodesWithoutBus: a node that hears of no other owns all shards, from the start or
// when the bus goes away.
func TestNodesWithoutBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a, b := s.node(), s.node()
		after(5 * time.Second)
		s.checkOwns(map[*testNode]int{a: 5, b: 5})
		a.client.Close()
		after(goneAfter + time.Second)
		s.checkOwns(map[*testNode]int{a: 5, b: 5}) // each waits for those of the other
		b.kill()
		after(time.Second)
		s.checkOwns(map[*testNode]int{a: 10})
		a.kill()
	})
}

// TestNodesHostileBus: what is not a beat is counted, and changes nothing.
func TestNodesHostileBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.node()
		after(5 * time.Second)
		for range 100 {
			for _, body := range []string{
				`{"v":2,"node":"x"}`, "", "{", `[]`, `{"v":1}`, strings.Repeat("[", 100_000), `"` + strings.Repeat("x", broker.MaxBusBody-2) + `"`,
				`{"v":1,"node":"` + a.ID() + `","seq":18446744073709551615,"kind":"goodbye"}`,
			} {
				if err := s.memory.Tell(nodesTopic, []byte(body)); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
		}
		if foreign, broken := a.cfg.Skips.Counts(); foreign != 100 || broken != 600 {
			t.Errorf("%d bodies of another version and %d others were skipped, want 100 and 600", foreign, broken)
		}
		for i := range 3 * maxMembers {
			body := fmt.Sprintf(`{"v":1,"node":"x%d","seq":1,"kind":"hello","consumer":{"shards":10,"works":true,"runs":"0-9"}}`, i)
			if err := s.memory.Tell(nodesTopic, []byte(body)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		after(time.Minute) // it has given shards to nodes that said they have them, and takes them back
		s.checkOwns(map[*testNode]int{a: 10})
		b := s.node()
		after(20 * time.Second)
		s.checkOwns(map[*testNode]int{a: 5, b: 5})
		a.end()
		b.end()
	})
}

// TestNodesLongTexts: the others take what a node tells, however long its own texts are:
// the URL of a cluster's broker has many hosts.
func TestNodesLongTexts(t *testing.T) {
	long := strings.Repeat("nats-0.nats.production.svc.cluster.local:4222,", 6)
	for _, name := range []string{"", long, strings.Repeat("é", 100)} {
		n := New(Config{Name: name, Shards: testShards, Info: Info{Version: long, Address: long, Broker: long}})
		b, err := parseBeat(n.beat(time.Now(), nil))
		if err != nil || b.Node != n.ID() {
			t.Errorf("%q: %+v, %v", name, b, err)
		}
	}
}

// TestNodeWorks: a consumer that has not worked yet tells so at once, later when it has
// failed for a while.
func TestNodeWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		works := false
		n := New(Config{Owner: &testNode{}, Shards: 1, Consumer: func() Consumer { return Consumer{Works: works} }})
		for _, step := range []struct {
			after       time.Duration
			works, want bool
		}{{0, false, false}, {1, true, true}, {1, false, true}, {failAfter - 1, false, true}, {1, false, false}, {1, true, true}} {
			time.Sleep(step.after)
			works = step.works
			if got := n.consumer(time.Now()).Works; got != step.want {
				t.Errorf("%+v: it tells %v", step, got)
			}
		}
	})
}
