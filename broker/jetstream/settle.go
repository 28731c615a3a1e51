package jetstream

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"async-data-processor/broker"
	"async-data-processor/broker/conn"
	"async-data-processor/message"
)

// What a consumer is told about a delivery (docs.nats.io, "JetStream wire API").
const (
	ack        = "+ACK"
	nak        = "-NAK"
	inProgress = "+WPI"
)

// settle tells the server what became of a delivery.
func (sub *subscription) settle(d *unacked, o message.Outcome) error {
	if !sub.broker.conns.Enter() {
		return stale(broker.ErrClosed)
	}
	defer sub.broker.conns.Leave()
	defer sub.poke()
	if sub.session.Over() {
		return stale(nil)
	}
	switch o.Kind {
	case message.Ack:
		return sub.finish(d, ack)
	case message.DeadLetter:
		return sub.deadLetter(d, o)
	default:
		return sub.finish(d, nak)
	}
}

// finish forgets a delivery, and only then tells the server: it may
// deliver the envelope anew before the call returns.
func (sub *subscription) finish(d *unacked, answer string) error {
	if !sub.drop(d) {
		return stale(nil)
	}
	if err := sub.session.send(d, answer); err != nil {
		return stale(err)
	}
	return nil
}

// deadLetter moves an envelope, or what of it is dead, to the dead letters.
func (sub *subscription) deadLetter(d *unacked, o message.Outcome) error {
	b := sub.broker
	gone := func() bool { return !sub.holds(d) }
	if gone() {
		return stale(nil)
	}
	dying := conn.Dying[*session, *nats.Msg]{
		Client: b.conns, Shard: sub.shard, ID: d.delivery.ID, Letters: letters(sub.shard, d, o),
		Publish: func(ctx context.Context, s *session, letter *nats.Msg) error {
			return s.publish(ctx, DeadStream, letter)
		},
		Stale: gone, Ended: sub.hasEnded,
		Return: func() error { return sub.finish(d, b.nakLater()) },
	}
	if err := dying.Move(); err != nil {
		return err
	}
	return sub.finish(d, ack)
}

func (sub *subscription) hasEnded() bool {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	return sub.ended
}

// exceeded moves an envelope that came back too often to the dead letters, in
// its own time. If the broker is being closed, the envelope stays.
func (sub *subscription) exceeded(d *unacked, returns uint64) {
	if !sub.broker.conns.Enter() {
		return
	}
	go func() {
		defer sub.broker.conns.Leave()
		defer sub.poke()
		why := fmt.Sprintf("it came back %d times, the limit is %d", returns, broker.DeliveryLimit)
		_ = sub.deadLetter(d, message.Outcome{Kind: message.DeadLetter, Reason: why})
	}()
}

func (sub *subscription) holds(d *unacked) bool {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	return sub.unacked[d.sequence] == d
}

// drop forgets a delivery; false if that was done before. The last
// one of a subscription that has ended forgets it.
func (sub *subscription) drop(d *unacked) bool {
	sub.mu.Lock()
	if sub.unacked[d.sequence] != d {
		sub.mu.Unlock()
		return false
	}
	delete(sub.unacked, d.sequence)
	if d.passedOn {
		sub.passedOn--
	}
	idle := sub.ended && len(sub.unacked) == 0
	sub.mu.Unlock()
	if idle {
		sub.session.subs.unregister(sub)
	}
	return true
}

// nakLater returns a delivery that should not come back at once.
func (b *Broker) nakLater() string {
	return fmt.Sprintf(`%s {"delay":%d}`, nak, b.timing.Max)
}

// settling counts what the server has been told and not confirmed.
type settling struct {
	inbox       string
	unconfirmed atomic.Int64
	lastConfirm atomic.Int64  // when it came, in nanoseconds since 1970
	none        chan struct{} // of one: all was confirmed just now

	mu     sync.Mutex           // guards what follows
	shards map[int]*pendingAcks // none of a shard if all is confirmed
}

// pendingAcks is what the server has not confirmed of a shard.
type pendingAcks struct {
	settles int
	since   time.Time // of the latest confirm, or of the first settle
}

