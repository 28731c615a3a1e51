package local_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/broker/local"
	"async-data-processor/message"
)

// started returns an engine over the store at dir. The test closes it, or leaves it.
func started(t *testing.T, dir string) (*local.Engine, *local.File) {
	t.Helper()
	file, err := local.OpenFile(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	e := local.New(local.Config{Store: file})
	if err := e.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e, file
}

// consume returns what a consumer of shard 0 gets, until the test ends.
func consume(t *testing.T, c *local.Client, prefetch int) <-chan *message.Delivery {
	ctx, cancel := context.WithCancel(t.Context())
	deliveries, done := make(chan *message.Delivery), make(chan struct{})
	go func() {
		defer close(done)
		if err := c.Consume(ctx, 0, prefetch, deliveries); err != nil && !errors.Is(err, broker.ErrClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return deliveries
}

// TestBodyAfterPublish: a body is its publisher's again when it is published.
func TestBodyAfterPublish(t *testing.T) {
	e, _ := started(t, t.TempDir())
	defer e.Close()
	c := e.Client(1, nil)
	deliveries := consume(t, c, 1000)
	const n = 300
	go func() {
		body := make([]byte, 4)
		for i := range n {
			copy(body, fmt.Sprintf("%03d\n", i))
			envelope := message.Envelope{ID: fmt.Sprintf("%03d", i), Count: 1, Body: body}
			if err := brokertest.Publish(t.Context(), c, envelope); err != nil {
				t.Error(err)
			}
			clear(body)
		}
	}()
	for range n {
		if d := <-deliveries; string(d.Body) != d.ID+"\n" {
			t.Errorf("%s has the body %q", d.ID, d.Body)
		}
	}
}

// refusing is a store that refuses some commits.
type refusing struct {
	local.Store
	left int // of them; only used by the engine's one goroutine
}

func (r *refusing) Commit(c *local.Change) error {
	if r.left > 0 && len(c.Delete) > 0 {
		r.left--
		return broker.Rejected(errors.New("no space"))
	}
	return r.Store.Commit(c)
}

// TestSettleAfterRefusal: a settle that the store refused is stored later.
func TestSettleAfterRefusal(t *testing.T) {
	dir := t.TempDir()
	file, err := local.OpenFile(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	e := local.New(local.Config{Store: &refusing{file, 2}})
	if err := e.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := e.Client(1, nil)
	deliveries := consume(t, c, 2)
	outcomes := []message.Outcome{{Kind: message.Ack}, {Kind: message.DeadLetter, Reason: "bad"}}
	for range outcomes {
		if err := brokertest.Publish(t.Context(), c, message.Envelope{ID: "1", Count: 1, Body: []byte("1\n")}); err != nil {
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
	r, err := local.Check(dir, nil)
	if err != nil || r.Queues[0].Depth != 0 || r.Queues[local.Dead].Depth != 1 {
		t.Errorf("%+v, %v; want one dead letter alone", r, err)
	}
}
