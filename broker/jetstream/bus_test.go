package jetstream

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"async-data-processor/broker"
	"async-data-processor/broker/conn"
	"async-data-processor/event"
	"async-data-processor/message"
)

// busEvents are what was told of the connection of the bus.
func (e *events) busEvents() (all []event.Connection) {
	for _, x := range e.snapshot() {
		if c, ok := x.(event.Connection); ok && c.Role == conn.Bus {
			all = append(all, c)
		}
	}
	return all
}

// TestBusDenied: a user who may not use the bus, or a part of it, publishes and consumes
// as ever. It is told once. What has to be granted is in the documents.
func TestBusDenied(t *testing.T) {
	t.Parallel()
	n := newNode(t, `authorization { users: [
		{ user: none, password: secret, permissions: {
			publish: ["async-data-processor.shard.*", "async-data-processor.dead", "$JS.API.>", "$JS.ACK.>"], subscribe: "_INBOX.>" } }
		{ user: part, password: secret, permissions: {
			publish: { allow: ["async-data-processor.>", "$JS.API.>", "$JS.ACK.>"], deny: "async-data-processor.bus.tell.denied" },
			subscribe: ["_INBOX.>", "async-data-processor.bus.>"] } }
	] }`)
	tm := impatient()
	tm.Refused = 50 * time.Millisecond
	for user, c := range map[string]struct {
		state event.ConnectionState
		text  string
	}{
		"none": {event.Unreachable, busPrefix},
		"part": {event.Denied, busPrefix + "tell.denied"},
	} {
		t.Run(user, func(t *testing.T) {
			told := &events{}
			b := openTimed(t, Config{URL: "nats://" + user + ":secret@" + n.Addr, Events: told.add}, tm)
			begun := make(chan bool, 10)
			t.Cleanup(b.Listen("news", func(_ []byte, missed int) { begun <- missed == broker.Reconnected }))
			awaitReady(t, b)
			if user == "part" {
				<-begun
			}
			for range 20 {
				failed := len(told.busEvents()) > 0
				err := b.Tell("denied", nil)
				if user == "none" && failed && !errors.Is(err, nats.ErrPermissionViolation) {
					t.Errorf("Tell: %v, want why there is no bus", err)
				}
				time.Sleep(tm.Refused)
			}
			told.awaitState(t, c.state, c.text)
			var states []event.ConnectionState
			for _, e := range told.busEvents() {
				if e.State != event.Connected {
					states = append(states, e.State)
				}
			}
			if len(states) != 1 {
				t.Errorf("told %v, want %v once", states, c.state)
			}
			publish(t, b, envelope(0))
			in := consume(t, b, 0, 1)
			settled(t, in.next(), message.Ack)
			if err := b.Ready(); err != nil {
				t.Errorf("not ready: %v", err)
			}
			if user == "none" {
				return
			}
			if err := b.Tell("news", nil); err != nil {
				t.Error(err)
			}
			if <-begun {
				t.Error("the connection was lost meanwhile")
			}
			t.Cleanup(b.Answer("who", func(body []byte) []byte { return body }))
			eventually(t, func() (ok bool) {
				err := b.Ask(t.Context(), "who", nil, func([]byte) bool { ok = true; return false })
				return err == nil && ok
			}, func() string { return "no answer" })
		})
	}
}
