package jetstream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// errCancelled: the server deleted the consumer, as it does with its stream.
var errCancelled = errors.New("the server deleted the consumer")

// Consume implements broker.Broker. Any shard may be consumed, also one beyond
// Config.Shards, which an earlier, larger number of shards has left.
func (b *Broker) Consume(ctx context.Context, shard, prefetch int, deliveries chan<- *message.Delivery) error {
	if shard < 0 {
		return fmt.Errorf("there is no shard %d", shard)
	}
	if prefetch < 1 || prefetch > math.MaxUint16 {
		return fmt.Errorf("prefetch: want 1 to %d, got %d", math.MaxUint16, prefetch)
	}
	if !b.enter() {
		return broker.ErrClosed
	}
	defer b.calls.Done()
	defer b.fault(shard, nil)
	b.consume()

	intake, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.ctx, cancel)()
	// The pin outlives the connection, so a consumer that is back at once goes
	// on without waiting for its own pin to expire.
	var pin string
	for failures := 0; ; failures++ {
		s, err := b.consuming.await(intake)
		if err == nil {
			began := time.Now()
			pin, err = b.subscribe(intake, s, shard, prefetch, pin, deliveries)
			if time.Since(began) > b.timing.maxDelay {
				failures = 0
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case b.ctx.Err() != nil:
			return broker.ErrClosed
		case s.over():
			// Its link tells, and waits before the next one.
			select {
			case <-s.gone:
			case <-intake.Done():
			}
			continue
		}
		delay := b.timing.delay(failures, err)
		b.fault(shard, err)
		b.notify(broker.Notice{Kind: noticeOf(err), Role: b.consuming.role, Shard: shard, Err: err, Retry: delay})
		select {
		case <-time.After(delay):
		case <-intake.Done():
		}
	}
}

func noticeOf(err error) broker.NoticeKind {
	if errors.Is(err, errCancelled) {
		return broker.Resubscribed
	}
	return broker.Lost
}

// subscribe passes deliveries on until the intake is done or the subscription
// is lost. In the first case what was passed on can still be settled. It
// returns the pin that it had at the end.
func (b *Broker) subscribe(
	intake context.Context, s *session, shard, prefetch int, pin string, deliveries chan<- *message.Delivery,
) (string, error) {
	sub, err := s.open(intake, shard, prefetch, pin)
	if err != nil {
		if errors.Is(err, errMissing) {
			s.askRepair() // the stream was deleted
		}
		return pin, b.target.explain(err)
	}
	b.fault(shard, nil)
	err = sub.run(intake, deliveries)
	if err != nil {
		err = b.target.explain(err)
	}
	return sub.pin, err
}

// run is the subscription's loop.
func (sub *subscription) run(intake context.Context, deliveries chan<- *message.Delivery) error {
	tick := time.NewTicker(sub.interval / 4)
	defer tick.Stop()
	for {
		err := sub.receive()
		if err == nil {
			err = sub.request()
		}
		if err != nil && !sub.session.over() {
			sub.cancel(errors.Is(err, errCancelled))
			return err
		}
		out := deliveries
		next := sub.offer()
		if next == nil {
			out = nil
		}
		select {
		case out <- next:
			sub.passed()
		case <-sub.wake:
		case <-tick.C:
		case <-intake.Done():
			sub.end()
			return nil
		case <-sub.session.gone: // its link returns what is unsettled
			return sub.session.cause
		}
	}
}

// end stops the intake. What nobody got is returned, and the pin given up, so
// that a standby takes over at once; both have reached the server then, if it
// answers.
func (sub *subscription) end() {
	s := sub.session
	timeout := time.NewTimer(s.broker.timing.close)
	defer timeout.Stop()
	if sub.inboxSub.Drain() == nil {
		// The server sends nothing more once it has answered, and takes back
		// what it did not get rid of.
		select {
		case <-sub.drained:
		case <-s.gone:
		case <-timeout.C:
		}
	}
	_ = sub.receive()
	for _, d := range sub.withdraw() {
		_ = s.send(d, nak)
	}
	if sub.pin != "" && !s.over() {
		sub.unpin()
		sub.pin = ""
	}
	_ = s.flush()
}

// unpin lets another consumer of the shard take over, if it is still this one's turn.
func (sub *subscription) unpin() {
	s := sub.session
	ctx, cancel := context.WithTimeout(context.Background(), s.broker.timing.close)
	defer cancel()
	stream, err := s.js.Stream(ctx, ShardStream)
	if err != nil {
		return
	}
	c, err := stream.Consumer(ctx, consumerOf(sub.shard))
	if err != nil {
		return
	}
	for _, g := range c.CachedInfo().PriorityGroups {
		if g.Group == group && g.PinnedClientID == sub.pin {
			_ = stream.UnpinConsumer(ctx, consumerOf(sub.shard), group)
		}
	}
}
