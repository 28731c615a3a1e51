package event

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Hub passes events on to its subscribers, and never makes a sender wait. The
// zero value has none. Its methods may be called concurrently.
type Hub struct {
	mu          sync.Mutex // serializes the changes of subscribers
	subscribers atomic.Pointer[[]*Subscription]
}

// Subscription is a bounded queue of events for one reader.
type Subscription struct {
	hub     *Hub
	wants   func(Event) bool
	events  chan Event
	dropped atomic.Uint64
	closing sync.RWMutex // held for reading while an event is put into events
	closed  bool         // guarded by closing
}

// Send is a Sink. A subscriber whose queue is full loses the event, and it is
// counted there. Without subscribers Send costs an atomic load.
func (h *Hub) Send(e Event) {
	subscribers := h.subscribers.Load()
	if subscribers == nil {
		return
	}
	for _, s := range *subscribers {
		if s.wants == nil || s.wants(e) {
			s.put(e)
		}
	}
}

// Subscribe returns a subscription to the events that wants accepts, all if it is
// nil. At most size of them wait. wants is called on the sender's goroutine,
// concurrently, and must not block.
func (h *Hub) Subscribe(size int, wants func(Event) bool) *Subscription {
	s := &Subscription{hub: h, wants: wants, events: make(chan Event, size)}
	h.change(func(all []*Subscription) []*Subscription { return append(all, s) })
	return s
}

// Call has f called with each event, on the sender's goroutine, concurrently, for as
// long as the hub lives. f must not block.
func (h *Hub) Call(f func(Event)) {
	h.Subscribe(0, func(e Event) bool {
		f(e)
		return false // nothing waits in a queue
	})
}

// change replaces the list of subscribers, which senders read without a lock.
func (h *Hub) change(edit func([]*Subscription) []*Subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []*Subscription
	if old := h.subscribers.Load(); old != nil {
		all = slices.Clone(*old)
	}
	if all = edit(all); len(all) == 0 {
		h.subscribers.Store(nil)
		return
	}
	h.subscribers.Store(&all)
}

func (s *Subscription) put(e Event) {
	s.closing.RLock()
	defer s.closing.RUnlock()
	if s.closed {
		return
	}
	select {
	case s.events <- e:
	default:
		s.dropped.Add(1)
	}
}

// Events is the queue, in the order sent. It is closed by Close, and what waits
// in it then can still be read.
func (s *Subscription) Events() <-chan Event { return s.events }

// Dropped returns how many events found the queue full.
func (s *Subscription) Dropped() uint64 { return s.dropped.Load() }

// Close ends the subscription. It may be called more than once.
func (s *Subscription) Close() {
	s.hub.change(func(all []*Subscription) []*Subscription {
		return slices.DeleteFunc(all, func(other *Subscription) bool { return other == s })
	})
	s.closing.Lock()
	defer s.closing.Unlock()
	if !s.closed {
		s.closed = true
		close(s.events)
	}
}
