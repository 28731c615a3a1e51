// Package brokertest holds the conformance suite that every broker passes, and
// Memory, the embedded broker over a store in memory, for the tests of other
// packages. The suite knows no engine; what it may ask of one is in Engine.
//
// Engines keep the promises of package broker by different means:
//
//	                      RabbitMQ                   JetStream                  embedded, Memory
//	a return counts as    basic.reject (nack too,    one delivery more          one return
//	                      up to 4.2)
//	a lost connection     one return for each        one for each delivery;     one for each that was
//	counts as             delivery it carried        what was held returns at   handed out, when the
//	                                                 once, what was on the      store is opened again
//	                                                 wire after the ack wait
//	prefetched, not sent  nack: a return up to 4.2   nak: counts                not counted: it hands
//	                                                                            out one at a time
//	over the limit        the broker moves it        the client moves it        moved before it is
//	                                                 before handing it out      handed out
//	its reason            x-death: "delivery_limit"  "it came back N times"     the same as RabbitMQ
//	settled DeadLetter    published to the           published to a stream of   moved, in one commit
//	                      dead-letter queue, then    its own, then acked; the
//	                      acked: twice there at      retry is dropped for two
//	                      worst                      minutes
//	looking at dead       holds them, so another     holds nothing: all see     holds nothing
//	letters               one waits for it           all
//	their order after it  kept, unless some come     kept                       kept
//	                      just then
//	a replay done twice   cannot be                  once for two minutes       cannot be
//	envelopes published   one write, on one channel  one by one                 one commit
//	together
//	acknowledgements      several share a frame, or  a message each             with the next commit
//	                      at least a write
//	a retried publish     twice in the queue         once for two minutes       twice in the queue
//	the one consumer      single active consumer     pinned client of a         the first to come
//	                                                 priority group
//	order after a return  near the head              before what is new         in its old place
//	a queue deleted       that of one shard          the stream of all shards   cannot be
//	a queue is there      once declared, as every    while an envelope is in    once used
//	                      process does with its own  it
//
// So the suite never asks for an order, nor that a message whose fate was
// unknown be there once: the ids sort that out, behind the broker.
package brokertest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"

	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/message"
)

const (
	// Shards is how many shards the clients that Engine.Open opens must have.
	Shards = 2
	// MaxShards is the most that any client of the suite has.
	MaxShards = 2 * Shards
	// patience bounds every wait for something that has to happen, on a machine
	// however busy: only a test that hangs uses it up.
	patience = 2 * time.Minute
	// slack is what a busy machine adds to what happens at once.
	slack = 10 * time.Second
	// quiet is how long the suite listens for something that must not happen.
	quiet = 200 * time.Millisecond
)

// Harness makes engines for the suite. Fresh returns one with empty queues,
// for the test t alone. If disturb is set, the test will stop, stall or block
// it as a whole; a harness whose engine can do neither calls t.Skip.
type Harness struct {
	Fresh func(t *testing.T, disturb bool) *Engine
}

// Engine is a broker engine, or a part of it that a test has for itself.
type Engine struct {
	// Open opens a client with Shards shards; the suite closes it.
	Open func(t testing.TB, events event.Sink) broker.Broker
	// OpenShards opens one with up to MaxShards, as a process that is
	// configured otherwise would; the suite closes it.
	OpenShards func(t testing.TB, shards int) broker.Broker
	// Depth counts the shard's envelopes. It is asked while none is handed out.
	Depth func(t testing.TB, shard int) int
	// DeadLetters lists the dead letters of all shards and leaves them there.
	DeadLetters func(t testing.TB) []DeadLetter
	// PublishForeign queues a body as another program would, id optional.
	PublishForeign func(t testing.TB, shard int, id string, body []byte)
	// DeleteQueue removes the shard's queue under its users; nil if queues
	// cannot be removed.
	DeleteQueue func(t testing.TB, shard int)

	// BusForeign sends to a key of the bus as another program would, which wants the
	// answer at reply, or none; nil if no other program can.
	BusForeign func(t testing.TB, key, reply string, body []byte)
	// BusForeignReplies are addresses that an answer must not go to, such as the queue
	// of shard 0.
	BusForeignReplies []string
	// BusInProcess is set if the bus has no connection to lose.
	BusInProcess bool

	// Break cuts the connections of all clients, which may come back at once.
	Break func(t testing.TB)
	// Lose lets what the clients send, or what they are sent, go lost
	// unnoticed, until Break.
	Lose func(t testing.TB, what Loss)

	// The rest concerns the engine as a whole; it is set if disturb was.

	// Stop ends the engine, in order or not; Start brings it back, data and all.
	Stop, Start func(t testing.TB)
	// Stall makes it silent while its connections stay; Resume ends that.
	Stall, Resume func(t testing.TB)
	// Block makes it refuse publishes only; Unblock ends that.
	Block, Unblock func(t testing.TB)
}

