package local

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// started returns an engine over a store. The test closes it, or leaves it.
func started(t *testing.T, store Store) *Engine {
	t.Helper()
	e := New(Config{Store: store})
	if err := e.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e
}

// openedFile returns the opened store at dir, and what is in it.
func openedFile(t *testing.T, dir string) (*File, map[int]Contents) {
	t.Helper()
	file, err := OpenFile(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	contents, err := file.Recover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return file, contents
}

// consume returns what a consumer of shard 0 gets, until the test stops it.
func consume(t *testing.T, c *Client, prefetch int) (_ <-chan *message.Delivery, stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	deliveries, done := make(chan *message.Delivery), make(chan error, 1)
	go func() { done <- c.Consume(ctx, 0, prefetch, deliveries) }()
	return deliveries, func() { cancel(); <-done }
}

// publishOne publishes an envelope to shard 0.
func publishOne(c *Client, id string, body []byte) (outcome error) {
	envelope := message.Envelope{ID: id, Count: 1, Body: body}
	c.Publish(context.Background(), []message.Envelope{envelope}, func(_ int, err error) { outcome = err })
	return outcome
}

// TestBodyAfterPublish: a body is its publisher's again when it is published.
func TestBodyAfterPublish(t *testing.T) {
	file, _ := openedFile(t, t.TempDir())
	e := started(t, file)
	defer e.Close()
	c := e.Client(1, nil)
	deliveries, stop := consume(t, c, 1000)
	defer stop()
	const n = 300
	go func() {
		body := make([]byte, 0, 64<<10) // it takes a while to copy
		for i := range n {
			id := fmt.Sprintf("%03d", i)
			body = append(body[:0], strings.Repeat(id, cap(body)/len(id))...)
			if err := publishOne(c, id, body); err != nil {
				t.Error(err)
			}
			clear(body)
		}
	}()
	for range n {
		if d := <-deliveries; len(d.Body) == 0 || strings.ReplaceAll(string(d.Body), d.ID, "") != "" {
			t.Errorf("%s has a body that was changed after its publish", d.ID)
		}
	}
}

// refusing is a store that refuses some commits.
type refusing struct {
	Store
	left int // of them; only used by the engine's one goroutine
}

func (r *refusing) Commit(c *Change) error {
	if r.left > 0 && len(c.Delete) > 0 {
		r.left--
		return broker.Rejected(errors.New("no space"))
	}
	return r.Store.Commit(c)
}

// TestSettleAfterRefusal: a settle that the store refused is stored later.
func TestSettleAfterRefusal(t *testing.T) {
	dir := t.TempDir()
	file, _ := openedFile(t, dir)
	e := started(t, &refusing{file, 2})
	c := e.Client(1, nil)
	deliveries, stop := consume(t, c, 2)
	defer stop()
	outcomes := []message.Outcome{{Kind: message.Ack}, {Kind: message.DeadLetter, Reason: "bad"}}
	for range outcomes {
		if err := publishOne(c, "1", []byte("1\n")); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range outcomes {
		if err := (<-deliveries).Settle(o); err != nil {
			t.Error(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	r, err := Check(t.Context(), dir, nil)
	if err != nil || r.Queues[0].Depth != 0 || r.Queues[Dead].Depth != 1 {
		t.Errorf("%+v, %v; want one dead letter alone", r, err)
	}
}

// TestDeadLetterOnAFullDisk: a settle that waits for room ends some time after its
// consumer, and so does Close.
func TestDeadLetterOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		file, _ := openedFile(t, dir)
		e := started(t, &refusing{file, 1 << 30})
		c := e.Client(1, nil)
		if err := publishOne(c, "a", []byte("{}\n")); err != nil {
			t.Fatal(err)
		}
		deliveries, stop := consume(t, c, 1)
		d := <-deliveries
		settled := make(chan error, 1)
		go func() { settled <- d.Settle(message.Outcome{Kind: message.DeadLetter, Reason: "bad"}) }()
		time.Sleep(time.Hour)
		if len(settled) > 0 {
			t.Fatalf("settled: %v, want that it waits", <-settled)
		}
		stop()
		if err := <-settled; !errors.Is(err, broker.ErrStale) {
			t.Errorf("%v, want ErrStale", err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
}
