package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/dashboard/openapitest"
	"async-data-processor/event"
)

// commandSystem is some processes on one bus.
type commandSystem struct {
	t      *testing.T
	memory *brokertest.Memory
	told   []event.CommandTaken
}

// inCommandSystem runs a test in a bubble.
func inCommandSystem(t *testing.T, test func(s *commandSystem)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &commandSystem{t: t, memory: brokertest.NewMemory(4)}
		test(s)
	})
}

// commandOwner is a process that owns shards.
type commandOwner struct {
	*Commands
	t       *testing.T
	mu      sync.Mutex
	owns    map[int]bool
	applied map[string]int // by shard and id
	takes   time.Duration
	err     error
}

func (o *commandOwner) apply(ctx context.Context, shard int, c Command) (Outcome, error) {
	o.mu.Lock()
	owns := o.owns[shard]
	if owns {
		o.applied[fmt.Sprint(shard, " ", c.ID)]++
	}
	o.mu.Unlock()
	if !owns {
		return Outcome{}, ErrNotOwned
	}
	select {
	case <-time.After(o.takes):
	case <-ctx.Done():
	}
	return Outcome{Before: "running", After: c.Verb}, o.err
}

func (o *commandOwner) own(shard int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.owns[shard] = true
}

// process adds one, with the shards that it owns.
func (s *commandSystem) process(bus broker.Bus, shards ...int) *commandOwner {
	o := &commandOwner{t: s.t, owns: make(map[int]bool), applied: make(map[string]int)}
	for _, n := range shards {
		o.owns[n] = true
	}
	o.Commands = NewCommands(CommandConfig{
		Bus: bus, Node: fmt.Sprint("node-", shards), Shards: 4, Apply: o.apply,
		Check: func(c Command) error {
			if c.Verb != "pause" && c.Verb != "resume" || len(c.ID) > 64 {
				return ErrCommand
			}
			return nil
		},
		Tell: func(e event.CommandTaken) { s.told = append(s.told, e) },
	})
	ctx, stop := context.WithCancel(context.Background())
	s.t.Cleanup(stop)
	go o.Run(ctx)
	synctest.Wait()
	return o
}

// ask has a process answer a client, and holds that to the description of the API.
func (o *commandOwner) ask(r *http.Request, by string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	openapitest.Handler(o.t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { o.Serve(w, r, by) })).ServeHTTP(w, r)
	return w
}

// post sends a command to a process.
func post(o *commandOwner, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, CommandPath, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	return o.ask(r, "ann")
}

func viewOf(t *testing.T, w *httptest.ResponseRecorder) (v CommandView) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Errorf("%d %s: %v", w.Code, w.Body, err)
	}
	return v
}

// show asks a process what became of a command.
func show(t *testing.T, o *commandOwner, id string) CommandView {
	t.Helper()
	w := o.ask(httptest.NewRequest(http.MethodGet, CommandPath+"/"+id, nil), "")
	if w.Code != http.StatusOK {
		t.Errorf("GET of command %s: %d %s", id, w.Code, w.Body)
	}
	return viewOf(t, w)
}

// TestCommandReachesItsOwner: who takes a command answers with what the owner tells, and
// every process knows of it.
func TestCommandReachesItsOwner(t *testing.T) {
	inCommandSystem(t, func(s *commandSystem) {
		a, b := s.process(s.memory.Open(nil)), s.process(s.memory.Open(nil), 2, 3)
		began := time.Now()
		w := post(a, `{"id":"x","verb":"pause","target":"shard:3","reason":"why"}`)
		v := viewOf(t, w)
		if w.Code != http.StatusOK || v.State != "done" || v.Shards["3"] != (ShardOutcome{Node: "node-[2 3]", Before: "running", After: "pause"}) || time.Since(began) > time.Second {
			t.Errorf("after %v: %d %s", time.Since(began), w.Code, w.Body)
		}
		if b.applied["3 x"] != 1 {
			t.Errorf("applied %v", b.applied)
		}
		synctest.Wait()
		if v := show(t, b, "x"); v.State != "done" || v.By != "ann" || v.Reason != "why" {
			t.Errorf("the owner knows %+v", v)
		}
		if len(s.told) != 1 || s.told[0].By != "ann" || s.told[0].From == "" || s.told[0].Target != "shard:3" {
			t.Errorf("the audit has %+v", s.told)
		}
		if w := post(b, `{"verb":"resume","target":"shard:2"}`); w.Code != http.StatusOK || viewOf(t, w).ID == "" {
			t.Errorf("its own: %d %s", w.Code, w.Body)
		}
	})
}

