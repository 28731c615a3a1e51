package jetstream

import (
	"cmp"
	"maps"
	"slices"
	"sync"
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
		sub.session.subs.unregister(sub)
	}
	return waiting
}

// abandon makes all deliveries stale and returns them.
func (sub *subscription) abandon() []*unacked {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	all := slices.Collect(maps.Values(sub.unacked))
	sub.unacked, sub.waiting = nil, nil
	return all
}

// cancel gives up a subscription before its session has ended. If the server
// has forgotten the consumer, what is held is not returned: another consumer,
// or another stream, counts anew, and the old numbers could mean other
// envelopes there.
func (sub *subscription) cancel(forgotten bool) {
	_ = sub.inboxSub.Unsubscribe()
	sub.pin.hide()
	if all := sub.abandon(); !forgotten {
		sub.broker.noteLost(sub, all)
	} else {
		sub.session.settling.reset() // it confirms nothing any more
	}
	sub.session.subs.unregister(sub)
}

// subscriptions are those of a session that may have something unsettled.
type subscriptions struct {
	mu   sync.Mutex // guards what follows
	open map[*subscription]struct{}
	over bool // nothing is added any more
}

// register remembers a subscription; false if the session is over.
func (s *subscriptions) register(sub *subscription) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	if s.open == nil {
		s.open = map[*subscription]struct{}{}
	}
	s.open[sub] = struct{}{}
	return true
}

func (s *subscriptions) unregister(sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, sub)
}

// poke wakes the subscriptions of a shard, or all for a negative number.
func (s *subscriptions) poke(shard int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sub := range s.open {
		if shard < 0 || sub.shard == shard {
			sub.poke()
		}
	}
}

// unacked returns how many deliveries are not settled, by shard.
func (s *subscriptions) unacked() map[int]int {
	n := make(map[int]int)
	for _, sub := range s.all() {
		sub.mu.Lock()
		n[sub.shard] += len(sub.unacked)
		sub.mu.Unlock()
	}
	return n
}

func (s *subscriptions) all() []*subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.open))
}

// close returns those that are open, and none after that.
func (s *subscriptions) close() []*subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Collect(maps.Keys(s.open))
	s.open, s.over = nil, true
	return all
}

// extend tells the server, until the session is gone, that what is unsettled is
// still worked on, so that it does not deliver it anew. One loop does it for all.
func (s *subscriptions) extend(interval time.Duration, gone <-chan struct{}) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			for _, sub := range s.all() {
				sub.extend()
			}
		case <-gone:
			return
		}
	}
}

// returnUnsettled returns what is unsettled when the session ends: at once if the
// connection still works, else on the next one.
func (s *session) returnUnsettled() {
	abandoned := map[*subscription][]*unacked{}
	var err error
	for _, sub := range s.subs.close() {
		abandoned[sub] = sub.abandon()
		for _, d := range abandoned[sub] {
			err = cmp.Or(err, s.send(d, nak))
		}
	}
	if err == nil && s.settling.wait(s.conn, s.broker.timing.Close) {
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
