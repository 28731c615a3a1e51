package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"
)

// bareBroker is a client that does nothing but publish one entry a message,
// persistent, mandatory and confirmed, to the contenders' queues, a channel for
// each, and that may consume them, too.
type bareBroker struct {
	url    string
	conns  int // that the publishing channels share
	window int // unconfirmed messages of a channel
	// prefetch is of a consumer, which acknowledges many at once; 0 is
	// without consumers.
	prefetch int

	published, consumed atomic.Int64

	ctx   context.Context
	fail  context.CancelCauseFunc
	loops sync.WaitGroup
	open  []*amqp.Connection
	room  chan struct{} // has a place for each message between publisher and consumer
}

// bareRoom keeps the publishers of a bareBroker that consumes from running away
// from its consumers: messages that pile up would not be measured.
const bareRoom = 20_000

// entry is what each message carries.
var entry = []byte(`{"timestamp":"2019-10-12T08:10:54.52Z","value":"reading 00001"}`)

func (b *bareBroker) start(ctx context.Context) error {
	b.ctx, b.fail = context.WithCancelCause(ctx)
	if b.prefetch > 0 {
		b.room = make(chan struct{}, bareRoom)
		if err := b.each(1, b.consume); err != nil {
			return err
		}
	}
	return b.each(b.conns, b.publish)
}

// each opens a channel for every queue on so many connections.
func (b *bareBroker) each(conns int, run func(ch *amqp.Channel, queue string) error) error {
	opened := make([]*amqp.Connection, conns)
	for i := range opened {
		var err error
		if opened[i], err = amqp.Dial(b.url); err != nil {
			return err
		}
		b.open = append(b.open, opened[i])
	}
	for i := range shardCount {
		ch, err := opened[i%conns].Channel()
		if err != nil {
			return err
		}
		if err := run(ch, queueName(bareQueues, i)); err != nil {
			return err
		}
	}
	return nil
}

// stop ends everything and returns why it had ended before, if it had.
func (b *bareBroker) stop() error {
	err := context.Cause(b.ctx)
	b.fail(nil)
	for _, c := range b.open {
		_ = c.Close()
	}
	b.loops.Wait()
	return err
}

func (b *bareBroker) publish(ch *amqp.Channel, queue string) error {
	if err := ch.Confirm(false); err != nil {
		return err
	}
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, b.window))
	returns := ch.NotifyReturn(make(chan amqp.Return, 1))
	window := make(chan struct{}, b.window)
	b.loops.Go(func() {
		for c := range confirms {
			if !c.Ack {
				b.fail(fmt.Errorf("%s refused a message", queue))
			}
			b.published.Add(1)
			<-window
		}
	})
	b.loops.Go(func() {
		for range returns {
			b.fail(errors.New(queue + " is missing"))
		}
	})
	b.loops.Go(func() {
		for {
			if !b.enter(window) || b.room != nil && !b.enter(b.room) {
				return
			}
			if err := ch.Publish("", queue, true, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: entry}); err != nil {
				b.fail(err)
				return
			}
		}
	})
	return nil
}

// enter takes a place; false if all is over.
func (b *bareBroker) enter(places chan<- struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	case <-b.ctx.Done():
		return false
	}
}

func (b *bareBroker) consume(ch *amqp.Channel, queue string) error {
	if err := ch.Qos(b.prefetch, 0, false); err != nil {
		return err
	}
	messages, err := ch.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	b.loops.Go(func() {
		unsettled := 0
		for m := range messages {
			select {
			case <-b.room:
			default: // another program's message
			}
			if unsettled++; unsettled < b.prefetch/4 {
				continue
			}
			if err := ch.Ack(m.DeliveryTag, true); err != nil {
				b.fail(err)
				return
			}
			b.consumed.Add(int64(unsettled))
			unsettled = 0
		}
	})
	return nil
}

// done is a counter of published messages, or of consumed ones.
func (b *bareBroker) done() (float64, error) {
	n := b.published.Load()
	if b.prefetch > 0 {
		n = b.consumed.Load()
	}
	return float64(n), context.Cause(b.ctx)
}

// measure runs a bareBroker with the settings of b for a while.
func (b *bareBroker) measure(ctx context.Context, l *lab) (sample, error) {
	r, err := l.broker()
	if err != nil {
		return sample{}, err
	}
	run := &bareBroker{url: r.url, conns: b.conns, window: b.window, prefetch: b.prefetch}
	if err := run.start(ctx); err != nil {
		return sample{}, errors.Join(err, run.stop())
	}
	s, err := l.rate(ctx, run.done, l.with(nil))
	return s, errors.Join(err, run.stop(), r.drop(bareQueues, shardCount))
}

func (b *bareBroker) String() string {
	text := fmt.Sprintf("bare broker, %d connections, windows of %d", b.conns, b.window)
	if b.prefetch > 0 {
		text += fmt.Sprintf(", prefetch %d, acknowledged by the %d", b.prefetch, b.prefetch/4)
	}
	return text
}

// setting is a contender as one of its candidates sets it.
type setting interface {
	measure(context.Context, *lab) (sample, error)
	String() string
}

// tune returns the candidate that is fastest here.
func tune[S setting](ctx context.Context, l *lab, candidates []S) (best S, err error) {
	if l.plan.tune == 0 {
		return candidates[0], nil
	}
	trial := *l
	trial.warm, trial.measure = l.plan.tune/2, l.plan.tune
	most := -1.0
	for _, c := range candidates {
		s, err := c.measure(ctx, &trial)
		if err != nil {
			return best, err
		}
		l.say("  %v: %s messages/s", c, number(s.value))
		if s.value > most {
			best, most = c, s.value
		}
	}
	return best, nil
}

// barePublisher returns the fastest publisher, found once in a run.
func (l *lab) barePublisher(ctx context.Context) (*bareBroker, error) {
	if l.bare != nil {
		return l.bare, nil
	}
	if _, err := l.broker(); err != nil { // trials share it
		return nil, err
	}
	var candidates []*bareBroker
	for _, conns := range []int{1, 2, 5} {
		for _, window := range []int{100, 400, 1600} {
			candidates = append(candidates, &bareBroker{conns: conns, window: window})
		}
	}
	var err error
	l.bare, err = tune(ctx, l, candidates)
	return l.bare, err
}

// bareConsumer returns the fastest publisher and consumer.
func (l *lab) bareConsumer(ctx context.Context) (*bareBroker, error) {
	publisher, err := l.barePublisher(ctx)
	if err != nil {
		return nil, err
	}
	var candidates []*bareBroker
	for _, window := range []int{publisher.window, 4 * publisher.window} {
		for _, prefetch := range []int{200, 1000, 4000} {
			candidates = append(candidates, &bareBroker{conns: publisher.conns, window: window, prefetch: prefetch})
		}
	}
	return tune(ctx, l, candidates)
}

// with adds RabbitMQ, if it is ours, to processes by name.
func (l *lab) with(pids map[string]int) map[string]int {
	if l.rabbit != nil && l.rabbit.pid != 0 {
		if pids == nil {
			pids = make(map[string]int)
		}
		pids["RabbitMQ"] = l.rabbit.pid
	}
	return pids
}
