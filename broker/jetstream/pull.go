package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/message"
)

// subscription is a consumer of one shard on one connection. Its deliveries
// are settled there or nowhere.
//
// It asks the server itself for envelopes, never for more than may be
// unsettled. The library's own iterators fetch ahead into a buffer whose
// content can neither be extended nor returned.
type subscription struct {
	broker   *Broker
	session  *session
	shard    int
	prefetch int
	created  time.Time // of the server's consumer: another one has other deliveries
	began    time.Time
	// handedOut is the last envelope that was handed out before, by its number in the stream.
	handedOut uint64
	interval  time.Duration // after which a pull request ends
	inbox     string        // where pull requests are answered, up to their kind
	inboxSub  *nats.Subscription
	drained   chan struct{} // closed when the subscription to the inbox has ended
	wake      chan struct{} // of one: something has changed

	// Only used by the subscription's loop.
	pin     pin
	asked   int       // how many envelopes pull requests still ask for
	askedAt time.Time // when the latest was sent
	pause   time.Time // no pull request before

	// Only used by the session's watch.
	looks int    // how often it was looked at
	stuck uint64 // the envelope that seems to be stuck, by its number in the stream

	mu       sync.Mutex // guards what follows
	fault    error      // why it has to end
	incoming []*nats.Msg
	unacked  map[uint64]*unacked // by stream sequence; nil when stale
	waiting  []*unacked          // those of them that were not passed on, in order
	passedOn int                 // how many were, or the next one is being offered
	ended    bool                // nothing will be added to unacked
}

// unacked is a delivery that is neither settled nor stale.
type unacked struct {
	msg      *nats.Msg
	reply    string // where it is settled; guarded by the subscription's lock
	sequence uint64 // in the stream
	stored   time.Time
	delivery *message.Delivery
	passedOn bool // guarded by the subscription's lock
}

// Kinds of pull requests, at the end of their inbox.
const (
	fetching = "f"
	keeping  = "k"
)

// errMissing: the stream of a consumer is not there.
var errMissing = errors.New("the stream is missing")

// open subscribes to a shard, its consumer made if it is missing.
func (s *session) open(ctx context.Context, shard, prefetch int, own string) (*subscription, error) {
	b := s.broker
	// The server makes one consumer after the other, and syncs each.
	select {
	case s.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-s.Gone():
		return nil, s.Cause()
	}
	ctx, cancel := context.WithTimeout(ctx, b.timing.rpc)
	defer cancel()
	info, err := s.ensureConsumer(ctx, shard)
	<-s.turns
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("%w: %w", errMissing, err)
	}
	if err != nil {
		return nil, err
	}
	s.returnLost(shard, info.Created)
	_ = takeover{s, shard}.try(ctx, info, own) // else the server's patience has to pass
	sub := &subscription{
		broker: b, session: s, shard: shard, prefetch: prefetch,
		created: info.Created,
		began:   time.Now(), handedOut: info.Delivered.Stream,
		interval: min(b.timing.pull, info.Config.PinnedTTL/3),
		inbox:    s.conn.NewInbox() + ".",
		drained:  make(chan struct{}),
		wake:     make(chan struct{}, 1),
		unacked:  map[uint64]*unacked{},
	}
	if sub.handedOut == 0 {
		sub.looks = firstLooks // nothing of it can be stuck
	}
	sub.inboxSub, err = s.conn.Subscribe(sub.inbox+"*", func(m *nats.Msg) {
		sub.mu.Lock()
		sub.incoming = append(sub.incoming, m)
		sub.mu.Unlock()
		sub.poke()
	})
	if err == nil {
		err = sub.inboxSub.SetPendingLimits(-1, -1) // what is asked for is bounded
	}
	if err != nil {
		return nil, fmt.Errorf("subscribing to shard %d: %w", shard, err)
	}
	var once sync.Once
	sub.inboxSub.SetClosedHandler(func(string) { once.Do(func() { close(sub.drained) }) })
	if !s.subs.register(sub) {
		return nil, s.Cause()
	}
	sub.pin.set(s.conn, own)
	return sub, nil
}

func (sub *subscription) poke() {
	select {
	case sub.wake <- struct{}{}:
	default: // it is awake already
	}
}

