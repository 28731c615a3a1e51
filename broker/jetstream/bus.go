package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"async-data-processor/broker/bus"
	"async-data-processor/broker/conn"
	"async-data-processor/event"
)

// The bus has a connection of its own, and core NATS alone: no stream keeps what is on
// it. Each key is a subject. An answer goes to an inbox of the connection that asks,
// which is among the subjects of the bus, so that a user needs no permission beside.
const (
	busPrefix   = "async-data-processor.bus."
	inboxPrefix = busPrefix + "inbox."
)

// What the client library keeps of a subject until it is handed on, which never waits.
const (
	busPending      = 1 << 16
	busPendingBytes = 16 << 20
)

// busConn carries the bus over a session. It implements bus.Wire.
type busConn struct {
	*session
	inbox string                         // the id of a question follows it
	subs  map[bus.Key]*nats.Subscription // of the goroutine that serves

	denied sync.Once // it was told that a subject is
}

// openBus subscribes to answers, checks that the user may use the bus, and begins to
// receive.
func (s *session) openBus() error {
	word := strings.TrimPrefix(s.conn.NewInbox(), nats.InboxPrefix) // that no other connection has
	b := &busConn{session: s, inbox: inboxPrefix + word + ".", subs: map[bus.Key]*nats.Subscription{}}
	_, err := b.subscribe(b.inbox+"*", b.answered)
	if err = errors.Join(err, s.conn.Publish(b.inbox+"check", nil), b.flush()); err != nil {
		return err
	}
	// The server tells of a subject that is denied before it answers the flush. Its text
	// is another one each time, and what is told once must be the same.
	if errors.Is(s.conn.LastError(), nats.ErrPermissionViolation) {
		return fmt.Errorf("%w: it needs to publish and subscribe %s>", nats.ErrPermissionViolation, busPrefix)
	}
	s.bus.Store(b)
	s.Loops.Go(func() {
		if err := s.broker.remote.Serve(b); err != nil {
			s.giveUp(err)
		}
	})
	return nil
}

// connectBus waits for the connection of the bus, as bus.NewRemote says.
func (b *Broker) connectBus(ctx context.Context) (bus.Wire, error) {
	b.conns.Bus.Start()
	s, err := b.conns.Bus.Await(ctx)
	if err != nil {
		return nil, err
	}
	return s.bus.Load(), nil
}

// deny tells, once, that the server does not take a subject of the bus. The others go
// on: a new connection would change nothing.
func (b *busConn) deny(err error) {
	b.denied.Do(func() {
		b.broker.conns.Send(event.Connection{State: event.Denied, Role: conn.Bus, Shard: -1, Err: b.broker.target.explain(err)})
	})
}

func (b *busConn) subscribe(subject string, handle nats.MsgHandler) (*nats.Subscription, error) {
	sub, err := b.conn.Subscribe(subject, handle)
	if err != nil {
		return nil, err
	}
	return sub, sub.SetPendingLimits(busPending, busPendingBytes)
}

func (b *busConn) flush() error { return b.conn.FlushTimeout(b.broker.timing.rpc) }

// answered takes an answer. The server's word that there is no listener is none.
func (b *busConn) answered(m *nats.Msg) {
	if m.Header.Get("Status") == "" {
		b.broker.remote.Answered(strings.TrimPrefix(m.Subject, b.inbox), m.Data)
	}
}

// Send implements bus.Wire.
func (b *busConn) Send(k bus.Key, id string, body []byte) error {
	msg := &nats.Msg{Subject: busPrefix + k.String(), Data: body}
	if k.Kind == bus.Ask {
		msg.Reply = b.inbox + id
	}
	if err := b.conn.PublishMsg(msg); err != nil {
		return b.broker.target.explain(err)
	}
	return nil
}

// Bind implements bus.Wire. When the server has answered, it sends what comes.
func (b *busConn) Bind(k bus.Key) error {
	sub, err := b.subscribe(busPrefix+k.String(), func(m *nats.Msg) { b.receive(k, m) })
	if err != nil {
		return err
	}
	b.subs[k] = sub
	return b.flush()
}

// Unbind implements bus.Wire.
func (b *busConn) Unbind(k bus.Key) error {
	sub := b.subs[k]
	delete(b.subs, k)
	return sub.Unsubscribe()
}

// receive takes what another process sent, or anyone who may use the broker.
func (b *busConn) receive(k bus.Key, m *nats.Msg) {
	// An answer goes to who asked and into no stream, whatever the address says.
	if k.Kind == bus.Ask && !strings.HasPrefix(m.Reply, inboxPrefix) {
		return
	}
	b.broker.remote.Deliver(k, m.Data, func(answer []byte) {
		_ = b.conn.Publish(m.Reply, answer) // who asks waits no longer than its time
	})
}
