package jetstream

import (
	"cmp"
	"time"
)

// orphans are the deliveries that a lost connection held. The server does not
// know that they are, so the next connection returns them.
type orphans struct {
	created time.Time // of the consumer that they are of
	lost    time.Time
	held    []*held
}

// withdraw ends the intake's hold on what was not passed on.
func (sub *subscription) withdraw() []*held {
	sub.mu.Lock()
	waiting := sub.waiting
	sub.waiting = nil
	for _, d := range waiting {
		delete(sub.held, d.sequence)
		if d.passedOn {
			sub.passedOn--
		}
	}
	sub.ended = true
	idle := len(sub.held) == 0
	sub.mu.Unlock()
	if idle {
		sub.session.disown(sub)
	}
	return waiting
}

// abandon makes all deliveries stale and returns them.
func (sub *subscription) abandon() []*held {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	all := make([]*held, 0, len(sub.held))
	for _, d := range sub.held {
		all = append(all, d)
	}
	sub.held, sub.waiting = nil, nil
	return all
}

// cancel gives up a subscription before its session has ended. If the server
// has forgotten the consumer, what is held is not returned: another consumer,
// or another stream, counts anew, and the old numbers could mean other
// envelopes there.
func (sub *subscription) cancel(forgotten bool) {
	_ = sub.inboxSub.Unsubscribe()
	if all := sub.abandon(); !forgotten {
		sub.broker.orphan(sub, all)
	} else {
		sub.session.settling.forgive() // it confirms nothing any more
	}
	sub.session.disown(sub)
}

// adopt remembers a subscription as long as it may hold something; false if
// the session is over.
func (s *session) adopt(sub *subscription) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subs == nil {
		return false
	}
	s.subs[sub] = struct{}{}
	return true
}

func (s *session) disown(sub *subscription) {
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

// leave returns what is unsettled when the session ends: at once if the
// connection still works, else on the next one.
func (s *session) leave() {
	all := s.all()
	s.mu.Lock()
	s.subs = nil
	s.mu.Unlock()
	abandoned := map[*subscription][]*held{}
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
	for sub, held := range abandoned {
		s.broker.orphan(sub, held)
	}
}

// orphan remembers what a subscription held.
func (b *Broker) orphan(sub *subscription, all []*held) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.orphans[sub.shard]
	if !o.created.Equal(sub.created) {
		o.held = nil // their consumer is gone
	}
	b.orphans[sub.shard] = orphans{sub.created, time.Now(), append(o.held, all...)}
}

// returnOrphans returns what lost connections held of a shard. What is older
// has come back by itself, and may be somebody else's.
func (s *session) returnOrphans(shard int, created time.Time) {
	b := s.broker
	b.mu.Lock()
	o := b.orphans[shard]
	delete(b.orphans, shard)
	b.mu.Unlock()
	if !o.created.Equal(created) || time.Since(o.lost) > b.timing.ackWait {
		return
	}
	for _, d := range o.held {
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
		case <-s.gone:
			return
		}
	}
}

func (sub *subscription) extend() {
	sub.mu.Lock()
	replies := make([]string, 0, len(sub.held))
	for _, d := range sub.held {
		replies = append(replies, d.reply)
	}
	sub.mu.Unlock()
	for _, reply := range replies {
		if sub.session.conn.Publish(reply, []byte(inProgress)) != nil {
			return
		}
	}
}
