package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/event"
)

// testIntake is the intake of a server under test.
type testIntake struct {
	mu   sync.Mutex // guards what follows
	is   Intake
	busy bool // something is under way
	err  error
}

func (i *testIntake) set(to Intake) (applied bool, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err != nil {
		return false, i.err
	}
	i.is = to
	return !i.busy || !to.Paused, nil
}

func (i *testIntake) setBusy(to bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.busy = to
}

// paused tells whether the server takes nothing, and nothing is under way.
func (i *testIntake) paused() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.is.paused(time.Now()) && !i.busy
}

func (n *testNode) takeCommands(ctx context.Context) {
	n.commands = &commandOwner{t: n.s.t, Commands: NewCommands(CommandConfig{
		Bus: n.bus, Node: n.ID(), Nodes: n.Node, Shards: testShards,
		Check: func(Command) error { return nil }, Tell: func(event.CommandTaken) {},
	})}
	go n.commands.Run(ctx)
}

// order sends the node a command to the intake, and fails unless the answer has the status.
func (n *testNode) order(want int, verb, more string) CommandView {
	n.s.t.Helper()
	w := post(n.commands, fmt.Sprintf(`{"verb":%q,"target":"intake"%s}`, verb, more))
	if w.Code != want {
		n.s.t.Errorf("%s: %d %s, want %d", verb, w.Code, w.Body, want)
	}
	var v CommandView
	_ = json.Unmarshal(w.Body.Bytes(), &v)
	return v
}

func checkPaused(t *testing.T, want bool, nodes ...*testNode) {
	t.Helper()
	for _, n := range nodes {
		if n.intake.paused() != want {
			t.Errorf("%s is paused: %v", n.ID(), !want)
		}
	}
}

// TestMissingShard: a command to a shard that is not there is refused at once. One beyond
// the number that a node runs, or of which too little is known, is not.
func TestMissingShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a, b := s.node(), s.node()
		after(3 * time.Second)
		order := func(shard int) (code int, detail string, took time.Duration) {
			began := time.Now()
			w := post(a.commands, fmt.Sprintf(`{"verb":"pause","target":"shard:%d"}`, shard))
			return w.Code, w.Body.String(), time.Since(began)
		}
		if code, detail, took := order(testShards); code != http.StatusBadRequest || took > 0 || !strings.HasPrefix(detail, `{"type":`) || !strings.Contains(detail, "there is no shard 10, there are shards 0 to 9") {
			t.Errorf("%d %s after %v", code, detail, took)
		}
		if code, detail, _ := order(testShards - 1); code != http.StatusAccepted {
			t.Errorf("the last one: %d %s", code, detail)
		}
		part := b.cfg.Part
		b.cfg.Part = func() Part {
			p := part()
			p.Shards = append(p.Shards, ShardPart{Shard: testShards, State: event.ShardRunning})
			return p
		}
		after(time.Second)
		if code, detail, _ := order(testShards); code != http.StatusAccepted {
			t.Errorf("one that a node runs: %d %s", code, detail)
		}
		b.cfg.Part = part
		b.mute.Store(true)
		after(time.Second)
		if code, detail, _ := order(testShards); code != http.StatusAccepted {
			t.Errorf("while a node is unknown: %d %s", code, detail)
		}
		a.kill()
		b.kill()
		time.Sleep(time.Hour)
	})
}

