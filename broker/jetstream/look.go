package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/broker/conn"
)

// errUndelivered: the server holds an envelope and will never deliver it.
var errUndelivered = errors.New("the server will not deliver it")

// lookout looks, at times, at what may change without a word of the server. Only the
// session's watch uses it.
type lookout struct {
	session *session
	last    time.Time
}

// look checks what an operator may have changed, or a crash of the server left.
// An answer that does not come is no reason to end the session.
func (l *lookout) look() {
	s := l.session
	l.last = time.Now()
	ctx, cancel := context.WithTimeout(s.broker.conns.Context(), s.broker.timing.rpc)
	defer cancel()
	if s.role == conn.Publish {
		if err := s.ensure(); conn.IsRefused(err, 0) {
			s.giveUp(err)
		}
		return
	}
	stream, err := s.js.Stream(ctx, ShardStream)
	if err != nil {
		return
	}
	consumers := map[string]*jetstream.ConsumerInfo{}
	list := stream.ListConsumers(ctx)
	for info := range list.Info() {
		consumers[info.Name] = info
	}
	// After the consumers, so that an envelope that is acknowledged meanwhile is not
	// among them.
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(subjectPrefix+"*"))
	if err != nil || list.Err() != nil {
		return
	}
	for _, sub := range s.subs.all() {
		if c := consumers[consumerOf(sub.shard)]; c != nil && c.Created.Equal(sub.created) {
			l.judge(ctx, sub, stream, c, info.State.Subjects[subjectOf(sub.shard)])
		}
	}
}

// due tells whether it is time to look: soon after a subscription began, since a
// server that was killed may have made its connection new, and then now and then.
func (l *lookout) due() bool {
	if time.Since(l.last) >= l.session.broker.timing.look {
		return true
	}
	soon := 3 * l.session.broker.timing.ackWait // what was handed out before has come again by then
	for _, sub := range l.session.subs.all() {
		if sub.looks < firstLooks && time.Since(sub.began) < soon || sub.stuck != 0 {
			return true
		}
	}
	return false
}

// firstLooks is how often a subscription is looked at closely. A look counts when what
// was handed out before the subscription is settled: what is stuck is behind it.
const firstLooks = 2

// judge looks at the server's consumer of a subscription, and at how many envelopes
// the stream has for it.
//
// A server that is killed between the fsync of an acknowledgement and that of the
// removal keeps the envelope, which nothing removes or delivers any more:
// nats-server sorts that out for interest retention only (checkForOrphanMsgs). It
// would come back as new when the consumer is made anew some day, and its messages
// be written twice if their ids are forgotten by then. So it has to come back now.
func (l *lookout) judge(
	ctx context.Context, sub *subscription, stream jetstream.Stream, c *jetstream.ConsumerInfo, envelopes uint64,
) {
	before := sub.stuck
	sub.stuck = 0
	if field := consumerConflict(c.Config, sub.broker.consumer(sub.shard)); field != "" {
		l.end(sub, otherConsumer(c.Name, field))
		return
	}
	known := c.NumPending + uint64(max(0, c.NumAckPending))
	if envelopes == 0 || envelopes <= known && sub.looks >= firstLooks && before == 0 {
		sub.looks++
		return
	}
	first, err := stream.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(subjectOf(sub.shard))) // from there on
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return // the next look asks again
	}
	if c.AckFloor.Stream >= sub.handedOut {
		sub.looks++
	}
	if err != nil || first.Sequence > c.AckFloor.Stream {
		return
	}
	if sub.stuck = first.Sequence; sub.stuck == before { // its removal was not just under way
		l.end(sub, fmt.Errorf("%w: envelope %d of the stream is acknowledged and was not removed; "+
			"making the consumer anew, which delivers it again", errUndelivered, first.Sequence))
	}
}

// end ends a subscription for a reason that the server does not tell by itself.
func (l *lookout) end(sub *subscription, err error) {
	sub.mu.Lock()
	sub.fault = err
	sub.mu.Unlock()
	sub.poke()
}

// failed returns why the subscription has to end. A consumer that does not deliver
// is deleted first; then it is made anew, and delivers all that is unacknowledged.
func (sub *subscription) failed() error {
	sub.mu.Lock()
	err := sub.fault
	sub.mu.Unlock()
	if !errors.Is(err, errUndelivered) {
		return err
	}
	s := sub.session
	ctx, cancel := context.WithTimeout(sub.broker.conns.Context(), sub.broker.timing.rpc)
	defer cancel()
	failed := s.js.DeleteConsumer(ctx, ShardStream, consumerOf(sub.shard))
	if failed != nil && !errors.Is(failed, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("%w: %w", err, failed)
	}
	return fmt.Errorf("%w: %w", errCancelled, err)
}