// TestNoFalseSuccess: without the owner's word the answer is 202, however long it takes,
// and the truth follows.
func TestNoFalseSuccess(t *testing.T) {
	inCommandSystem(t, func(s *commandSystem) {
		a, b := s.process(s.memory.Open(nil)), s.process(s.memory.Open(nil), 0)
		b.takes = 10 * time.Second
		w := post(a, `{"id":"slow","verb":"pause","target":"shard:0"}`)
		if w.Code != http.StatusAccepted || w.Header().Get("Location") != CommandPath+"/slow" || viewOf(t, w).State != "waiting" {
			t.Errorf("while the owner is at it: %d %s", w.Code, w.Body)
		}
		time.Sleep(6 * time.Second)
		if v := show(t, a, "slow"); v.State != "done" || b.applied["0 slow"] != 1 {
			t.Errorf("later: %+v, applied %v", v, b.applied)
		}
		b.takes = 0
		if w := post(a, `{"id":"none","verb":"pause","target":"shard:1"}`); w.Code != http.StatusAccepted {
			t.Errorf("without an owner: %d %s", w.Code, w.Body)
		}
		b.own(1)
		time.Sleep(2 * time.Second)
		if v := show(t, a, "none"); v.State != "done" {
			t.Errorf("once it has an owner: %+v", v)
		}
		if w := post(a, `{"id":"some","verb":"pause","target":"shard:*"}`); w.Code != http.StatusAccepted || viewOf(t, w).Waiting != 2 {
			t.Errorf("two of four shards have an owner: %d %s", w.Code, w.Body)
		}
		b.err = errors.New("disk full")
		w = post(a, `{"id":"full","verb":"pause","target":"shard:0"}`)
		if v := viewOf(t, w); w.Code != http.StatusServiceUnavailable || v.State != "failed" || v.Shards["0"].Error != "disk full" {
			t.Errorf("what failed: %d %s", w.Code, w.Body)
		}
		time.Sleep(2 * time.Minute)
		if v := show(t, a, "some"); v.State != "waiting" {
			t.Errorf("nobody has told: %+v", v)
		}
	})
}