// TestIntake: a command at any node reaches every server, also those that come later, and
// is seen at every node. A pause is told again now and then.
func TestIntake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a, x, y := s.node(), s.node(ServerRole), s.node(ServerRole)
		after(3 * time.Second)
		if o := get[Overview](t, a, "/api/v1/overview"); o.Intake["open"] != 2 || len(o.Intake) != 1 {
			t.Errorf("at first: %+v", o)
		}
		began := time.Now()
		v := x.order(http.StatusOK, "pause", `,"reason":"why"`)
		if took := time.Since(began); took > time.Second {
			t.Errorf("a pause took %v", took)
		}
		if len(v.Servers) != 2 || v.Servers[x.ID()] != (ShardOutcome{Node: x.ID(), Before: "open", After: "paused"}) || v.Waiting != 0 {
			t.Errorf("got %+v", v)
		}
		checkPaused(t, true, x, y)
		after(time.Second)
		for _, n := range []*testNode{a, x, y} {
			if o := get[Overview](t, n, "/api/v1/overview"); o.Intake["paused"] != 2 || len(o.Intake) != 1 {
				t.Errorf("paused: %+v", o)
			}
		}
		for _, v := range get[NodesAnswer](t, a, "/api/v1/nodes").Nodes {
			if server := v.Node != a.ID(); server != (v.Intake == IntakePaused) || server != (v.IntakePause != nil && v.IntakePause.Why == "why" && v.IntakePause.By == "ann") {
				t.Errorf("node %+v", v)
			}
		}
		s.checkTold(2, "IntakeIsPaused")
		after(25 * time.Minute)
		s.checkTold(6, "IntakeIsPaused")

		x.kill()
		y.end()
		after(goneAfter + time.Second)
		z := s.node(ServerRole) // all that knows it is a consumer
		after(200 * time.Millisecond)
		checkPaused(t, true, z)
		z.order(http.StatusOK, "pause", `,"until":"`+time.Now().Add(time.Hour).Format(time.RFC3339)+`"`)
		z.order(http.StatusOK, "resume", "")
		checkPaused(t, false, z)
		s.checkTold(1, "IntakeResumed{By:ann Expired:false}")
		for _, verb := range []string{"flush", "resize", ""} {
			a.order(http.StatusBadRequest, verb, "")
		}
		a.end()
		z.end()
		time.Sleep(time.Hour)
	})
}

// TestIntakeUntil: a pause with an end is over by itself.
func TestIntakeUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		x := s.node(ServerRole)
		after(time.Second)
		x.order(http.StatusOK, "pause", `,"until":"`+time.Now().Add(time.Minute).Format(time.RFC3339)+`"`)
		after(59 * time.Second)
		checkPaused(t, true, x)
		after(2 * time.Second)
		checkPaused(t, false, x)
		s.checkTold(1, "IntakeResumed{By:ann Expired:true}")
		if o := get[Overview](t, x, "/api/v1/overview"); o.Intake["open"] != 1 {
			t.Errorf("got %+v", o)
		}
		x.end()
	})
}

// TestIntakeNoFalseSuccess: the answer is 200 only when every server that is there has told
// that it takes nothing and has nothing under way.
func TestIntakeNoFalseSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.node()
		after(3 * time.Second)
		if v := a.order(http.StatusAccepted, "pause", `,"id":"none"`); v.Waiting != 1 || v.State != "waiting" {
			t.Errorf("without a server: %+v", v)
		}
		x, y := s.node(ServerRole), s.node(ServerRole)
		after(2 * time.Second)
		if v := show(t, a.commands, "none"); v.State != "done" || len(v.Servers) == 0 {
			t.Errorf("when a server has come: %+v", v)
		}
		a.order(http.StatusOK, "resume", "")

		y.intake.setBusy(true)
		if v := x.order(http.StatusAccepted, "pause", `,"id":"busy"`); v.Waiting != 1 || len(v.Servers) != 1 {
			t.Errorf("while a server publishes: %+v", v)
		}
		y.intake.setBusy(false)
		after(time.Second)
		if v := show(t, x.commands, "busy"); v.State != "done" {
			t.Errorf("after that: %+v", v)
		}
		x.order(http.StatusOK, "pause", `,"id":"busy"`) // it is a retry
		a.order(http.StatusOK, "pause", `,"id":"busy"`) // at another process

		y.bus.cut(true)
		x.order(http.StatusAccepted, "resume", `,"id":"silent"`)
		checkPaused(t, true, y)
		y.bus.cut(false)
		after(3 * time.Second)
		checkPaused(t, false, x, y)

		a.bus.cut(true)
		after(10 * time.Second)
		a.order(http.StatusAccepted, "pause", `,"id":"lost"`)
		checkPaused(t, false, x, y)
		x.order(http.StatusOK, "pause", `,"id":"other"`)
		x.order(http.StatusOK, "resume", `,"id":"zz"`)
		a.bus.cut(false)
		after(10 * time.Second)
		if v := show(t, a.commands, "lost"); v.State != "failed" || !strings.Contains(v.Error, errSuperseded.Error()) {
			t.Errorf("a command that was overtaken: %+v", v)
		}
		checkPaused(t, false, x, y)
		a.order(http.StatusServiceUnavailable, "pause", `,"id":"other"`) // which is not the latest any more

		y.intake.mu.Lock()
		y.intake.err = errors.New("read-only")
		y.intake.mu.Unlock()
		if v := a.order(http.StatusServiceUnavailable, "pause", ""); v.State != "failed" || v.Servers[y.ID()].Error != "read-only" || v.Servers[x.ID()].After != "paused" {
			t.Errorf("a server that refuses: %+v", v)
		}
		y.end()
		after(time.Second)
		x.bus.cut(true)
		after(5 * time.Second)
		if v := x.order(http.StatusAccepted, "resume", ""); v.Waiting != 1 || len(v.Servers) != 1 {
			t.Errorf("of others that it would not hear of: %+v", v)
		}
		a.end()
		x.end()
		time.Sleep(time.Hour)
	})
}

