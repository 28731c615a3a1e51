package deadletter

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"async-data-processor/broker/brokertest"
	"async-data-processor/dashboard/openapitest"
	"async-data-processor/event"
	"async-data-processor/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const shards = 4

// rig is nodes that show the dead letters of a broker in memory.
type rig struct {
	t      *testing.T
	memory *brokertest.Memory

	mu    sync.Mutex // guards what follows
	told  []event.Event
	moved []string
	nodes int
}

// inRig runs a test in a bubble, so its clock stands still while something happens.
func inRig(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, memory: brokertest.NewMemory(shards)}
		test(t, r)
		_ = r.memory.Close()
	})
}

// node starts a node. change may change how it is set up.
func (r *rig) node(name string, change func(*Config)) *Letters {
	r.t.Helper()
	client := r.memory.Open(nil)
	cfg := Config{
		Broker: client, Rules: message.Strict, Shards: shards, Node: func() string { return name },
		Nodes: func() int {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.nodes
		},
		Moved: func(id string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.moved = append(r.moved, id)
		},
		Tell: func(e event.Event) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.told = append(r.told, e)
		},
	}
	if change != nil {
		change(&cfg)
	}
	l := New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.Run(ctx)
	}()
	r.mu.Lock()
	r.nodes++
	r.mu.Unlock()
	r.t.Cleanup(func() {
		cancel()
		<-ended
		_ = client.Close()
	})
	synctest.Wait()
	return l
}

// events are those told so far.
func (r *rig) events() []event.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.told)
}

// die makes dead letters of envelopes, with a reason.
func (r *rig) die(reason string, envelopes ...message.Envelope) {
	r.t.Helper()
	for _, e := range envelopes {
		if e.Foreign {
			r.memory.PublishForeign(e.Shard, e.ID, e.Body)
		} else if err := brokertest.Publish(r.t.Context(), r.memory, e); err != nil {
			r.t.Fatal(err)
		}
		for _, d := range r.take(e.Shard) {
			if err := d.Settle(message.Outcome{Kind: message.DeadLetter, Reason: reason}); err != nil {
				r.t.Fatal(err)
			}
		}
	}
}

// take consumes what waits in a shard's queue.
func (r *rig) take(shard int) (all []*message.Delivery) {
	r.t.Helper()
	n := r.memory.Waiting(shard)
	ctx, cancel := context.WithCancel(context.Background())
	deliveries, done := make(chan *message.Delivery, n), make(chan error, 1)
	go func() { done <- r.memory.Consume(ctx, shard, n+1, deliveries) }()
	for range n {
		all = append(all, <-deliveries)
	}
	cancel()
	if err := <-done; err != nil {
		r.t.Fatal(err)
	}
	return all
}

// ours is an envelope of a submission with n messages.
func ours(shard, n int) message.Envelope {
	e := message.Envelope{ID: message.NewID(), Shard: shard, Count: n}
	id := message.WithCount(message.NewID(), n)
	for i := range n {
		e.Body = fmt.Appendf(e.Body, `{"message_id":"%s.%d","timestamp":"2019-10-12T08:10:54Z","value":"%d"}`+"\n", id, i, i)
	}
	return e
}

func foreign(shard int, id, body string) message.Envelope {
	return message.Envelope{ID: id, Shard: shard, Count: 1, Body: []byte(body), Foreign: true}
}

// left are the ids of the dead letters.
func (r *rig) left() (ids []string) {
	for _, d := range r.memory.Dead() {
		ids = append(ids, d.ID)
	}
	return ids
}

// queued counts what waits in all queues.
func (r *rig) queued() (n int) {
	for i := range shards {
		n += r.memory.Depth(i)
	}
	return n
}

// all are all dead letters that match, as they are listed.
func all(t *testing.T, l *Letters, f Filter) []Letter {
	t.Helper()
	list, err := l.list(t.Context(), "test", &f, "", maxLimit)
	if err != nil || !list.Complete {
		t.Fatalf("listed %+v, %v", list, err)
	}
	return list.Letters
}

// keyOf is the key of the only dead letter with an id.
func keyOf(t *testing.T, l *Letters, id string) string {
	t.Helper()
	found := all(t, l, Filter{IDs: []string{id}})
	if len(found) != 1 {
		t.Fatalf("%d dead letters have the id %s", len(found), id)
	}
	return found[0].Key
}

// await waits for the end of a task.
func await(t *testing.T, l *Letters, id string) Task {
	t.Helper()
	for range 10_000 {
		v, err := l.Task(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if v.State != Running {
			return v
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("the task does not end")
	return Task{}
}

// start starts a task that is valid.
func start(t *testing.T, l *Letters, o Order) Task {
	t.Helper()
	if err := o.check(time.Now()); err != nil {
		t.Fatal(err)
	}
	v, err := l.Start(t.Context(), "test", o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// exchange returns what a request is answered.
func exchange(t *testing.T, l *Letters, method, path, body string) (int, string, http.Header) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	openapitest.Handler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Handler{l}.Serve(w, r, "client", "ann")
	})).ServeHTTP(w, r)
	text, _ := io.ReadAll(w.Body)
	return w.Code, string(text), w.Header()
}

// read returns what an answer tells.
func read[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}
