package deadletter

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker/brokertest"
	"async-data-processor/message"
	"async-data-processor/shard"
)

var bad = regexp.MustCompile(`"bad[^"]*"`)

// world is a pipeline to which some messages are bad, and people who look after them.
type world struct {
	*rig
	rnd    *rand.Rand
	nodes  []*Letters
	broken sync.WaitGroup // until all is well again
	stamp  [shards]string // a timestamp of each shard

	wmu     sync.Mutex // guards what follows
	all     []string   // ids of messages
	written map[string]int
	window  [shards]map[string]bool
	purged  map[string]bool // that may be purged
	tasks   []string
}

func newWorld(t *testing.T, r *rig, seed uint64) *world {
	w := &world{rig: r, rnd: rand.New(rand.NewPCG(seed, 1)), written: make(map[string]int), purged: make(map[string]bool)}
	for at, left := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), shards; left > 0; at = at.Add(time.Second) {
		if n := shard.Of(at, shards); w.stamp[n] == "" {
			w.stamp[n] = at.Format(time.RFC3339)
			left--
		}
	}
	for n := range shards {
		w.window[n] = make(map[string]bool)
	}
	w.nodes = []*Letters{r.node("a", nil), r.node("b", nil)}
	return w
}

// submit publishes an envelope, some of whose messages are bad.
func (w *world) submit() {
	n, count := w.rnd.IntN(shards), 1+w.rnd.IntN(3)
	e := message.Envelope{ID: message.NewID(), Shard: n, Count: count}
	id := message.WithCount(message.NewID(), count)
	w.wmu.Lock()
	for i := range count {
		value := "good"
		if w.rnd.IntN(2) == 0 {
			value = "bad"
		}
		w.all = append(w.all, fmt.Sprintf("%s.%d", id, i))
		e.Body = fmt.Appendf(e.Body, `{"message_id":"%s.%d","timestamp":%q,"value":%q}`+"\n", id, i, w.stamp[n], value)
	}
	w.wmu.Unlock()
	for brokertest.Publish(context.Background(), w.memory.Client, e) != nil { // as a client that tries again
		time.Sleep(time.Second)
	}
}

// consume writes what is good, once, until ctx ends. What is bad becomes a dead letter:
// alone, or with all others of its envelope.
func (w *world) consume(ctx context.Context, n int) {
	client := w.memory.Open(nil)
	defer client.Close()
	deliveries := make(chan *message.Delivery)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = client.Consume(ctx, n, 5, deliveries)
	}()
	for {
		select {
		case d := <-deliveries:
			w.write(n, d)
		case <-ended:
			return
		}
	}
}

func (w *world) write(n int, d *message.Delivery) {
	var o message.Outcome
	w.wmu.Lock()
	for line := range bytes.Lines(d.Body) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		id := message.Message{Line: line}.ID()
		switch {
		case bytes.Contains(line, []byte(`"bad`)):
			o = message.Outcome{Kind: message.DeadLetter, Reason: "bad", Dead: append(o.Dead, message.Dead{Line: line, Reason: "bad"})}
		case !w.window[n][id]:
			w.window[n][id] = true
			w.written[id]++
		}
	}
	w.wmu.Unlock()
	if len(o.Dead) == d.Count {
		o.Dead = nil // whole
	}
	_ = d.Settle(o) // a stale one is delivered again
}