// request asks for as many envelopes as may still become unsettled. While
// there is no room it only reports, so that the server keeps the pin.
func (sub *subscription) request() error {
	now := time.Now()
	if now.Before(sub.pause) {
		return nil
	}
	sub.mu.Lock()
	unsettled := len(sub.unacked)
	sub.mu.Unlock()
	// What a crash of the server brings back has to be known as written, so it
	// must not be more than the prefetch says.
	unsettled += sub.session.settling.pending(sub.shard, sub.broker.timing.ackWait)
	silent := now.Sub(sub.askedAt)
	if sub.asked > 0 && silent > sub.interval+sub.interval/2 {
		// The request has ended without a word: the server has forgotten it.
		sub.asked = 0
		if err := sub.check(); err != nil {
			return err
		}
	}
	want := sub.prefetch - unsettled - sub.asked
	switch {
	case want > 0 && (sub.asked == 0 || want >= (sub.prefetch+1)/2) && !sub.session.settling.behind(sub.broker.timing.ackWait):
		sub.asked += want
		return sub.pull(fetching, pullRequest{Batch: want, Expires: sub.interval})
	case sub.asked == 0 && sub.pin.id != "" && silent >= sub.interval:
		// No envelope is so small.
		return sub.pull(keeping, pullRequest{Batch: 1, MaxBytes: 1, Expires: sub.interval / 4})
	default:
		return nil
	}
}

// pullRequest asks a consumer for messages (docs.nats.io, "JetStream wire API").
type pullRequest struct {
	Batch    int           `json:"batch"`
	MaxBytes int           `json:"max_bytes,omitempty"`
	Expires  time.Duration `json:"expires"`
	Group    string        `json:"group"`
	Pin      string        `json:"id,omitempty"`
}

func (sub *subscription) pull(kind string, r pullRequest) error {
	sub.askedAt = time.Now()
	r.Group, r.Pin = group, sub.pin.id
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	subject := "$JS.API.CONSUMER.MSG.NEXT." + ShardStream + "." + consumerOf(sub.shard)
	if err := sub.session.conn.PublishRequest(subject, sub.inbox+kind, body); err != nil {
		return fmt.Errorf("asking for envelopes: %w", err)
	}
	return nil
}

// check asks whether the server's consumer is still the one subscribed to.
func (sub *subscription) check() error {
	s := sub.session
	ctx, cancel := context.WithTimeout(sub.broker.conns.Context(), sub.broker.timing.rpc)
	defer cancel()
	c, err := s.js.Consumer(ctx, ShardStream, consumerOf(sub.shard))
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound), errors.Is(err, jetstream.ErrStreamNotFound):
		return errCancelled
	case err != nil:
		return fmt.Errorf("looking for the consumer: %w", err)
	case !c.CachedInfo().Created.Equal(sub.created):
		return errCancelled
	default:
		return nil
	}
}

// receive takes in what the server has sent.
func (sub *subscription) receive() error {
	sub.mu.Lock()
	incoming := sub.incoming
	sub.incoming = nil
	sub.mu.Unlock()
	for _, m := range incoming {
		if kind, ok := strings.CutPrefix(m.Subject, sub.inbox); ok {
			if err := sub.status(m, kind); err != nil {
				return err
			}
			continue
		}
		sub.take(m)
	}
	return nil
}

// status hears why a pull request ended (nats-server/server/consumer.go).
func (sub *subscription) status(m *nats.Msg, kind string) error {
	code, text := m.Header.Get("Status"), m.Header.Get("Description")
	left, err := strconv.Atoi(m.Header.Get("Nats-Pending-Messages"))
	switch {
	case code == "423":
		// Another consumer is the active one, or a restarted server has
		// forgotten who was.
		sub.pin.set(sub.session.conn, "")
		sub.asked = 0
	case code == "409" && text == "Consumer Deleted":
		return errCancelled
	case code == "400":
		return fmt.Errorf("the server refuses the pull request: %s", text)
	case kind == keeping:
	case err == nil:
		sub.asked = max(0, sub.asked-left) // it expired
	default:
		// No leader, or a new one, or a server that is about to stop.
		sub.asked = 0
		sub.pause = time.Now().Add(sub.broker.timing.Min)
		if code == noResponders {
			return sub.check()
		}
	}
	return nil
}
