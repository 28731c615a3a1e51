package jetstream

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// What a consumer is told about a delivery (docs.nats.io, "JetStream wire API").
const (
	ack        = "+ACK"
	nak        = "-NAK"
	inProgress = "+WPI"
)

// settle tells the server what became of a delivery.
func (sub *subscription) settle(d *held, o message.Outcome) error {
	if !sub.broker.enter() {
		return stale(broker.ErrClosed)
	}
	defer sub.broker.calls.Done()
	defer sub.poke()
	if sub.session.over() {
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

// finish ends the hold on a delivery, and only then tells the server: it may
// deliver the envelope anew before the call returns.
func (sub *subscription) finish(d *held, answer string) error {
	if !sub.drop(d) {
		return stale(nil)
	}
	if err := sub.session.send(d, answer); err != nil {
		return stale(err)
	}
	return nil
}

// deadLetter moves an envelope, or what of it is dead, to the dead letters:
// first there, then away from here, so that it is twice there at worst.
func (sub *subscription) deadLetter(d *held, o message.Outcome) error {
	if !sub.holds(d) {
		return stale(nil)
	}
	for letter, reason := range letters(sub.shard, d, o) {
		if err := sub.bury(d, letter); err != nil {
			err = fmt.Errorf("dead-lettering: %w", err)
			if back := sub.finish(d, sub.broker.nakLater()); back != nil {
				return stale(err)
			}
			return err
		}
		sub.broker.notify(broker.Notice{
			Kind: broker.DeadLettered, Role: sub.broker.consuming.role, Shard: sub.shard, Err: errors.New(reason),
		})
	}
	return sub.finish(d, ack)
}

// bury publishes a dead letter, for as long as it takes while the consumer goes
// on and holds the delivery.
func (sub *subscription) bury(d *held, letter *nats.Msg) error {
	b := sub.broker
	for failures := 0; ; failures++ {
		err := b.bury(letter)
		if err == nil || !sub.holds(d) || sub.hasEnded() {
			return err
		}
		delay := b.timing.delay(failures, nil)
		b.notify(broker.Notice{Kind: broker.Unburied, Role: b.consuming.role, Shard: sub.shard, Err: err, Retry: delay})
		select {
		case <-time.After(delay):
		case <-sub.session.gone:
			return err
		case <-b.ctx.Done():
			return err
		}
	}
}

func (sub *subscription) hasEnded() bool {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	return sub.ended
}

// exceeded moves an envelope that came back too often to the dead letters, in
// its own time. If the broker is being closed, the envelope stays.
func (sub *subscription) exceeded(d *held, returns uint64) {
	if !sub.broker.enter() {
		return
	}
	go func() {
		defer sub.broker.calls.Done()
		defer sub.poke()
		why := fmt.Sprintf("it came back %d times, the limit is %d", returns, broker.DeliveryLimit)
		_ = sub.deadLetter(d, message.Outcome{Kind: message.DeadLetter, Reason: why})
	}()
}

func (sub *subscription) holds(d *held) bool {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	return sub.held[d.sequence] == d
}

// drop ends the hold on a delivery; false if there was none any more. The last
// one of a subscription that has ended forgets it.
func (sub *subscription) drop(d *held) bool {
	sub.mu.Lock()
	if sub.held[d.sequence] != d {
		sub.mu.Unlock()
		return false
	}
	delete(sub.held, d.sequence)
	if d.passedOn {
		sub.passedOn--
	}
	idle := sub.ended && len(sub.held) == 0
	sub.mu.Unlock()
	if idle {
		sub.session.disown(sub)
	}
	return true
}

// nakLater returns a delivery that should not come back at once.
func (b *Broker) nakLater() string {
	return fmt.Sprintf(`%s {"delay":%d}`, nak, b.timing.maxDelay)
}

// settling counts what the server has been told and not confirmed.
type settling struct {
	inbox       string
	unconfirmed atomic.Int64
	confirmed   atomic.Int64  // when the latest was, in nanoseconds since 1970
	none        chan struct{} // of one: all was confirmed just now

	mu     sync.Mutex     // guards what follows
	shards map[int]*owing // those that are owed confirms
}

// owing is what the server has not confirmed of a shard.
type owing struct {
	settles int
	since   time.Time // of the latest confirm, or of the first settle
}

// window is how many settles a server may be behind, enough to keep it busy.
// It takes them faster than it applies them, each of which writes to disk, and
// would take an envelope for abandoned whose settle has waited for ackWait.
const window = 256

// pokeEach is after how many confirms a subscription looks whether there is room
// for more.
const pokeEach = 8

// openSettling makes the session one for consuming.
func (s *session) openSettling() error {
	s.settling.inbox = s.conn.NewInbox() + "."
	s.settling.none = make(chan struct{}, 1)
	s.settling.shards = map[int]*owing{}
	sub, err := s.conn.Subscribe(s.settling.inbox+"*", func(m *nats.Msg) {
		if shard, err := strconv.Atoi(strings.TrimPrefix(m.Subject, s.settling.inbox)); err == nil {
			s.confirmed(shard)
		}
	})
	if err == nil {
		err = sub.SetPendingLimits(-1, -1)
	}
	if err != nil {
		return fmt.Errorf("subscribing to the confirms: %w", err)
	}
	s.loops.Go(s.extendHeld)
	return nil
}

// send tells a consumer what became of one of its deliveries.
func (s *session) send(d *held, answer string) error {
	if s.settling.unconfirmed.Add(1) == 1 {
		s.settling.confirmed.Store(time.Now().UnixNano()) // so far
	}
	shard := d.delivery.Shard
	s.settling.owe(shard)
	err := s.conn.PublishRequest(d.reply, s.settling.inbox+strconv.Itoa(shard), []byte(answer))
	if err != nil {
		s.settling.unconfirmed.Add(-1)
		s.settling.paid(shard)
	}
	return err
}

// owe counts a settle of the shard until it is confirmed.
func (g *settling) owe(shard int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shards[shard] == nil {
		g.shards[shard] = &owing{since: time.Now()}
	}
	g.shards[shard].settles++
}

// paid takes one of them off, and returns how many are left.
func (g *settling) paid(shard int) (left int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.shards[shard]
	if o == nil { // it was given up on
		return 0
	}
	o.since = time.Now()
	o.settles--
	if o.settles == 0 {
		delete(g.shards, shard)
	}
	return o.settles
}

// owed is how many settles of the shard the server has still to confirm. What
// it was told is on its disk only then: killed before that, it delivers the
// envelopes again. One that has confirmed none for the patience will not.
func (g *settling) owed(shard int, patience time.Duration) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.shards[shard]
	if o == nil {
		return 0
	}
	if time.Since(o.since) > patience {
		delete(g.shards, shard)
		return 0
	}
	return o.settles
}

// forgive forgets what is owed.
func (g *settling) forgive() {
	g.unconfirmed.Store(0)
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.shards)
}