// DeadLetter is an envelope in the dead-letter queue, or a message of one.
type DeadLetter struct {
	// ID is that of the envelope, or the message's own; a message without one
	// has that of its envelope.
	ID     string
	Body   []byte
	Reason string
	// Shard is the one whose queue it was in.
	Shard int
	// Time is when it was moved.
	Time time.Time
}

// Loss is what goes lost on the way.
type Loss int

const (
	// Nothing goes lost.
	Nothing Loss = iota
	// Requests: what clients send does not arrive.
	Requests
	// Answers: it arrives, but what the engine sends does not.
	Answers
	// Everything goes lost, both ways.
	Everything
)

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	t.Run("Publish", func(t *testing.T) { runAll(t, h, false, publishCases) })
	t.Run("PublishMany", func(t *testing.T) { runAll(t, h, false, manyCases) })
	t.Run("Consume", func(t *testing.T) { runAll(t, h, false, consumeCases) })
	t.Run("Acknowledge", func(t *testing.T) { runAll(t, h, false, ackCases) })
	t.Run("DeadLetters", func(t *testing.T) { RunDeadLetters(t, h) })
	t.Run("Backlogs", func(t *testing.T) { runAll(t, h, false, backlogCases) })
	t.Run("Attributes", func(t *testing.T) { runAll(t, h, false, attributeCases) })
	t.Run("Bus", func(t *testing.T) { runAll(t, h, false, busCases) })
	t.Run("Connection", func(t *testing.T) { runAll(t, h, false, connectionCases) })
	t.Run("Engine", func(t *testing.T) { runAll(t, h, true, append(engineCases, busEngineCases...)) })
}

// RunDeadLetters runs the part of the suite that is about dead letters.
func RunDeadLetters(t *testing.T, h Harness) { runAll(t, h, false, deadLetterCases) }

type testCase struct {
	name string
	run  func(t *testing.T, e *Engine)
}

func runAll(t *testing.T, h Harness, disturb bool, cases []testCase) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			// Registered first, so that it looks when everything is closed.
			t.Cleanup(func() { goleak.VerifyNone(t, before) })
			c.run(t, h.Fresh(t, disturb))
		})
	}
}

// Publish publishes one envelope and returns its outcome.
func Publish(ctx context.Context, b broker.Queues, e message.Envelope) (outcome error) {
	b.Publish(ctx, []message.Envelope{e}, func(_ int, err error) { outcome = err })
	return outcome
}

// client is a broker with the suite's impatience.
type client struct {
	broker.Broker
	t *testing.T
}

// open opens a client and waits until it is ready.
func open(t *testing.T, e *Engine) *client {
	t.Helper()
	c := openEarly(t, e, nil)
	c.awaitReady()
	return c
}

// openEarly opens a client, ready or not.
func openEarly(t *testing.T, e *Engine, events event.Sink) *client {
	t.Helper()
	c := &client{e.Open(t, events), t}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (c *client) awaitReady() {
	c.t.Helper()
	var err error
	eventually(c.t, func() bool { err = c.Ready(); return err == nil }, func() string { return fmt.Sprint("not ready: ", err) })
}

// publish publishes an envelope. If the outcome is in doubt it does so again,
// as every client has to.
func (c *client) publish(e message.Envelope) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := Publish(ctx, c, e)
	if errors.Is(err, broker.ErrUnknown) {
		c.t.Logf("Publish: %v; once more", err)
		c.awaitReady()
		c.insist(e)
		return
	}
	if err != nil {
		c.t.Fatalf("Publish: %v", err)
	}
}

// insist publishes an envelope, again and again until it succeeds.
func (c *client) insist(e message.Envelope) {
	c.t.Helper()
	var err error
	eventually(c.t, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err = Publish(ctx, c, e)
		return err == nil
	}, func() string { return fmt.Sprint("Publish: ", err) })
}

// intake is a running Consume.
type intake struct {
	t          *testing.T
	deliveries chan *message.Delivery
	cancel     context.CancelFunc
	done       chan error
}

