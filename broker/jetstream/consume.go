package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"async-data-processor/broker/conn"
	"async-data-processor/message"
)

// errCancelled: the server deleted the consumer, as it does with its stream.
var errCancelled = fmt.Errorf("%w: the server deleted it", conn.ErrCancelled)

// subscribe passes deliveries on until the intake is done or the subscription
// is lost. In the first case what was passed on can still be settled. It
// returns the pin that it had at the end.
func (b *Broker) subscribe(
	intake context.Context, s *session, shard, prefetch int, pin string, deliveries chan<- *message.Delivery,
) (string, error) {
	sub, err := s.open(intake, shard, prefetch, pin)
	if err != nil {
		if errors.Is(err, errMissing) {
			s.AskRepair() // the stream was deleted
		}
		return pin, b.target.explain(err)
	}
	b.conns.Subscribed(shard)
	err = sub.run(intake, deliveries)
	if err != nil {
		err = b.target.explain(err)
	}
	return sub.pin.id, err
}

// run is the subscription's loop.
func (sub *subscription) run(intake context.Context, deliveries chan<- *message.Delivery) error {
	tick := time.NewTicker(sub.interval / 4)
	defer tick.Stop()
	for {
		err := sub.receive()
		if err == nil {
			err = sub.failed()
		}
		if err == nil {
			err = sub.request()
		}
		if err != nil && !sub.session.Over() {
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
		case <-sub.session.Gone(): // which returns what is unsettled
			return sub.session.Cause()
		}
	}
}

// end stops the intake. What was not passed on is returned, and the pin given up, so
// that a standby takes over at once; both have reached the server then, if it
// answers.
func (sub *subscription) end() {
	s := sub.session
	timeout := time.NewTimer(s.broker.timing.Close)
	defer timeout.Stop()
	if sub.inboxSub.Drain() == nil {
		// The server sends nothing more once it has answered, and takes back
		// what it did not get rid of.
		select {
		case <-sub.drained:
		case <-s.Gone():
		case <-timeout.C:
		}
	}
	_ = sub.receive()
	for _, d := range sub.takeBackUnsent() {
		_ = s.send(d, nak)
	}
	if sub.pin.id != "" && !s.Over() && sub.unpin() == nil {
		sub.pin.set(s.conn, "")
	}
	_ = s.conn.FlushTimeout(s.broker.timing.Close) // until the server has read it
}

// unpin lets another consumer of the shard take over, if it is still this one's turn.
func (sub *subscription) unpin() error {
	s := sub.session
	ctx, cancel := context.WithTimeout(context.Background(), s.broker.timing.Close)
	defer cancel()
	stream, err := s.js.Stream(ctx, ShardStream)
	if err != nil {
		return err
	}
	c, err := stream.Consumer(ctx, consumerOf(sub.shard))
	if err != nil || pinOf(c.CachedInfo()) != sub.pin.id {
		return err
	}
	return stream.UnpinConsumer(ctx, consumerOf(sub.shard), group)
}
