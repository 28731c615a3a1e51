package pipeline

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/consumer"
	"async-data-processor/event"
	"async-data-processor/message"
)

// fragile is a folder whose writes panic on some messages, always.
type fragile struct{ consumer.Folder }

func (f fragile) Write(ctx context.Context, worker string, b *message.Batch) (file string, written []message.Message, err error) {
	for _, m := range b.Messages {
		if bytes.Contains(m.Line, []byte("poison")) {
			panic("it is poison")
		}
	}
	return f.Folder.Write(ctx, worker, b)
}

// TestPoison: a message that its writer panics on is the only one of its batch
// and of its envelope that is not in a file, and costs one worker at most.
func TestPoison(t *testing.T) {
	around := wraps{folder: func(f consumer.Folder) consumer.Folder { return fragile{f} }}
	w := newWorksWith(t, around, func(cfg *Config) {
		cfg.Shards, cfg.BatchLinger = 1, time.Minute // so every batch is a full one
	})
	const batches = 8
	var want []string
	for i := range batches {
		text := func(name string) string { return fmt.Sprint(name, i) }
		if status := w.post(body(text("a"), text("poison"), text("b"))); status != http.StatusCreated {
			t.Fatalf("status %d", status)
		}
		if status := w.post(body(text("c"), text("d"))); status != http.StatusCreated {
			t.Fatalf("status %d", status)
		}
		want = append(want, text("a"), text("b"), text("c"), text("d"))
	}
	w.eventually("the poison apart", func() bool { return len(w.memory.Dead()) == batches })
	w.eventually("all settled", func() bool { return w.memory.Depth(0) == 0 })
	for _, d := range w.memory.Dead() {
		if !strings.HasSuffix(d.ID, ".1") || bytes.Count(d.Body, []byte("poison")) != 1 || bytes.Count(d.Body, []byte("\n")) != 1 {
			t.Errorf("dead letter %s: %q", d.ID, d.Body)
		}
		if d.Reason != "writing it panicked: it is poison" {
			t.Errorf("reason %q", d.Reason)
		}
	}
	got := w.values()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("in files are %v, want %v", got, want)
	}
	w.eventually("workers at the minimum", func() bool {
		alive, dead := 0, int64(0)
		for _, r := range w.history() {
			switch {
			case r.State != event.Stopped:
				alive++
			case r.WhyStopped == "panicked: it is poison" && r.Dead > 0:
				dead += r.Dead // more than one of batches that left together
			}
		}
		return alive >= w.cfg.WorkersMin && dead == batches
	})
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if !w.logged(`"message":"message cannot be written"`) {
		t.Errorf("nothing is told of the poison:\n%s", &w.log)
	}
}

// blocked is a broker that keeps no dead letters until it is released.
type blocked struct {
	broker.Broker
	release <-chan struct{}
}

func (b blocked) Consume(ctx context.Context, shard, prefetch int, deliveries chan<- *message.Delivery) error {
	in, done := make(chan *message.Delivery), make(chan struct{})
	go func() {
		defer close(done)
		for d := range in {
			settle := d.Settle
			slow := message.NewDelivery(d.Envelope, d.Redelivered, func(o message.Outcome) error {
				if o.Kind == message.DeadLetter {
					<-b.release
				}
				return settle(o)
			})
			select {
			case deliveries <- slow:
			case <-ctx.Done():
				_ = d.Settle(message.Outcome{Kind: message.Return})
			}
		}
	}()
	err := b.Broker.Consume(ctx, shard, prefetch, in)
	close(in)
	<-done
	return err
}

// publishBadLine publishes an envelope whose second line of three is bad.
func (w *works) publishBadLine(i int) {
	w.t.Helper()
	lines := fmt.Sprintf(`{"message_id":"S%d.0","timestamp":"2019-10-12T08:10:54Z","value":"good"}`+"\n"+
		`{"message_id":"S%d.1","timestamp":`+"\n"+
		`{"message_id":"S%d.2","timestamp":"2019-10-12T08:10:54Z","value":"good"}`+"\n", i, i, i)
	if err := brokertest.Publish(w.t.Context(), w.memory, message.Envelope{ID: fmt.Sprint("E", i), Count: 3, Body: []byte(lines)}); err != nil {
		w.t.Fatal(err)
	}
}

// TestBadLineOfManyBatches: an envelope is not settled before the last batch
// with a line of it is written.
func TestBadLineOfManyBatches(t *testing.T) {
	w := newWorks(t, func(cfg *Config) { cfg.Shards, cfg.BatchSize = 1, 1 })
	for i := range 10 {
		w.publishBadLine(i)
	}
	w.eventually("the good ones in files", func() bool { return len(w.values()) == 20 })
	w.eventually("the bad ones apart", func() bool { return len(w.memory.Dead()) == 10 })
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if w.logged("the broker could not be told") {
		t.Errorf("an envelope was settled before all of it was written:\n%s", &w.log)
	}
}

// TestBadLines: of an envelope with a bad line the others are written, also
// while the broker takes no dead letters; the drain waits for those.
func TestBadLines(t *testing.T) {
	release := make(chan struct{})
	around := wraps{broker: func(b broker.Broker) broker.Broker { return blocked{b, release} }}
	w := newWorksWith(t, around, func(cfg *Config) { cfg.Shards = 1 })
	const envelopes = 10 // more than there are workers, less than the prefetch
	for i := range envelopes {
		w.publishBadLine(i)
		w.memory.PublishForeign(0, "", []byte("bad as a whole"))
	}
	w.post(body("good"))
	w.eventually("the good ones in files", func() bool { return len(w.values()) == 2*envelopes+1 })
	w.signal()
	w.eventually("being told to drain", func() bool { return w.logged(`"message":"draining"`) })
	w.eventually("the workers' end", func() bool { return w.logged(`"reason":"drained"`) })
	select {
	case err := <-w.done:
		t.Fatalf("it stopped before its dead letters were kept: %v", err)
	case <-time.After(200 * time.Millisecond): // for what must not happen
	}
	close(release)
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	whole, lines := 0, make(map[string]string)
	for _, d := range w.memory.Dead() {
		if string(d.Body) == "bad as a whole" {
			whole++
			continue
		}
		lines[d.ID] = d.Reason
		if !bytes.HasSuffix(d.Body, []byte(".1\",\"timestamp\":\n")) {
			t.Errorf("dead letter %q", d.Body)
		}
	}
	if whole != envelopes || len(lines) != envelopes {
		t.Errorf("%d envelopes and %d lines are dead, want %d each", whole, len(lines), envelopes)
	}
	for id, reason := range lines {
		if !strings.HasPrefix(reason, "line 2 of the envelope is not strict JSON") {
			t.Errorf("%s is dead because of %q", id, reason)
		}
	}
	if got := w.memory.Depth(0); got != 0 {
		t.Errorf("%d envelopes left", got)
	}
}