// TestCommandOnce: an id is one command, wherever it is sent again.
func TestCommandOnce(t *testing.T) {
	inCommandSystem(t, func(s *commandSystem) {
		a, b := s.process(s.memory.Open(nil)), s.process(s.memory.Open(nil), 0)
		const body = `{"id":"x","verb":"pause","target":"shard:0"}`
		for _, to := range []*commandOwner{a, a, b} {
			if w := post(to, body); w.Code != http.StatusOK {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			synctest.Wait()
		}
		if b.applied["0 x"] != 1 {
			t.Errorf("applied %v", b.applied)
		}
		for _, to := range []*commandOwner{a, b} {
			if w := post(to, `{"id":"x","verb":"resume","target":"shard:0"}`); w.Code != http.StatusConflict {
				t.Errorf("another command of that id: %d %s", w.Code, w.Body)
			}
		}
	})
}

// lossyBus loses what is told until it is told to stop.
type lossyBus struct {
	broker.Bus
	loses *atomic.Bool
}

func (b lossyBus) Tell(topic string, body []byte) error {
	if b.loses.Load() {
		return errors.New("not connected")
	}
	return b.Bus.Tell(topic, body)
}

// TestCommandWithoutBus: what is owned here is applied, and the rest as soon as the bus
// is back.
func TestCommandWithoutBus(t *testing.T) {
	inCommandSystem(t, func(s *commandSystem) {
		var cut atomic.Bool
		cut.Store(true)
		a, b := s.process(lossyBus{s.memory.Open(nil), &cut}, 0), s.process(s.memory.Open(nil), 1)
		if w := post(a, `{"verb":"pause","target":"shard:0"}`); w.Code != http.StatusOK {
			t.Errorf("its own: %d %s", w.Code, w.Body)
		}
		time.AfterFunc(3500*time.Millisecond, func() { cut.Store(false) })
		if w := post(a, `{"id":"x","verb":"pause","target":"shard:1"}`); w.Code != http.StatusOK || b.applied["1 x"] != 1 {
			t.Errorf("of another: %d %s", w.Code, w.Body)
		}
		alone := s.process(nil, 2)
		if w := post(alone, `{"verb":"pause","target":"shard:2"}`); w.Code != http.StatusOK {
			t.Errorf("a process alone: %d %s", w.Code, w.Body)
		}
	})
}

// TestOutcomeIsLost: an outcome that was not heard is told again.
func TestOutcomeIsLost(t *testing.T) {
	inCommandSystem(t, func(s *commandSystem) {
		var cut atomic.Bool
		cut.Store(true)
		a := s.process(s.memory.Open(nil))
		s.process(lossyBus{s.memory.Open(nil), &cut}, 0, 1, 2, 3)
		time.AfterFunc(2500*time.Millisecond, func() { cut.Store(false) })
		for _, target := range []string{"shard:1", "shard:*"} {
			cut.Store(target == "shard:1")
			if w := post(a, `{"verb":"pause","target":"`+target+`"}`); w.Code != http.StatusOK {
				t.Errorf("%s: %d %s", target, w.Code, w.Body)
			}
		}
	})
}

// TestRetryElsewhere: a command is pursued again when it is sent again, also by a process
// that has only heard of it.
func TestRetryElsewhere(t *testing.T) {
	inCommandSystem(t, func(s *commandSystem) {
		a, b := s.process(s.memory.Open(nil), 2), s.process(s.memory.Open(nil), 3)
		const body = `{"id":"x","verb":"pause","target":"shard:0"}`
		if w := post(a, body); w.Code != http.StatusAccepted {
			t.Errorf("without an owner: %d %s", w.Code, w.Body)
		}
		time.Sleep(2 * commandPatience)
		owner := s.process(s.memory.Open(nil), 0)
		for _, to := range []*commandOwner{b, a} {
			if w := post(to, body); w.Code != http.StatusOK || owner.applied["0 x"] != 1 {
				t.Errorf("once it has an owner: %d %s, applied %v", w.Code, w.Body, owner.applied)
			}
		}
	})
}

// TestCommandBounds: no client and nothing on the bus makes a process take more than
// its bounds.
func TestCommandBounds(t *testing.T) {
	inCommandSystem(t, func(s *commandSystem) {
		bus := s.memory.Open(nil)
		a := s.process(bus)
		for body, want := range map[string]int{
			``: 400, `{}`: 400, `[]`: 400, `null`: 400, `{"verb":"pause","target":"shard:0"}{}`: 400, `{"verb":"pause","target":"shard:0","x":1}`: 400,
			`{"verb":"stop","target":"shard:0"}`: 400, `{"verb":"pause","target":"shard:01"}`: 400, `{"verb":"pause","target":"shard:-1"}`: 400,
			`{"verb":"pause","target":"intake:0"}`: 400, `{"verb":"pause","target":"shard:0","until":"soon"}`: 400,
			`{"verb":"pause","target":"shard:0","reason":"` + strings.Repeat("x", maxCommandBody) + `"}`: 413,
		} {
			if w := post(a, body); w.Code != want || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("%.60s: %d %s, want %d", body, w.Code, w.Body, want)
			}
		}
		var many sync.WaitGroup
		codes := make(chan int, 100)
		for i := range 100 {
			many.Go(func() {
				time.Sleep(time.Duration(i) * 50 * time.Millisecond)
				codes <- post(a, `{"verb":"pause","target":"shard:0"}`).Code
			})
		}
		many.Wait()
		close(codes)
		accepted := 0
		for code := range codes {
			switch code {
			case http.StatusAccepted:
				accepted++
			case http.StatusTooManyRequests:
			default:
				t.Errorf("answer %d", code)
			}
		}
		if accepted != maxWaiting {
			t.Errorf("%d commands wait, want %d", accepted, maxWaiting)
		}
		for i := range 2 * maxCommands {
			body := fmt.Sprintf(`{"v":1,"node":"evil","id":"e%d","verb":"pause","target":"shard:0"}`, i)
			if i%2 == 0 {
				body = []string{"", "null", `{"v":2}`, `{"v":1,"id":"y"}`, body[:40], strings.Repeat("[", 10000)}[i/2%6]
			}
			_ = bus.Tell(commandTopic, []byte(body))
			_ = bus.Tell(outcomeTopic, []byte(body))
			_ = bus.Tell(outcomeTopic, fmt.Appendf(nil, `{"v":1,"node":"evil","id":"e%d","shard":%d}`, i, i))
			synctest.Wait()
		}
		a.Commands.mu.Lock()
		known := len(a.records)
		a.Commands.mu.Unlock()
		if known != maxCommands {
			t.Errorf("%d commands are remembered, want %d", known, maxCommands)
		}
		time.Sleep(2 * time.Minute)
	})
}

// TestReadOnly: a process that is read-only takes no command.
func TestReadOnly(t *testing.T) {
	inCommandSystem(t, func(s *commandSystem) {
		a := s.process(nil, 0)
		a.cfg.ReadOnly = true
		if w := post(a, `{"id":"x","verb":"pause","target":"shard:0"}`); w.Code != http.StatusForbidden || len(a.applied) > 0 || len(s.told) > 0 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}
