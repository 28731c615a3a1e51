package jetstream

import (
	"testing"
	"time"

	"async-data-processor/event"
	"async-data-processor/message"
)

// TestTakesFromTheDead: what a killed process held comes to the next one at once,
// before what is new, and counts as delivered before. The server alone would wait for
// a minute.
func TestTakesFromTheDead(t *testing.T) {
	t.Parallel()
	n := newNode(t, "")
	tm := defaultTiming
	tm.ackWait, tm.pin = time.Minute, time.Minute
	b := openTimed(t, Config{URL: n.url()}, tm)
	awaitReady(t, b)
	first := consume(t, b, 0, 1) // makes the consumer, and gives it up
	publish(t, b, envelope(0))
	settled(t, first.next(), message.Ack)
	first.cancel()
	<-first.done
	var ids []string
	for range 5 {
		e := envelope(0)
		ids = append(ids, e.ID)
		publish(t, b, e)
	}
	held, kill := hold(t, n)
	kill()
	killed := time.Now()
	in := consume(t, b, 0, 10)
	for _, id := range ids {
		d := in.next()
		if d.ID != id || d.Redelivered != held[id] {
			t.Errorf("%q, redelivered %v, want %q, %v", d.ID, d.Redelivered, id, held[id])
		}
		settled(t, d, message.Ack)
	}
	if took := time.Since(killed); took > tm.pin/2 {
		t.Errorf("it had all after %v", took)
	}
	in.none(100 * time.Millisecond)
	awaitDepth(t, n.url(), 0, 0)
}

// TestMayNotAsk: a client that may not ask for the owner waits for the server.
func TestMayNotAsk(t *testing.T) {
	t.Parallel()
	n := newNode(t, `authorization { users: [
		{ user: all, password: secret }
		{ user: some, password: secret, permissions: {
			publish: ["async-data-processor.>", "$JS.API.>", "$JS.ACK.>"], subscribe: "_INBOX.>" } }
	] }`)
	url := func(user string) string { return "nats://" + user + ":secret@" + n.Addr }
	told := &events{}
	active := openTimed(t, Config{URL: url("all")}, impatient())
	standby := openTimed(t, Config{URL: url("some"), Events: told.add}, impatient())
	awaitReady(t, active)
	awaitReady(t, standby)
	publish(t, standby, envelope(0))
	in := consume(t, active, 0, 1)
	d := in.next()
	other := consume(t, standby, 0, 1)
	other.none(2 * impatient().ackWait)
	settled(t, d, message.Ack)
	in.cancel()
	publish(t, standby, envelope(0))
	settled(t, other.next(), message.Ack)
	for _, x := range told.snapshot() {
		if c, ok := x.(event.Connection); ok && c.State != event.Connected {
			t.Errorf("told %+v", c)
		}
	}
}
