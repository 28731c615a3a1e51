package rabbitmq

import (
	"cmp"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker/conn"
	"async-data-processor/event"
)

// session is one connection and everything that ends with it.
type session struct {
	*conn.Life
	broker *Broker
	role   string
	conn   *amqp.Connection
	sock   *socket

	// One of them, by the role, is ready after Prepare.
	confirms *confirmChannel
	settling settling
	bus      *busChannels

	lost    chan *amqp.Error       // the library's word that the connection ended
	blocks  chan amqp.Blocking     // the broker's word about publishing
	blocked atomic.Pointer[string] // why it refuses publishes, or nil
}

func newSession(b *Broker, role string, c *amqp.Connection, sock *socket) *session {
	return &session{
		Life: conn.NewLife(), broker: b, role: role, conn: c, sock: sock,
		lost:   c.NotifyClose(make(chan *amqp.Error, 1)),
		blocks: c.NotifyBlocked(make(chan amqp.Blocking, 16)),
	}
}

// Prepare implements conn.Session.
func (s *session) Prepare() error {
	if err := s.prepare(); err != nil {
		return s.broker.target.explain(err)
	}
	s.Loops.Go(s.watch)
	if s.role == conn.Publish {
		s.Loops.Go(s.watchPolicies)
	}
	return nil
}

func (s *session) prepare() error {
	if s.role == conn.Bus {
		return s.openBus() // it needs no queue of a shard
	}
	if err := s.declareAll(); err != nil {
		return err
	}
	if s.role == conn.Publish {
		if err := s.checkPolicies(); err != nil {
			return err
		}
		return s.openConfirms()
	}
	s.openSettling()
	return nil
}

// Over implements conn.Session.
func (s *session) Over() bool { return s.Ended() || s.conn.IsClosed() }

// Cut implements conn.Session.
func (s *session) Cut() { _ = s.sock.Close() }

// Leave implements conn.Session. The library's own deadline cannot be relied on:
// each frame that arrives resets it.
func (s *session) Leave() {
	s.acknowledge()
	_ = s.conn.Close()
}

// giveUp ends the session for a reason that is not explained yet.
func (s *session) giveUp(err error) { s.Fail(s.broker.target.explain(err)) }

// watch hears of the connection until the session ends.
func (s *session) watch() {
	var repair <-chan time.Time
	for {
		select {
		case e := <-s.lost:
			s.giveUp(cmp.Or(e, amqp.ErrClosed))
		case b := <-s.blocks:
			s.block(b)
		case <-s.Repair():
			if repair == nil {
				repair = time.After(s.broker.timing.repair)
			}
		case <-repair:
			repair = nil
			s.confirms.lost() // what is returned was published here
			if err := s.declareAll(); err != nil {
				s.giveUp(err)
			}
		case <-s.Gone():
			return
		}
	}
}

func (s *session) block(b amqp.Blocking) {
	e := event.Connection{State: event.Unblocked, Role: s.role, Shard: -1}
	if b.Active {
		s.blocked.Store(&b.Reason)
		e.State, e.Err = event.Blocked, errors.New(b.Reason)
	} else if s.blocked.Swap(nil) == nil {
		return
	}
	s.broker.conns.Send(e)
}

// refusesPublish is an error while the broker takes no publish.
func (s *session) refusesPublish() error {
	if reason := s.blocked.Load(); reason != nil {
		return fmt.Errorf("the broker blocks publishing, waiting until it takes publishes again: %s", *reason)
	}
	return nil
}

// channel opens a channel.
func (s *session) channel() (ch *amqp.Channel, err error) {
	err = s.rpc(func() error {
		ch, err = s.conn.Channel()
		return err
	})
	return ch, err
}

// rpc bounds a call that waits for the broker's answer, for which the library
// knows no bound. A broker that does not answer loses the connection.
func (s *session) rpc(call func() error) error {
	force := time.AfterFunc(s.broker.timing.rpc, func() { _ = s.sock.Close() })
	defer force.Stop()
	return call()
}