// step does something at random; it need not succeed.
func (w *world) step(ctx context.Context) {
	l := w.nodes[w.rnd.IntN(len(w.nodes))]
	list, err := l.list(ctx, "model", &Filter{}, "", 20)
	if err != nil || len(list.Letters) == 0 {
		return
	}
	x := list.Letters[w.rnd.IntN(len(list.Letters))]
	switch w.rnd.IntN(8) {
	case 0, 1: // as it is: it dies again
		_, _ = l.Replay(Change{Key: x.Key})
	case 2, 3, 4:
		whole, err := l.show(ctx, "model", x.Key)
		if err != nil || whole.Body == nil {
			return
		}
		to := fmt.Sprintf(`"mended %d"`, w.rnd.Int())
		if w.rnd.IntN(3) == 0 {
			to = fmt.Sprintf(`"bad %d"`, w.rnd.Int())
		}
		body := bad.ReplaceAllLiteralString(*whole.Body, to)
		_, _ = l.Replay(Change{Key: x.Key, Body: &body})
	case 5:
		o := Order{Do: ActionPurge, Filter: Filter{IDs: []string{x.ID}}}
		whole, err := l.show(ctx, "model", x.Key)
		if o.check(time.Now()) != nil || err != nil {
			return
		}
		w.wmu.Lock()
		for _, m := range whole.Messages {
			w.purged[m.ID] = true
		}
		w.wmu.Unlock()
		w.began(l.Start(ctx, "model", o))
	case 6:
		o := Order{Do: ActionReplay, Rate: 1 + w.rnd.IntN(20)}
		_ = o.check(time.Now())
		w.began(l.Start(ctx, "model", o))
	case 7:
		w.wmu.Lock()
		id := ""
		if len(w.tasks) > 0 {
			id = w.tasks[w.rnd.IntN(len(w.tasks))]
		}
		w.wmu.Unlock()
		_, _ = l.Cancel(ctx, id, "model", "")
	}
}

func (w *world) began(v Task, err error) {
	if err == nil {
		w.wmu.Lock()
		w.tasks = append(w.tasks, v.ID)
		w.wmu.Unlock()
	}
}

// disturb has the broker fail for a moment, while others use it.
func (w *world) disturb() {
	moment := time.Duration(w.rnd.IntN(2000)) * time.Millisecond
	later := func(f func()) {
		w.broken.Go(func() {
			time.Sleep(moment)
			f()
		})
	}
	switch w.rnd.IntN(6) {
	case 0, 1:
		w.memory.FailPublish(brokertest.Failure(w.rnd.IntN(3)))
	case 2:
		later(w.memory.Break)
	case 3:
		w.memory.Block("low on memory")
		later(func() { w.memory.Block("") })
	case 4:
		w.broken.Wait() // it stops once at a time
		w.memory.Stop()
		later(w.memory.Start)
	}
}

// settle ends all tasks and mends what is left, and checks what became of each message.
func (w *world) settle(t *testing.T) {
	t.Helper()
	for _, id := range w.tasks {
		if v := await(t, w.nodes[0], id); v.State == Failed {
			t.Errorf("a task failed: %+v", v)
		}
	}
	time.Sleep(10 * time.Second)
	dead := make(map[string]bool)
	for _, d := range w.memory.Dead() {
		for line := range bytes.Lines(d.Body) {
			dead[message.Message{Line: line}.ID()] = true
		}
	}
	w.wmu.Lock()
	defer w.wmu.Unlock()
	if n := w.queued(); n > 0 {
		t.Errorf("%d envelopes are queued at the end", n)
	}
	for _, id := range w.all {
		switch n := w.written[id]; {
		case n > 1:
			t.Errorf("%s was written %d times", id, n)
		case n == 0 && !dead[id] && !w.purged[id]:
			t.Errorf("%s is lost", id)
		}
	}
}

// TestModel: whatever people do to dead letters while the broker fails now and then, no
// message is lost and none is written twice.
func TestModel(t *testing.T) {
	for seed := range uint64(20) {
		inRig(t, func(t *testing.T, r *rig) {
			w := newWorld(t, r, seed)
			ctx, stop := context.WithCancel(context.Background())
			var consumers sync.WaitGroup
			for n := range shards {
				consumers.Go(func() { w.consume(ctx, n) })
			}
			for range 60 {
				w.disturb()
				w.step(ctx)
				w.submit()
				time.Sleep(time.Duration(w.rnd.IntN(500)) * time.Millisecond)
			}
			w.broken.Wait()
			w.settle(t)
			stop()
			consumers.Wait()
			synctest.Wait()
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
			if len(w.written) == 0 || len(w.tasks) == 0 {
				t.Errorf("seed %d did nothing", seed)
			}
		})
	}
}