func (c *client) consume(shard, prefetch int) *intake {
	ctx, cancel := context.WithCancel(context.Background())
	in := &intake{t: c.t, deliveries: make(chan *message.Delivery), cancel: cancel, done: make(chan error, 1)}
	go func() { in.done <- c.Consume(ctx, shard, prefetch, in.deliveries) }()
	c.t.Cleanup(func() {
		in.cancel()
		_ = c.Close()
	})
	return in
}

// next is the next delivery.
func (in *intake) next() *message.Delivery {
	in.t.Helper()
	select {
	case d := <-in.deliveries:
		return d
	case err := <-in.done:
		in.t.Fatalf("Consume returned: %v", err)
	case <-time.After(patience):
		in.t.Fatalf("no delivery within %v", patience)
	}
	return nil
}

// take is the next n deliveries, by their id.
func (in *intake) take(n int) map[string]*message.Delivery {
	in.t.Helper()
	got := map[string]*message.Delivery{}
	for range n {
		d := in.next()
		if got[d.ID] != nil {
			in.t.Fatalf("%q was delivered twice", d.ID)
		}
		got[d.ID] = d
	}
	return got
}

// none checks that no delivery comes.
func (in *intake) none() {
	in.t.Helper()
	select {
	case d := <-in.deliveries:
		in.t.Fatalf("unexpected delivery of %q (redelivered: %v)", d.ID, d.Redelivered)
	case <-time.After(quiet):
	}
}

// stop ends the intake and checks that it ends well.
func (in *intake) stop() {
	in.t.Helper()
	in.cancel()
	select {
	case err := <-in.done:
		if err != nil {
			in.t.Fatalf("Consume: %v, want nil after its context", err)
		}
	case <-time.After(patience):
		in.t.Fatalf("Consume did not return within %v after its context", patience)
	}
}

var (
	ack    = message.Outcome{Kind: message.Ack}
	giveUp = message.Outcome{Kind: message.Return, Reason: "not now"}
)

// settle settles a delivery, which has to succeed.
func settle(t *testing.T, d *message.Delivery, o message.Outcome) {
	t.Helper()
	if err := d.Settle(o); err != nil {
		t.Fatalf("settling %q: %v", d.ID, err)
	}
}

// envelope makes an envelope of n lines.
func envelope(shard, n int) message.Envelope {
	var body bytes.Buffer
	for range n {
		fmt.Fprintf(&body, `{"message_id":"%s","timestamp":"2019-10-12T08:10:54.52Z"}`+"\n", rand.Text())
	}
	return message.Envelope{ID: rand.Text(), Shard: shard, Count: n, Body: body.Bytes()}
}

// sameEnvelope checks what a delivery carries.
func sameEnvelope(t *testing.T, d *message.Delivery, want message.Envelope) {
	t.Helper()
	if d.ID != want.ID || d.Shard != want.Shard || d.Count != want.Count || d.Foreign != want.Foreign {
		t.Errorf("got id %q, shard %d, count %d, foreign %v; want %q, %d, %d, %v",
			d.ID, d.Shard, d.Count, d.Foreign, want.ID, want.Shard, want.Count, want.Foreign)
	}
	if !maps.Equal(d.Attributes, want.Attributes) {
		t.Errorf("%q has the attributes %v, want %v", d.ID, d.Attributes, want.Attributes)
	}
	if !bytes.Equal(d.Body, want.Body) {
		t.Errorf("the body of %q was altered: %d bytes, want %d", d.ID, len(d.Body), len(want.Body))
	}
}

// empty checks that nothing is left of the shard's envelopes. The clients that
// held some are closed.
func empty(t *testing.T, e *Engine, shard int) { t.Helper(); depth(t, e, shard, 0) }

func depth(t *testing.T, e *Engine, shard, want int) {
	t.Helper()
	got := -1
	eventually(t, func() bool { got = e.Depth(t, shard); return got == want },
		func() string { return fmt.Sprintf("%d envelopes in shard %d, want %d", got, shard, want) })
}

// deadLetters waits for n dead letters.
func deadLetters(t *testing.T, e *Engine, n int) []DeadLetter {
	t.Helper()
	var got []DeadLetter
	eventually(t, func() bool { got = e.DeadLetters(t); return len(got) == n },
		func() string { return fmt.Sprintf("%d dead letters, want %d", len(got), n) })
	return got
}

// eventually waits for a condition.
func eventually(t *testing.T, ok func() bool, why func() string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %s", patience, why())
		}
		runtime.Gosched()
		time.Sleep(5 * time.Millisecond)
	}
}