// window is how many settles a server may be behind, enough to keep it busy.
// It takes them faster than it applies them, each writes to disk, and
// would take an envelope for abandoned whose settle has waited for ackWait.
const window = 256

// pokeEach is after how many confirms a subscription looks whether there is room
// for more.
const pokeEach = 8

// openSettling makes the session one for consuming.
func (s *session) openSettling() error {
	s.settling.inbox = s.conn.NewInbox() + "."
	s.settling.none = make(chan struct{}, 1)
	s.settling.shards = map[int]*pendingAcks{}
	s.turns = make(chan struct{}, maxTurns)
	sub, err := s.conn.Subscribe(s.settling.inbox+"*", func(m *nats.Msg) {
		if shard, err := strconv.Atoi(strings.TrimPrefix(m.Subject, s.settling.inbox)); err == nil {
			s.ackConfirmed(shard)
		}
	})
	if err == nil {
		err = sub.SetPendingLimits(-1, -1)
	}
	if err != nil {
		return fmt.Errorf("subscribing to the confirms: %w", err)
	}
	s.Loops.Go(func() { s.subs.extend(s.broker.timing.ackWait/3, s.Gone()) })
	return nil
}

// send tells a consumer what became of one of its deliveries.
func (s *session) send(d *unacked, answer string) error {
	if s.settling.unconfirmed.Add(1) == 1 {
		s.settling.lastConfirm.Store(time.Now().UnixNano()) // so far
	}
	shard := d.delivery.Shard
	s.settling.sent(shard)
	err := s.conn.PublishRequest(d.reply, s.settling.inbox+strconv.Itoa(shard), []byte(answer))
	if err != nil {
		s.settling.unconfirmed.Add(-1)
		s.settling.confirmed(shard)
	}
	return err
}

// sent counts a settle of the shard until it is confirmed.
func (g *settling) sent(shard int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shards[shard] == nil {
		g.shards[shard] = &pendingAcks{since: time.Now()}
	}
	g.shards[shard].settles++
}

// confirmed takes one of them off, and returns how many are left.
func (g *settling) confirmed(shard int) (left int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.shards[shard]
	if p == nil { // it was given up on
		return 0
	}
	p.since = time.Now()
	p.settles--
	if p.settles == 0 {
		delete(g.shards, shard)
	}
	return p.settles
}

// pending is how many settles of the shard the server has still to confirm. What
// it was told is on its disk only then: killed before that, it delivers the
// envelopes again. One that has confirmed none for the patience will not.
func (g *settling) pending(shard int, patience time.Duration) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.shards[shard]
	if p == nil {
		return 0
	}
	if time.Since(p.since) > patience {
		delete(g.shards, shard)
		return 0
	}
	return p.settles
}

// reset forgets what is pending.
func (g *settling) reset() {
	g.unconfirmed.Store(0)
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.shards)
}

func (s *session) ackConfirmed(shard int) {
	if s.settling.confirmed(shard)%pokeEach == 0 {
		s.subs.poke(shard)
	}
	s.settling.lastConfirm.Store(time.Now().UnixNano())
	switch s.settling.unconfirmed.Add(-1) {
	case -1: // one that was given up on
		s.settling.unconfirmed.Add(1)
	case 0:
		select {
		case s.settling.none <- struct{}{}:
		default: // the last time was not heard of yet
		}
	case window - 1:
		s.subs.poke(-1)
	}
}

// behind tells whether the server has much to catch up with. One that confirms
// nothing at all for the patience has lost what it was told, with its leader.
func (g *settling) behind(patience time.Duration) bool {
	if g.unconfirmed.Load() < window {
		return false
	}
	if time.Since(time.Unix(0, g.lastConfirm.Load())) > patience {
		g.reset()
		return false
	}
	return true
}

// wait waits until the server has confirmed all settles, and tells whether it did,
// in bounded time.
func (g *settling) wait(c *nats.Conn, limit time.Duration) bool {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for g.unconfirmed.Load() > 0 {
		if c.IsClosed() {
			return false
		}
		select {
		case <-g.none:
		case <-timeout.C:
			return false
		}
	}
	return true
}
