package event

import (
	"sync"
	"testing"
)

func TestHub(t *testing.T) {
	var h Hub
	h.Send(Drained{}) // to no one
	all := h.Subscribe(3, nil)
	some := h.Subscribe(3, func(e Event) bool { _, ok := e.(Draining); return ok })
	h.Send(Drained{})
	h.Send(Draining{})
	some.Close()
	some.Close()
	h.Send(Draining{})
	all.Close()
	h.Send(Draining{})

	if n := len(some.Events()); n != 1 {
		t.Errorf("who wants one kind until it closes has %d events, want 1", n)
	}
	var got []Event
	for e := range all.Events() {
		got = append(got, e)
	}
	if want := []Event{Drained{}, Draining{}, Draining{}}; len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("got %v, want %v", got, want)
	}
	if all.Dropped()+some.Dropped() != 0 {
		t.Error("events were dropped although there was room")
	}
}

// TestHubNeverWaits has many send to a reader that does not read: every event is
// in the queue or counted.
func TestHubNeverWaits(t *testing.T) {
	const senders, each, size = 8, 1000, 16
	var h Hub
	s := h.Subscribe(size, nil)
	var sending sync.WaitGroup
	for range senders {
		sending.Go(func() {
			for range each {
				h.Send(Drained{})
			}
		})
	}
	sending.Wait()
	s.Close()
	if n := len(s.Events()) + int(s.Dropped()); n != senders*each || len(s.Events()) != size {
		t.Errorf("%d events are in the queue, %d dropped, want %d in all", len(s.Events()), s.Dropped(), senders*each)
	}
}

// TestHubCloseWhileSending closes subscriptions under their senders.
func TestHubCloseWhileSending(t *testing.T) {
	var h Hub
	done := make(chan struct{})
	var sending sync.WaitGroup
	for range 4 {
		sending.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					h.Send(Drained{})
				}
			}
		})
	}
	for range 1000 {
		h.Subscribe(1, nil).Close()
	}
	close(done)
	sending.Wait()
	if h.subscribers.Load() != nil {
		t.Error("the hub keeps subscriptions that are closed")
	}
}
