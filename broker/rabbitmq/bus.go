package rabbitmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker/bus"
	"async-data-processor/broker/conn"
)

// The bus has a connection of its own. All that a process tells or asks goes to one
// exchange, under its key. What a process receives is bound to its own queue, which ends
// with the connection. Answers come by direct reply-to
// (rabbitmq.com/docs/direct-reply-to), which needs no queue.
//
// There are two channels, because the library sends a call between the frames of a message
// that is published on the same channel at the same time; the broker then ends the connection.
const (
	busExchange = "async-data-processor.bus"
	// replyTo names the answers to a channel; the broker makes an address of it.
	replyTo       = "amq.rabbitmq.reply-to"
	replyToPrefix = replyTo + "."
	// checkPrefix and the name of a process's queue make a key that only it receives.
	checkPrefix = "check."
)

// busQueue bounds what waits for a process that does not read. The queue is anonymous
// and ends with the connection, so these may change.
var busQueue = amqp.Table{
	"x-max-length":        int64(1000),
	"x-max-length-bytes":  int64(16 << 20),
	amqp.QueueOverflowArg: amqp.QueueOverflowDropHead,
}

// busChannels carry the bus over a session. They implement bus.Wire.
//
// They send a message to themselves now and then, which comes back if the exchange and the
// bindings are there: when an exchange is deleted, the broker removes its bindings and
// tells no client. If it does not come back, the session ends and the next one makes all anew.
type busChannels struct {
	*session
	remote *bus.Remote
	calls  *amqp.Channel // has the queue; nothing is published on it
	sends  *amqp.Channel // publishes, and gets the answers; no call while it may publish
	queue  string

	told, answers <-chan amqp.Delivery
	closed        [2]chan *amqp.Error
	cancelled     chan string
	returned      chan amqp.Return

	checked time.Time // when a check began that is not over; of one goroutine
}

// openBus opens the channels of the bus and begins to receive.
func (s *session) openBus() error {
	calls, err := s.channel()
	if err != nil {
		return err
	}
	sends, err := s.channel()
	if err != nil {
		return err
	}
	b := &busChannels{
		session: s, remote: s.broker.remote, calls: calls, sends: sends,
		closed:    [2]chan *amqp.Error{calls.NotifyClose(make(chan *amqp.Error, 1)), sends.NotifyClose(make(chan *amqp.Error, 1))},
		cancelled: calls.NotifyCancel(make(chan string, 2)),
		returned:  sends.NotifyReturn(make(chan amqp.Return, 1)),
	}
	if err := s.rpc(b.declare); err != nil {
		return err
	}
	if err := b.awaitCheck(); err != nil {
		return err
	}
	s.bus = b
	s.Loops.Go(b.run)
	s.Loops.Go(func() {
		if err := b.remote.Serve(b); err != nil {
			s.giveUp(err)
		}
	})
	return nil
}

func (b *busChannels) declare() error {
	if err := b.calls.ExchangeDeclare(busExchange, amqp.ExchangeTopic, true, false, false, false, nil); err != nil {
		if e, ok := errors.AsType[*amqp.Error](err); ok && e.Server && e.Code == amqp.PreconditionFailed {
			err = conn.Refused(fmt.Errorf("it exists with other arguments, delete it: %s", e.Reason))
		}
		return fmt.Errorf("declaring the exchange %s: %w", busExchange, err)
	}
	q, err := b.calls.QueueDeclare("", false, true, true, false, busQueue)
	if err != nil {
		return fmt.Errorf("declaring the queue of the bus: %w", err)
	}
	b.queue = q.Name
	if err := b.calls.QueueBind(b.queue, checkPrefix+b.queue, busExchange, false, nil); err != nil {
		return fmt.Errorf("binding the queue of the bus: %w", err)
	}
	if b.told, err = b.calls.Consume(b.queue, "", true, true, false, false, nil); err == nil {
		b.answers, err = b.sends.Consume(replyTo, "", true, false, false, false, nil)
	}
	if err != nil {
		return fmt.Errorf("consuming the queue of the bus: %w", err)
	}
	return nil
}

