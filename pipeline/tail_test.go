package pipeline

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"async-data-processor/broker/brokertest"
	"async-data-processor/event"
	"async-data-processor/live"
	"async-data-processor/message"
	"async-data-processor/server"
	"async-data-processor/telemetry/metrics"
)

// viewing is another node of a system, with a viewer.
type viewing struct {
	t      *testing.T
	tail   *live.Tail
	viewer *live.Viewer
}

func (w *works) view(q live.Query) *viewing {
	w.t.Helper()
	bus := w.memory.Open(nil)
	name := message.NewID()
	tail := live.NewTail(live.TailConfig{Bus: bus, Node: func() string { return name }, Payload: live.PayloadFull})
	ctx, cancel := context.WithCancel(w.t.Context())
	var running sync.WaitGroup
	running.Go(func() { tail.Run(ctx) })
	viewer, err := tail.View(q)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		viewer.Close()
		cancel()
		running.Wait()
		_ = bus.Close()
	})
	v := &viewing{w.t, tail, viewer}
	if f := v.next(patience); f.Kind != live.KindHello {
		w.t.Fatal(f)
	}
	return v
}

// next returns the next frame that is no statistics, none without one in time.
func (v *viewing) next(timeout time.Duration) live.Frame {
	ctx, cancel := context.WithTimeout(v.t.Context(), timeout)
	defer cancel()
	for {
		f, err := v.viewer.Next(ctx)
		if err != nil || f.Kind != live.KindStats {
			return f
		}
	}
}

func (v *viewing) message() live.Message {
	v.t.Helper()
	f := v.next(patience)
	m, ok := f.Data.(live.Message)
	if !ok {
		v.t.Fatalf("%+v", f)
	}
	return m
}

// until has act repeated until there is a message: the owners hear of a viewer a moment
// after it begins.
func (v *viewing) until(act func()) live.Message {
	v.t.Helper()
	for start := time.Now(); time.Since(start) < patience; {
		act()
		if f := v.next(100 * time.Millisecond); f.Kind != "" {
			m, ok := f.Data.(live.Message)
			if !ok {
				v.t.Fatalf("%+v", f)
			}
			return m
		}
	}
	v.t.Fatal("nothing is shown")
	return live.Message{}
}

// TestTail: a viewer on another node sees a message when it is accepted, when it is in a
// file, and when it is dead, and never what is redacted.
func TestTail(t *testing.T) {
	w := newWorks(t, func(cfg *Config) {
		cfg.Shards = 1
		cfg.LiveRedact = []string{"/user/email"}
	})
	entry := func(i int) string {
		return fmt.Sprintf(`[{"timestamp":"2019-10-12T08:10:54Z","value":"v%d","user":{"email":"ann@example.com","id":%d}}]`, i, i)
	}
	if status := w.post(entry(1)); status != http.StatusCreated {
		t.Fatal(status)
	}
	w.eventually("a file, and that told", func() bool { return len(w.values()) == 1 && w.memory.Depth(0) == 0 })

	written := w.view(live.Query{Last: 5, Where: []live.Where{{Pointer: "/timestamp", Value: "2019-10-12T08:10:54Z"}}})
	accepted, dead := w.view(live.Query{Stage: live.StageAccepted}), w.view(live.Query{Stage: live.StageDead})
	guess := w.view(live.Query{Contains: "ann@example.com"})
	if m := written.message(); !m.Replayed || !strings.HasPrefix(m.File, "shard-0/0-") || !strings.Contains(string(m.Entry), `"value":"v1","user":{"email":"***","id":1}`) {
		t.Errorf("from the files: %+v, %s", m, m.Entry)
	}
	for stage, v := range map[live.Stage]*viewing{live.StageWritten: written, live.StageAccepted: accepted} {
		m := v.until(func() {
			if status := w.post(entry(2)); status != http.StatusCreated {
				t.Fatal(status)
			}
		})
		if m.Replayed || (m.File != "") != (stage == live.StageWritten) || (m.Worker != "") != (stage == live.StageWritten) ||
			time.Since(m.At) > patience || !strings.Contains(string(m.Entry), `"v2","user":{"email":"***","id":2}`) {
			t.Errorf("%s: %+v, %s", stage, m, m.Entry)
		}
	}
	if m := dead.until(func() { w.publishBadLine(3) }); m.ID != "S3.1" || m.Reason == "" || m.File != "" || !strings.HasPrefix(string(m.Entry), `"***`) {
		t.Errorf("a dead letter that is no JSON: %+v, %s", m, m.Entry)
	}
	if f := guess.next(time.Second); f.Kind != "" {
		t.Errorf("a filter has seen what is redacted: %+v", f)
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

// TestTailOff: with LIVE=off nothing is shown.
func TestTailOff(t *testing.T) {
	w := newWorks(t, func(cfg *Config) { cfg.Shards, cfg.Live = 1, "off" })
	v := w.view(live.Query{})
	w.post(`[{"timestamp":"2019-10-12T08:10:54Z"}]`)
	w.eventually("a file", func() bool { return len(w.values()) == 1 })
	if f := v.next(500 * time.Millisecond); f.Kind != "" {
		t.Errorf("%+v", f)
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

// starting is a submitter whose submissions are gone when their outcome comes.
type starting struct{ server.Submitter }

func (starting) Start(_ context.Context, s message.Submission, done func([]message.ShardCount, error)) {
	for i := range s.Messages {
		clear(s.Messages[i].Line)
	}
	clear(s.Messages)
	done([]message.ShardCount{{Shard: 0, Messages: 1}}, nil)
}

// TestTailOfSockets: what is shown as accepted is what was submitted, also where its
// memory is used again before the broker confirms it.
func TestTailOfSockets(t *testing.T) {
	memory := brokertest.NewMemory(1)
	defer memory.Close()
	tail := live.NewTail(live.TailConfig{Bus: memory, Node: func() string { return "a" }, Payload: live.PayloadFull})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { tail.Run(ctx) })
	defer running.Wait()
	defer cancel()
	viewer, err := tail.View(live.Query{Stage: live.StageAccepted})
	if err != nil {
		t.Fatal(err)
	}
	defer viewer.Close()
	v := &viewing{t, tail, viewer}
	v.next(patience)
	a := accepting{starting{}, metrics.New(metrics.Config{Shards: 1, Server: true}, new(event.Hub)), func(string, []message.ShardCount) {}, shown{tail, 1}}
	m := v.until(func() {
		s := message.Submission{ID: "S", Messages: []message.Message{{Line: []byte(`{"message_id":"S.0","value":"v"}`), Time: time.Now()}}}
		a.Start(ctx, s, func([]message.ShardCount, error) {})
	})
	if string(m.Entry) != `{"message_id":"S.0","value":"v"}` || m.ID != "S.0" {
		t.Errorf("%+v, %s", m, m.Entry)
	}
}
