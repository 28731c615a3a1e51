package faults

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"async-data-processor/broker"
	nats "async-data-processor/broker/jetstream"
	"async-data-processor/broker/local"
	amqp "async-data-processor/broker/rabbitmq"
	"async-data-processor/faults/rig"
	"async-data-processor/live"
	"async-data-processor/message"
)

// TestWrittenThenKilled kills everything as soon as a client was told that its messages
// are written. They are in files at that moment, before anything starts again.
func TestWrittenThenKilled(t *testing.T) {
	on(t, "kill -9 once it says written", func(c *campaign) {
		c.settings = append(c.settings, "BATCH_LINGER=100ms")
		var all []string
		for n := range either(6, 200) {
			c.up()
			ids := c.awaitWritten(n)
			if c.consumer == c.server {
				c.kill(c.server)
			} else {
				c.kill(c.consumer, c.server)
			}
			if missing, example := c.missing(ids); missing > 0 {
				c.Errorf("%d of %d messages that were said to be written are in no file, one is %s", missing, len(ids), example)
			}
			all = append(all, ids...)
			c.cycle()
		}
		c.up()
		c.written(c.shards, all) // in visible files, too
		c.stop()
		if n, example := rig.ReadTree(c, c.dir, c.shards, 0).Twice(); n > 0 {
			c.Errorf("%d messages are in files twice, one is %s", n, example)
		}
	}, inBothModes(embedded, rabbitmq, jetstream)...)
}

// awaitWritten posts from several clients, until one was told that its messages are
// written. It returns the ids of all of which a client was told that.
func (c *campaign) awaitWritten(cycle int) (ids []string) {
	c.Helper()
	ctx, stop := context.WithTimeout(c.Context(), rig.Patience)
	defer stop()
	var mu sync.Mutex // guards ids
	var clients sync.WaitGroup
	for client := range 4 {
		clients.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				size := 1 + (cycle+client+n)%20
				status, r, _ := c.server.Post(rig.Entries(n*100, size), "Prefer", "wait=5")
				if status != http.StatusCreated || !r.Done {
					continue
				}
				if r.Written != size || r.Dead != 0 {
					c.Errorf("%+v of %d", r, size)
				}
				mu.Lock()
				ids = append(ids, r.IDs()...)
				mu.Unlock()
				stop()
			}
		})
	}
	clients.Wait()
	if len(ids) == 0 {
		c.Fatal("no client was told that its messages are written")
	}
	return ids
}

// missing returns how many of the messages are in no file now, be it one that is visible
// or one that is still appended to.
func (c *campaign) missing(ids []string) (n int, example string) {
	c.Helper()
	var text strings.Builder
	for _, pattern := range []string{"*.ndjson", ".*.rolling"} {
		names, err := filepath.Glob(filepath.Join(c.dir, "shard-*", pattern))
		if err != nil {
			c.Fatal(err)
		}
		for _, name := range names {
			content, err := os.ReadFile(name)
			if err != nil {
				c.Fatal(err)
			}
			text.Write(content)
		}
	}
	for _, id := range ids {
		if !strings.Contains(text.String(), fmt.Sprintf("{%q:%q,", "message_id", id)) {
			n, example = n+1, id
		}
	}
	return n, example
}

// TestDeadStaysKnown: messages that became dead letters in any way are known as dead, on
// every engine, also by a process that starts afterwards.
func TestDeadStaysKnown(t *testing.T) {
	t.Parallel()
	for _, e := range []engine{rabbitmq, embedded, jetstream} {
		t.Run(e.testName(), func(t *testing.T) {
			t.Parallel()
			url := e.open(t).Server
			b := openBroker(t, url)
			id := func(n int) string { return message.WithCount(message.NewID(), n) }
			whole, one, limit := id(3), id(2), id(1)
			kill(t, b, envelope(whole, 3), message.Outcome{Kind: message.DeadLetter, Reason: "whole"})
			kill(t, b, envelope(one, 2), message.Outcome{Kind: message.DeadLetter, Reason: "one", Dead: []message.Dead{{Line: line(one, 1), Reason: "the second"}}})
			kill(t, b, envelope(limit, 1), message.Outcome{Kind: message.Return}) // until it comes no more
			written := map[string]uint64{one: 1}
			for range 2 { // the second time in another process
				check := follow(t, b, written)
				check(whole, live.DeadLetters, 0, 3)
				check(one, live.DeadLetters, 1, 1)
				check(limit, live.DeadLetters, 0, 1)
				if err := b.Close(); err != nil {
					t.Error(err)
				}
				b = openBroker(t, url)
			}
			err := b.DeadLetters(t.Context(), func(broker.DeadLetter) broker.Verdict { return broker.Replay })
			if err != nil {
				t.Fatal(err)
			}
			written[whole] = 7
			check := follow(t, b, written)
			check(whole, live.Written, 3, 0)
			check(one, live.Writing, 1, 0)
			check(limit, live.Queued, 0, 0)
		})
	}
}