// connectBus waits for the connection of the bus, as bus.NewRemote says.
func (b *Broker) connectBus(ctx context.Context) (bus.Wire, error) {
	b.conns.Bus.Start()
	s, err := b.conns.Bus.Await(ctx)
	if err != nil {
		return nil, err
	}
	return s.bus, nil
}

// awaitCheck sends the first check and waits for it.
func (b *busChannels) awaitCheck() error {
	if err := b.check(); err != nil {
		return err
	}
	late := time.NewTimer(b.broker.timing.rpc)
	defer late.Stop()
	for !b.checked.IsZero() {
		if err := b.next(late.C); err != nil {
			return err
		}
	}
	return nil
}

// run receives until the session ends.
func (b *busChannels) run() {
	tick := time.NewTicker(b.broker.timing.check)
	defer tick.Stop()
	for !b.Ended() {
		if err := b.next(tick.C); err != nil {
			b.giveUp(err)
			return
		}
	}
}

var errNotReturned = errors.New("what the process sent to itself over the bus did not come back")

// next handles one thing that happens. due receives when it is time for a check; the
// one before has to be over.
func (b *busChannels) next(due <-chan time.Time) error {
	select {
	case m, ok := <-b.told:
		if !ok {
			b.told = nil // closed tells why
			return nil
		}
		b.receive(&m)
	case m, ok := <-b.answers:
		if !ok {
			b.answers = nil
			return nil
		}
		b.remote.Answered(m.CorrelationId, m.Body)
	case <-b.returned:
		return errors.New("the exchange of the bus was deleted and made again, its bindings are lost")
	case <-b.cancelled:
		return errors.New("the queue of the bus was deleted")
	case e := <-b.closed[0]:
		return cmp.Or(e, amqp.ErrClosed) // nothing is told if the process did it
	case e := <-b.closed[1]:
		return cmp.Or(e, amqp.ErrClosed)
	case <-due:
		if !b.checked.IsZero() {
			return errNotReturned
		}
		return b.check()
	case <-b.Gone():
	}
	return nil
}

// check sends a message that only this process receives. While the broker blocks
// publishing, it would not come back.
func (b *busChannels) check() error {
	if b.refusesPublish() != nil {
		return nil
	}
	b.checked = time.Now()
	return b.sends.Publish(busExchange, checkPrefix+b.queue, true, false, amqp.Publishing{})
}

// receive takes what another process sent, or anyone who may use the broker.
func (b *busChannels) receive(m *amqp.Delivery) {
	if m.RoutingKey == checkPrefix+b.queue {
		b.checked = time.Time{}
		return
	}
	k, ok := bus.ParseKey(m.RoutingKey)
	if !ok {
		return
	}
	// An answer goes to who asked and to no queue, whatever the address says.
	if k.Kind == bus.Ask && !strings.HasPrefix(m.ReplyTo, replyToPrefix) {
		return
	}
	to, id := m.ReplyTo, m.CorrelationId
	b.remote.Deliver(k, m.Body, func(answer []byte) {
		_ = b.publish("", to, amqp.Publishing{CorrelationId: id, Body: answer}) // who asks waits no longer than its time
	})
}

// Send implements bus.Wire.
func (b *busChannels) Send(k bus.Key, id string, body []byte) error {
	msg := amqp.Publishing{Body: body}
	if k.Kind == bus.Ask {
		msg.ReplyTo, msg.CorrelationId = replyTo, id
	}
	return b.publish(busExchange, k.String(), msg)
}

func (b *busChannels) publish(exchange, key string, msg amqp.Publishing) error {
	if err := b.refusesPublish(); err != nil {
		return err
	}
	if err := b.sends.Publish(exchange, key, false, false, msg); err != nil {
		return b.broker.target.explain(err)
	}
	return nil
}

// Bind implements bus.Wire.
func (b *busChannels) Bind(k bus.Key) error {
	return b.rpc(func() error { return b.calls.QueueBind(b.queue, k.String(), busExchange, false, nil) })
}

// Unbind implements bus.Wire.
func (b *busChannels) Unbind(k bus.Key) error {
	return b.rpc(func() error { return b.calls.QueueUnbind(b.queue, k.String(), busExchange, nil) })
}
