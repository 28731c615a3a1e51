package jetstream

import (
	"cmp"
	"time"
)

// lostDeliveries were not settled when their connection was lost. The server does
// not know of the loss, so the next connection returns them.
type lostDeliveries struct {
	created time.Time // of the consumer that they are of
	since   time.Time
	unacked []*unacked
}

// takeBackUnsent ends the intake, and returns what was not passed on.
func (sub *subscription) takeBackUnsent() []*unacked {
	sub.mu.Lock()
	waiting := sub.waiting
	sub.waiting = nil
	for _, d := range waiting {
		delete(sub.unacked, d.sequence)
		if d.passedOn {
			sub.passedOn--
		}
	}
	sub.ended = true
	idle := len(sub.unacked) == 0
	sub.mu.Unlock()
	if idle {
		sub.session.unregister(sub)
	}
	return waiting
}

// abandon makes all deliveries stale and returns them.
func (sub *subscription) abandon() []*unacked {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	all := make([]*unacked, 0, len(sub.unacked))
	for _, d := range sub.unacked {
		all = append(all, d)
	}
	sub.unacked, sub.waiting = nil, nil
	return all
}

// cancel gives up a subscription before its session has ended. If the server
// has forgotten the consumer, what is held is not returned: another consumer,
// or another stream, counts anew, and the old numbers could mean other
// envelopes there.
func (sub *subscription) cancel(forgotten bool) {
	_ = sub.inboxSub.Unsubscribe()
	if all := sub.abandon(); !forgotten {
		sub.broker.noteLost(sub, all)
	} else {
		sub.session.settling.reset() // it confirms nothing any more
	}
	sub.session.unregister(sub)
}

// register remembers a subscription while it may have something unsettled; false
// if the session is over.
func (s *session) register(sub *subscription) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subs == nil {
		return false
	}
	s.subs[sub] = struct{}{}
	return true
}

func (s *session) unregister(sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.subs, sub)
}

// poke wakes the shard's subscriptions.
func (s *session) poke(shard int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sub := range s.subs {
		if sub.shard == shard {
			sub.poke()
		}
	}
}

func (s *session) all() []*subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*subscription, 0, len(s.subs))
	for sub := range s.subs {
		all = append(all, sub)
	}
	return all
}

// returnUnsettled returns what is unsettled when the session ends: at once if the
// connection still works, else on the next one.
func (s *session) returnUnsettled() {
	all := s.all()
	s.mu.Lock()
	s.subs = nil
	s.mu.Unlock()
	abandoned := map[*subscription][]*unacked{}
	var err error
	for _, sub := range all {
		abandoned[sub] = sub.abandon()
		for _, d := range abandoned[sub] {
			err = cmp.Or(err, s.send(d, nak))
		}
	}
	if err == nil && s.settled() {
		return
	}
	for sub, unacked := range abandoned {
		s.broker.noteLost(sub, unacked)
	}
}

// noteLost remembers what a subscription had not settled.
func (b *Broker) noteLost(sub *subscription, all []*unacked) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.lost[sub.shard]
	if !l.created.Equal(sub.created) {
		l.unacked = nil // their consumer is gone
	}
	b.lost[sub.shard] = lostDeliveries{sub.created, time.Now(), append(l.unacked, all...)}
}

// returnLost returns what was unsettled of a shard when connections were lost. What
// is older has come back by itself, and another process may have it.
func (s *session) returnLost(shard int, created time.Time) {
	b := s.broker
	b.mu.Lock()
	l := b.lost[shard]
	delete(b.lost, shard)
	b.mu.Unlock()
	if !l.created.Equal(created) || time.Since(l.since) > b.timing.ackWait {
		return
	}
	for _, d := range l.unacked {
		_ = s.send(d, nak)
	}
}

// extendHeld tells the server, as long as the session lasts, that what is
// unsettled is still worked on, so that it does not deliver it anew. One loop
// does it for all consumers.
func (s *session) extendHeld() {
	tick := time.NewTicker(s.broker.timing.ackWait / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			for _, sub := range s.all() {
				sub.extend()
			}
		case <-s.Gone():
			return
		}
	}
}

func (sub *subscription) extend() {
	sub.mu.Lock()
	replies := make([]string, 0, len(sub.unacked))
	for _, d := range sub.unacked {
		replies = append(replies, d.reply)
	}
	sub.mu.Unlock()
	for _, reply := range replies {
		if sub.session.conn.Publish(reply, []byte(inProgress)) != nil {
			return
		}
	}
}
