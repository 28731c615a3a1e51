package jetstream

import (
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// take takes in an envelope.
func (sub *subscription) take(m *nats.Msg) {
	if pin := m.Header.Get("Nats-Pin-Id"); pin != "" {
		sub.pin.set(sub.session.conn, pin)
	}
	sub.asked = max(0, sub.asked-1)
	meta, err := m.Metadata()
	if err != nil {
		return // not from a consumer
	}
	d := &unacked{msg: m, reply: m.Reply, sequence: meta.Sequence.Stream, stored: meta.Timestamp}
	d.delivery = message.NewDelivery(sub.envelope(m), meta.NumDelivered > 1,
		func(o message.Outcome) error { return sub.settle(d, o) })

	sub.mu.Lock()
	defer sub.mu.Unlock()
	if sub.unacked == nil {
		return
	}
	if again := sub.unacked[d.sequence]; again != nil {
		// The server lost patience, but its first delivery is not settled. That one
		// stays the envelope's only one, with the newer right to settle.
		again.reply = m.Reply
		return
	}
	sub.unacked[d.sequence] = d
	if meta.NumDelivered > broker.DeliveryLimit+1 {
		sub.exceeded(d, meta.NumDelivered-1)
		return
	}
	sub.waiting = append(sub.waiting, d)
}

// envelope reads the envelope only; the decoder judges the body.
func (sub *subscription) envelope(m *nats.Msg) message.Envelope {
	e := message.Envelope{
		ID:      m.Header.Get(jetstream.MsgIDHeader),
		Shard:   sub.shard,
		Count:   1,
		Body:    m.Data,
		Foreign: m.Header.Get(typeHeader) != envelopeType,
	}
	if !e.Foreign {
		e.Count, e.Attributes = count(m), attributes(m)
	}
	if !e.Foreign || strings.HasPrefix(e.ID, replayPrefix) {
		e.ID = m.Header.Get(idHeader)
	}
	return e
}

// count is the number of messages that an envelope announces, 0 if it does not
// or cannot hold so many. Who reads the envelope may reserve room for it.
func count(m *nats.Msg) int {
	n, err := strconv.Atoi(m.Header.Get(countHeader))
	if err != nil || n < 0 || n > len(m.Data) {
		return 0
	}
	return n
}

// attributes are those of an envelope; reading none costs nothing.
func attributes(m *nats.Msg) map[string]string {
	if text := m.Header.Get(attributesHeader); text != "" {
		return broker.DecodeAttributes(text)
	}
	return nil
}

// offer is the next delivery to pass on, nil if there is none or too many are
// unsettled. What is offered counts: it may be settled before passed is called.
func (sub *subscription) offer() *message.Delivery {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if len(sub.waiting) == 0 {
		return nil
	}
	d := sub.waiting[0]
	if !d.passedOn {
		if sub.passedOn >= sub.prefetch {
			return nil
		}
		d.passedOn = true
		sub.passedOn++
	}
	return d.delivery
}

// passed: the delivery that was offered has been taken.
func (sub *subscription) passed() {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if len(sub.waiting) > 0 { // none is left when the session is over
		sub.waiting = sub.waiting[1:]
	}
}
