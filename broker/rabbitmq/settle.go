package rabbitmq

import (
	"context"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
	"async-data-processor/broker/conn"
	"async-data-processor/message"
)

// settling tells the broker of a session's acknowledgements: one goroutine,
// and what comes while it writes leaves together, in one write. So an idle
// session waits for nothing, and a busy one does not pay for each.
type settling struct {
	poked chan struct{} // of one: some subscription has gathered acknowledgements

	mu    sync.Mutex // guards what follows
	dirty []*subscription

	writing sync.Mutex // held while frames are taken and written, or a channel begins to close; guards what follows
	frames  []frame
}

// openSettling makes the session one for consuming.
func (s *session) openSettling() {
	s.settling.poked = make(chan struct{}, 1)
	s.Loops.Go(func() {
		for {
			select {
			case <-s.settling.poked:
				s.acknowledge()
			case <-s.Gone():
				return
			}
		}
	})
}

// acknowledge tells the broker of all that is gathered. What cannot be told is
// delivered again.
func (s *session) acknowledge() {
	s.settling.writing.Lock()
	defer s.settling.writing.Unlock()
	s.writeAcks()
}

// writeAcks is acknowledge for a caller that holds the lock of writing.
func (s *session) writeAcks() {
	g := &s.settling
	g.mu.Lock()
	dirty := g.dirty
	g.dirty = nil
	g.mu.Unlock()
	if len(dirty) == 0 {
		return
	}
	s.together(func() {
		for _, sub := range dirty {
			if sub.closing.Load() {
				continue
			}
			g.frames = sub.gathered(g.frames[:0])
			for _, f := range g.frames {
				if sub.ch.Ack(f.tag, f.multiple) != nil {
					break // the channel is closed
				}
			}
		}
	})
}

// together sends what is written in one write. The lock of writing is held.
func (s *session) together(write func()) {
	s.sock.cork()
	write()
	if err := s.sock.uncork(); err != nil {
		s.giveUp(err)
	}
}

// ack gathers the acknowledgement of a delivery.
func (sub *subscription) ack(tag uint64) {
	sub.mu.Lock()
	sub.tags.ack(tag)
	first := !sub.dirty
	sub.dirty = true
	sub.mu.Unlock()
	if !first {
		return
	}
	g := &sub.session.settling
	g.mu.Lock()
	g.dirty = append(g.dirty, sub)
	g.mu.Unlock()
	select {
	case g.poked <- struct{}{}:
	default: // the call that is to come takes this, too
	}
}

// gathered appends the frames that are to be written.
func (sub *subscription) gathered(to []frame) []frame {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	sub.dirty = false
	return sub.tags.frames(to)
}

// giveBack returns a delivery. It uses reject, not nack: to RabbitMQ from 4.3
// only this is a failed delivery, which counts towards the delivery limit. The
// lock keeps an acknowledgement of several from coming between the reject and
// the note of it.
func (sub *subscription) giveBack(tag uint64) error {
	g := &sub.session.settling
	g.writing.Lock()
	defer g.writing.Unlock()
	if sub.closing.Load() {
		return stale(nil)
	}
	err := sub.ch.Reject(tag, true)
	sub.tell(tag)
	if err != nil {
		return stale(err)
	}
	return nil
}

// tell notes that the broker was told of a delivery.
func (sub *subscription) tell(tag uint64) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	sub.tags.tell(tag)
}

// settle tells the broker what became of a delivery. The channel is that of
// the delivery: it dies with its connection and is never used for another.
func (sub *subscription) settle(d *amqp.Delivery, o message.Outcome) error {
	if !sub.broker.conns.Enter() {
		return stale(broker.ErrClosed)
	}
	defer sub.broker.conns.Leave()
	defer sub.settled()
	if sub.isClosed() {
		return stale(nil)
	}
	switch o.Kind {
	case message.Ack:
		sub.ack(d.DeliveryTag)
		return nil
	case message.DeadLetter:
		return sub.deadLetter(d, o)
	default:
		return sub.giveBack(d.DeliveryTag)
	}
}

// deadLetter moves an envelope, or what of it is dead, to the dead-letter queue.
func (sub *subscription) deadLetter(d *amqp.Delivery, o message.Outcome) error {
	dying := conn.Dying[*session, amqp.Publishing]{
		Client: sub.broker.conns, Shard: sub.shard, ID: d.MessageId, Letters: letters(sub.shard, d, o),
		Publish: func(ctx context.Context, s *session, letter amqp.Publishing) error {
			return s.publish(ctx, deadQueue, letter)
		},
		Stale: sub.isClosed, Ended: sub.hasEnded,
		Return: func() error { return sub.giveBack(d.DeliveryTag) },
	}
	if err := dying.Move(); err != nil {
		return err
	}
	if sub.isClosed() {
		return stale(nil)
	}
	sub.ack(d.DeliveryTag)
	return nil
}

// isClosed tells whether the deliveries are the broker's again, or will be.
func (sub *subscription) isClosed() bool { return sub.closing.Load() || sub.ch.IsClosed() }

func (sub *subscription) hasEnded() bool {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	return sub.ended
}

// settled counts; the last one of a consumer that has ended closes its channel.
func (sub *subscription) settled() {
	sub.mu.Lock()
	sub.unsettled--
	idle := sub.ended && sub.unsettled == 0
	sub.mu.Unlock()
	if idle {
		sub.close()
	}
}