// TestIntakeHostile: what no process of ours tells is skipped.
func TestIntakeHostile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		x := s.node(ServerRole)
		after(time.Second)
		long := strings.Repeat("x", maxOutcomeText+1)
		for _, intake := range []string{
			`{"rev":9007199254740993,"id":"a","paused":true}`, `{"rev":1,"id":"` + long + `"}`, `{"rev":1,"id":"a","reason":"` + long + `","paused":true}`,
			`{"rev":1,"id":"a","recent":["","","","","","","","",""],"paused":true}`, `{"rev":-1}`, `7`,
		} {
			if err := s.memory.Tell(nodesTopic, []byte(`{"v":1,"node":"b","seq":1,"kind":"beat","intake":`+intake+`}`)); err != nil {
				t.Fatal(err)
			}
		}
		after(time.Second)
		checkPaused(t, false, x)
		if _, n := x.cfg.Skips.Counts(); n != 6 {
			t.Errorf("%d beats were skipped, want 6", n)
		}
		if err := s.memory.Tell(nodesTopic, []byte(`{"v":1,"node":"b","seq":1,"kind":"beat","intake":{"rev":9007199254740992,"id":"a"}}`)); err != nil {
			t.Fatal(err)
		}
		after(time.Second)
		x.order(http.StatusServiceUnavailable, "pause", "") // there is no next number
		x.end()
	})
}

// TestIntakeModel sends random commands to nodes that are cut off, busy, killed and
// started: each answer 200 is true, and in the end all agree with the last one.
func TestIntakeModel(t *testing.T) {
	for range 6 {
		seed := rand.Uint64()
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			s := newSystem(t)
			nodes := []*testNode{s.node(ServerRole), s.node(ServerRole), s.node(ServerRole), s.node()}
			after(3 * time.Second)
			told, wrong := 0, 0
			for range 60 {
				n := nodes[random.IntN(3)]
				switch random.IntN(8) {
				case 0:
					n.bus.cut(true)
				case 1, 2:
					n.bus.cut(false)
				case 3:
					n.intake.setBusy(true)
				case 4, 5:
					n.intake.setBusy(false)
				case 6:
					n.kill()
					nodes[slices.Index(nodes, n)] = s.node(ServerRole)
					after(time.Second)
				}
				after(time.Duration(random.IntN(4000)) * time.Millisecond)
				verb := []string{"pause", "resume"}[random.IntN(2)]
				from := nodes[random.IntN(4)]
				if w := post(from.commands, fmt.Sprintf(`{"verb":%q,"target":"intake"}`, verb)); w.Code != http.StatusOK {
					continue
				}
				told++
				for _, n := range nodes[:3] {
					n.intake.mu.Lock()
					told := n.intake.is.paused(time.Now())
					n.intake.mu.Unlock()
					if !n.bus.gone() && (told != (verb == "pause") || told && !n.intake.paused()) {
						wrong++
					}
				}
			}
			if told < 5 || wrong > 0 {
				t.Errorf("seed %d: %d answers were 200, %d servers did not do it", seed, told, wrong)
			}
			for _, n := range nodes {
				n.bus.cut(false)
				n.intake.setBusy(false)
			}
			after(time.Minute + 10*time.Second)
			nodes[3].order(http.StatusOK, "pause", "")
			checkPaused(t, true, nodes[:3]...)
			for _, n := range nodes {
				n.kill()
			}
			time.Sleep(time.Hour)
		})
	}
}
