package consumer

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/message"
)

// TestReturned: what went back to the queue is as old as it was, although what was
// received last is younger, and the queue was seen empty.
func TestReturned(t *testing.T) {
	a := newAge()
	old, young := time.UnixMilli(1000), time.UnixMilli(9000)
	first, second := a.receive(old, "old"), a.receive(young, "young")
	stale := a.measure()
	a.settled(second)
	a.returning(first, "old")
	a.settled(first)
	stale(0) // asked before it went back
	a.measure()(1)
	if queued, at, known := a.oldest(); queued != 1 || !known || !at.Equal(old) {
		t.Errorf("%d queued, the oldest of %v (%v), want one of %v", queued, at, known, old)
	}
}

// TestReturnsModel lets envelopes go back to the front of a queue, to where they were, or
// to its end, and be received again: the age is never too young, and not too old.
func TestReturnsModel(t *testing.T) {
	for seed := range uint64(500) {
		synctest.Test(t, func(t *testing.T) { testReturns(t, seed) })
	}
}

func testReturns(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 1))
	m := returnsModel{age: newAge()}
	for range 300 {
		time.Sleep(time.Duration(random.IntN(3)) * time.Millisecond)
		m.now = time.Now().UnixMilli()
		switch random.IntN(8) {
		case 0, 1:
			m.queue = append(m.queue, heldEnvelope{accepted: m.now, id: message.NewID()}) // some at the same time
		case 2, 3, 4:
			m.receive()
		case 5, 6:
			if len(m.held) > 0 {
				i := random.IntN(len(m.held))
				m.settle(i, random.IntN(3), random.IntN(4))
			}
		case 7:
			take := m.age.measure()
			waiting := len(m.queue)
			for range random.IntN(3) { // the broker looks now, its answer comes later
				m.receive()
			}
			take(waiting)
			m.measured = m.now
		}
		if what := m.wrong(); what != "" {
			t.Fatalf("seed %d: %s; %+v, queue %v", seed, what, m.held, m.queue)
		}
	}
	for len(m.queue) > 0 || len(m.held) > 0 {
		m.receive()
		if len(m.held) > 0 {
			m.settle(0, 2, 0)
		}
	}
	m.age.measure()(0)
	m.age.measure()(0)
	if queued, at, known := m.age.oldest(); queued != 0 || !at.IsZero() || !known || m.age.expects.Load() {
		t.Fatalf("seed %d: when all is written, %d are queued, the oldest of %v (%v)", seed, queued, at, known)
	}
}

// returnsModel is a queue of envelopes, by when they were accepted.
type returnsModel struct {
	age      *age
	now      int64
	queue    []heldEnvelope
	held     []heldEnvelope
	highest  int64 // of all received
	measured int64 // what was accepted before is known of
}

type heldEnvelope struct {
	ticket   int
	accepted int64
	id       string
}

func (m *returnsModel) receive() {
	if len(m.queue) == 0 {
		return
	}
	h := m.queue[0]
	m.queue = m.queue[1:]
	h.ticket = m.age.receive(time.UnixMilli(h.accepted), h.id)
	m.held = append(m.held, h)
	m.highest = max(m.highest, h.accepted)
}

// settle settles an envelope: back is 0 for a return, to one of four places.
func (m *returnsModel) settle(i, back, place int) {
	h := m.held[i]
	m.held = slices.Delete(m.held, i, i+1)
	if back == 0 {
		m.age.returning(h.ticket, h.id)
		at := []int{0, len(m.queue), len(m.queue) / 2, len(m.queue)}[place]
		if place == 3 { // where it was
			at, _ = slices.BinarySearchFunc(m.queue, h, func(x, y heldEnvelope) int { return cmp.Compare(x.accepted, y.accepted) })
		}
		m.queue = slices.Insert(m.queue, at, h)
	}
	m.age.settled(h.ticket)
}

// wrong tells what is wrong with the age.
func (m *returnsModel) wrong() string {
	_, at, known := m.age.oldest()
	oldest, lowest := int64(0), m.highest
	for _, h := range m.held {
		lowest = min(lowest, h.accepted)
		if oldest == 0 || h.accepted < oldest {
			oldest = h.accepted
		}
	}
	for _, h := range m.queue {
		lowest = min(lowest, h.accepted)
		if h.accepted < m.measured && (oldest == 0 || h.accepted < oldest) {
			oldest = h.accepted
		}
	}
	switch {
	case !known || oldest == 0:
	case at.IsZero() || at.UnixMilli() > oldest:
		return fmt.Sprintf("the oldest is of %d, not of %d", oldest, at.UnixMilli())
	case at.UnixMilli() < lowest:
		return fmt.Sprintf("nothing is older than %d, and the oldest is said to be of %d", lowest, at.UnixMilli())
	}
	return ""
}

// TestReturnsAreBounded: what never comes again is forgotten after the queue has come, and
// takes little memory until then.
func TestReturnsAreBounded(t *testing.T) {
	a := newAge()
	for i := range 3 * maxReturned {
		ticket := a.receive(time.UnixMilli(int64(10_000+i)), fmt.Sprint(i))
		a.returning(ticket, fmt.Sprint(i))
		a.settled(ticket)
	}
	if len(a.returned) != maxReturned {
		t.Errorf("%d are remembered", len(a.returned))
	}
	a.measure()(500)
	a.measure()(500)
	for i := range 499 {
		a.settled(a.receive(time.UnixMilli(int64(100_000+i)), "new"))
	}
	a.measure()(1)
	if _, at, _ := a.oldest(); at.UnixMilli() != 10_000 {
		t.Errorf("the oldest is of %v before the queue has come", at.UnixMilli())
	}
	a.settled(a.receive(time.UnixMilli(200_000), "last"))
	a.measure()(1)
	if _, at, _ := a.oldest(); at.UnixMilli() != 200_000 || a.expects.Load() {
		t.Errorf("the oldest is of %v when the queue has come", at.UnixMilli())
	}
}
