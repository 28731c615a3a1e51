package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ownerSubject is where the client with the pin listens and says nothing. While its
// connection is up the server knows a subscriber there, and tells when there is none.
// Each client may subscribe to an inbox; another subject might need a permission.
func ownerSubject(pin string) string { return "_INBOX." + pin + ownerSuffix }

const ownerSuffix = ".async-data-processor"

// setPin notes the pin that the server has given, or that there is none.
func (sub *subscription) setPin(pin string) {
	if pin == sub.pin {
		return
	}
	if sub.owner != nil {
		_ = sub.owner.Unsubscribe()
		sub.owner = nil
	}
	if sub.pin = pin; pin != "" {
		sub.owner, _ = sub.session.conn.Subscribe(ownerSubject(pin), func(*nats.Msg) {})
	}
}

// pinOf is the pin of the client that gets the envelopes of a consumer, if any.
func pinOf(info *jetstream.ConsumerInfo) string {
	for _, g := range info.PriorityGroups {
		if g.Group == group {
			return g.PinnedClientID
		}
	}
	return ""
}

// takeOver takes a shard from a client that is not this one and whose connection is
// gone. The server would keep its place, and what it held, for some seconds.
func (s *session) takeOver(ctx context.Context, shard int, info *jetstream.ConsumerInfo, own string) error {
	pin := pinOf(info)
	if pin == "" || pin == own {
		return nil
	}
	// A client that has got its pin just now subscribes within this time, also by
	// way of another server.
	for pause := s.broker.timing.gone; ; pause = 0 {
		if !s.gone(ctx, pin) {
			return nil
		}
		if pause == 0 {
			break
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	stream, err := s.js.Stream(ctx, ShardStream)
	if err != nil {
		return err
	}
	c, err := stream.Consumer(ctx, consumerOf(shard))
	if err != nil {
		return err
	}
	if info = c.CachedInfo(); pinOf(info) != pin {
		return nil
	}
	if err := s.returnAll(ctx, stream, shard, info); err != nil {
		return err
	}
	return stream.UnpinConsumer(ctx, consumerOf(shard), group)
}

// gone tells whether the client with the pin has no connection.
func (s *session) gone(ctx context.Context, pin string) bool {
	ctx, cancel := context.WithTimeout(ctx, s.broker.timing.gone)
	defer cancel()
	_, err := s.conn.RequestWithContext(ctx, ownerSubject(pin), nil)
	return errors.Is(err, nats.ErrNoResponders)
}

// returnAll returns what a consumer has handed out. The server counts that as it
// counts any return. The subjects are those of the deliveries
// (docs.nats.io, "JetStream wire API"); of one that is not handed out, the server
// ignores the return.
func (s *session) returnAll(ctx context.Context, stream jetstream.Stream, shard int, info *jetstream.ConsumerInfo) error {
	next := info.AckFloor.Stream + 1
	for range info.NumAckPending {
		m, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(subjectOf(shard)))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if m.Sequence > info.Delivered.Stream {
			return nil
		}
		reply := fmt.Sprintf("$JS.ACK.%s.%s.1.%d.%d.0.0", ShardStream, consumerOf(shard), m.Sequence, info.Delivered.Consumer)
		if err := s.conn.Publish(reply, []byte(nak)); err != nil {
			return err
		}
		next = m.Sequence + 1
	}
	return nil
}

// harmless tells whether an error is that a client may not ask for another one,
// which then is taken to be there. The server names the subject in the text only.
func harmless(err error) bool {
	return errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), ownerSuffix)
}