// openBroker opens the broker as a process does.
func openBroker(t *testing.T, url string) (b broker.Broker) {
	t.Helper()
	var err error
	switch scheme, rest, _ := strings.Cut(url, "://"); scheme {
	case "embedded":
		b, err = local.Open(t.Context(), local.FileConfig{Dir: rest, Shards: 1, MinFree: 1})
	case "nats":
		b, err = nats.New(nats.Config{URL: url, Shards: 1, Replicas: 1})
	default:
		b, err = amqp.New(amqp.Config{URL: url, Shards: 1})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	rig.Eventually(t, "broker", b.Ready)
	return b
}

func line(id string, i int) []byte {
	return fmt.Appendf(nil, `{"message_id":"%s.%d","timestamp":"2019-10-12T08:10:54Z"}`, id, i)
}

func envelope(id string, n int) message.Envelope {
	e := message.Envelope{ID: message.NewID(), Count: n}
	for i := range n {
		e.Body = append(append(e.Body, line(id, i)...), '\n')
	}
	return e
}

// kill publishes an envelope, and settles it with the outcome whenever it comes, until it
// is a dead letter.
func kill(t *testing.T, b broker.Broker, e message.Envelope, o message.Outcome) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	deliveries, ended := make(chan *message.Delivery), make(chan struct{})
	go func() {
		defer close(ended)
		if err := b.Consume(ctx, 0, 1, deliveries); err != nil {
			t.Error(err)
		}
	}()
	defer func() {
		cancel()
		<-ended
	}()
	b.Publish(ctx, []message.Envelope{e}, func(_ int, err error) {
		if err != nil {
			t.Error(err)
		}
	})
	for came := 0; ; came++ {
		select {
		case d := <-deliveries:
			if err := d.Settle(o); err != nil {
				t.Fatal(err)
			}
			if o.Kind == message.DeadLetter {
				return
			}
		case <-time.After(2 * time.Second):
			if came >= broker.DeliveryLimit {
				return
			}
		}
	}
}

// follow returns what holds receipts to what a process says that owns the shard, and has
// written those messages.
func follow(t *testing.T, b broker.Broker, written map[string]uint64) (check func(id string, state live.State, written, dead int)) {
	t.Helper()
	r := live.NewReceipts(live.ReceiptConfig{
		Bus: b, DeadLetters: b, Shards: 1, Node: func() string { return "node" }, Servers: func() []string { return []string{} },
		Owned: func(id string, _ int, _ []int) []live.Owned {
			o := live.Owned{First: time.Now(), Last: time.Now(), Until: time.Now()}
			if bits := written[id]; bits != 0 {
				o.Bits = []uint64{bits}
			}
			return []live.Owned{o}
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return func(id string, state live.State, written, dead int) {
		t.Helper()
		rig.Eventually(t, "receipt", func() error {
			w, err := r.Watch(id)
			if err != nil {
				return err
			}
			defer w.Close()
			<-w.Ready()
			got, err := w.Receipt()
			if err == live.ErrNotKnown && state == live.Queued {
				return nil // no server has accepted it
			}
			if err != nil || got.State != state || got.Written != written || got.Dead != dead {
				return fmt.Errorf("%+v, %v, want %s, %d written and %d dead", got, err, state, written, dead)
			}
			return nil
		})
	}
}