func (s *session) confirmed(shard int) {
	if s.settling.paid(shard)%pokeEach == 0 {
		s.poke(shard)
	}
	s.settling.confirmed.Store(time.Now().UnixNano())
	switch s.settling.unconfirmed.Add(-1) {
	case -1: // one that was given up on
		s.settling.unconfirmed.Add(1)
	case 0:
		select {
		case s.settling.none <- struct{}{}:
		default: // nobody has heard of the last time
		}
	case window - 1:
		for _, sub := range s.all() {
			sub.poke()
		}
	}
}

// behind tells whether the server has much to catch up with. One that confirms
// nothing at all for a while has lost what it was told, with its leader.
func (s *session) behind() bool {
	if s.settling.unconfirmed.Load() < window {
		return false
	}
	if time.Since(time.Unix(0, s.settling.confirmed.Load())) > s.broker.timing.ackWait {
		s.settling.forgive()
		return false
	}
	return true
}

// settled waits until the server has confirmed all settles, and tells whether
// it did, in bounded time.
func (s *session) settled() bool {
	timeout := time.NewTimer(s.broker.timing.close)
	defer timeout.Stop()
	for s.settling.unconfirmed.Load() > 0 {
		if s.conn.IsClosed() {
			return false
		}
		select {
		case <-s.settling.none:
		case <-timeout.C:
			return false
		}
	}
	return true
}
