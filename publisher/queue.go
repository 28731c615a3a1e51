package publisher

import (
	"slices"

	"async-data-processor/message"
)

// shardQueue is the envelopes of a shard on their way to the broker.
type shardQueue struct {
	publishing bool        // a round has an envelope of it
	waiting    []*envelope // those for the next rounds; the last one still fills up
}

// envelope is an envelope, and the submissions that have messages in it.
type envelope struct {
	message.Envelope
	parts []part
}

// part is what a submission has in an envelope.
type part struct {
	waiter *waiter
	index  int // of the waiter's envelopes
}

// add puts the messages at the indexes into envelopes of a shard, for the waiter
// to wait for. mu is held.
func (p *Publisher) add(w *waiter, shard int, messages []message.Message, indexes []int32) {
	q := &p.queues[shard]
	var e *envelope
	if last := len(q.waiting) - 1; last >= 0 {
		e = q.waiting[last]
	}
	room := 0 // for the messages to come, so that a body grows once
	for _, i := range indexes {
		room += len(messages[i].Line) + 1
	}
	joined := false // whether the waiter waits for e
	for _, i := range indexes {
		line := messages[i].Line
		if e == nil || len(e.Body)+len(line)+1 > message.MaxEnvelopeBytes {
			e, joined = p.envelopes.Get().(*envelope), false
			e.ID, e.Shard = message.NewID(), shard
			q.waiting = append(q.waiting, e)
		}
		if !joined {
			joined = true
			e.parts = append(e.parts, part{w, w.add(e)})
			e.Body = slices.Grow(e.Body, min(room, message.MaxEnvelopeBytes-len(e.Body)))
		}
		room -= len(line) + 1
		e.Body = append(append(e.Body, line...), '\n')
		e.Count++
	}
}

// abandon gives the waiter the outcome for each of its envelopes that has none
// yet. An envelope that has no other waiter, and waits for a round, is not
// published: clients send it again, and a broker that stalls for long would find
// more and more copies.
func (p *Publisher) abandon(w *waiter, outcome error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.pending == 0 {
		<-w.done // sent a moment ago; the next user of w must not find it
		return
	}
	p.giveUp(w, outcome)
}

// giveUp is abandon for a waiter that waits, or has not begun to. mu is held.
func (p *Publisher) giveUp(w *waiter, outcome error) {
	for i, e := range w.envelopes {
		if e == nil {
			continue
		}
		w.outcomes[i] = outcome
		e.parts = slices.DeleteFunc(e.parts, func(other part) bool { return other.waiter == w })
		if len(e.parts) > 0 {
			continue
		}
		q := &p.queues[e.Shard]
		if i := slices.Index(q.waiting, e); i >= 0 {
			q.waiting = slices.Delete(q.waiting, i, i+1)
			p.reuse(e)
		}
	}
}

// reuse keeps an envelope for other messages. Its body must have no reader.
func (p *Publisher) reuse(e *envelope) {
	clear(e.parts)
	*e = envelope{Envelope: message.Envelope{Body: e.Body[:0]}, parts: e.parts[:0]}
	p.envelopes.Put(e)
}
