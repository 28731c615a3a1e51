package local

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/message"
)

// queue is what an engine knows of a queue. Items that are neither ready nor handed
// out are in the store alone. All that changes is guarded by Engine.mu.
type queue struct {
	engine *Engine
	number int

	given uint64 // the last sequence number used
	last  uint64 // the highest that is in the store
	read  uint64 // all up to here were read
	depth int    // all that are in the store, but for those settled

	ready      []Item              // read and not handed out, ascending
	readyBytes int                 // of their bodies
	unsettled  map[uint64]*handOut // by sequence number
	returns    map[uint64]int      // how often items came back, if at all
	handedOut  uint64              // the highest sequence number that was

	consumers []*consumer // the first one is active
}

// handOut is an item that a consumer has. It is never changed.
type handOut struct {
	item     Item
	consumer *consumer
}

// queue returns the queue with a number, and makes it if need be. mu is held.
func (e *Engine) queue(number int) *queue {
	q := e.queues[number]
	if q == nil {
		q = &queue{engine: e, number: number}
		q.clear()
		e.queues[number] = q
	}
	return q
}

// clear forgets all but the consumers, and the depth: until the store is open again
// that is the best that is known.
func (q *queue) clear() {
	q.given, q.last, q.read, q.handedOut = 0, 0, 0, 0
	q.ready, q.readyBytes = nil, 0
	q.unsettled, q.returns = map[uint64]*handOut{}, map[uint64]int{}
	for _, c := range q.consumers {
		c.unsettled = 0
	}
}

// load takes over what the store has of the queue.
func (q *queue) load(c Contents) {
	q.given, q.last, q.depth = c.Given, c.Last, c.Depth
	q.read = q.last
	if c.First > 0 {
		q.read = c.First - 1
	}
	maps.Copy(q.returns, c.Returns)
}

// add takes a new item that the store has.
func (q *queue) add(it *Item) {
	next := q.read == q.last // all before it was read
	q.last = it.Seq
	q.depth++
	if next && q.room() {
		own := *it
		own.Envelope.Body = slices.Clone(own.Envelope.Body) // the publisher may use its own again
		own.Envelope.Attributes = maps.Clone(own.Envelope.Attributes)
		q.push(own)
		q.read = it.Seq
	}
	q.wake()
}

// room tells whether a new item may be kept for the active consumer.
func (q *queue) room() bool {
	return len(q.consumers) > 0 && len(q.ready) < q.consumers[0].prefetch && q.readyBytes < readBytes
}

// push makes an item ready, in its place.
func (q *queue) push(it Item) {
	i, _ := slices.BinarySearchFunc(q.ready, it.Seq, func(o Item, seq uint64) int { return cmp.Compare(o.Seq, seq) })
	q.ready = slices.Insert(q.ready, i, it)
	q.readyBytes += len(it.Envelope.Body)
}

// pop hands the next ready item to a consumer, or returns nil. What came back too
// often becomes a dead letter on the way.
func (q *queue) pop(c *consumer) *handOut {
	for len(q.ready) > 0 {
		it := q.ready[0]
		q.ready[0] = Item{}
		q.ready = q.ready[1:]
		q.readyBytes -= len(it.Envelope.Body)
		if it.Returns > broker.DeliveryLimit {
			q.depth--
			q.engine.move(q.bury(&it, message.Outcome{Reason: "delivery_limit"}))
			c.client.events.Send(event.DeadLettered{Shard: q.number, Envelope: it.Envelope.ID, Err: errLimit})
			continue
		}
		h := &handOut{it, c}
		q.unsettled[it.Seq] = h
		c.unsettled++
		return h
	}
	return nil
}

// errLimit is why an envelope became a dead letter without a settle of its own.
var errLimit = fmt.Errorf("it was handed out more than %d times without being settled: its process was killed, or returned it", broker.DeliveryLimit)

// drop takes an item from its consumer, or returns false if that has it no longer.
func (q *queue) drop(h *handOut) bool {
	if q.unsettled[h.item.Seq] != h {
		return false
	}
	delete(q.unsettled, h.item.Seq)
	h.consumer.unsettled--
	q.wake()
	return true
}

// giveBack makes an item ready again. counts tells that it was delivered.
func (q *queue) giveBack(h *handOut, counts bool) {
	if !q.drop(h) {
		return
	}
	it := h.item // its consumer may still read that
	if counts {
		it.Returns++
		q.returns[it.Seq] = it.Returns
		q.engine.change.Returns = append(q.engine.change.Returns, Return{Place{Queue: q.number, Seq: it.Seq}, it.Returns})
		q.engine.later()
	}
	q.push(it)
}

// place is where an item of the queue that goes away is.
func (q *queue) place(it *Item) Place {
	_, returned := q.returns[it.Seq]
	delete(q.returns, it.Seq)
	return Place{Queue: q.number, Seq: it.Seq, Returned: returned}
}

// wake has the consumers look again.
func (q *queue) wake() {
	for _, c := range q.consumers {
		select {
		case c.woken <- struct{}{}:
		default: // it will look anyway
		}
	}
}
