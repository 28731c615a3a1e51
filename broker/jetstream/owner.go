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
func ownerSubject(id string) string { return "_INBOX." + id + ownerSuffix }

const ownerSuffix = ".async-data-processor"

// pin is the server's name for a client while that is the active one of a consumer.
type pin struct {
	id    string             // empty for none
	owner *nats.Subscription // shows that it is there; nil without an id
}

// set notes the id that the server has given, or that there is none.
func (p *pin) set(c *nats.Conn, id string) {
	if id == p.id {
		return
	}
	p.hide()
	if p.id = id; id != "" {
		p.owner, _ = c.Subscribe(ownerSubject(id), func(*nats.Msg) {})
	}
}

// hide ends the subscription that shows the client.
func (p *pin) hide() {
	if p.owner != nil {
		_ = p.owner.Unsubscribe()
		p.owner = nil
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

// takeover takes a shard from a client that is not this one and whose connection is
// gone. The server would keep its place, and what it held, for some seconds.
type takeover struct {
	session *session
	shard   int
}

// try does that, if the pin in info is not this client's own.
func (t takeover) try(ctx context.Context, info *jetstream.ConsumerInfo, own string) error {
	s := t.session
	id := pinOf(info)
	if id == "" || id == own || !t.gone(ctx, id) {
		return nil
	}
	// A client that has got its pin just now subscribes within this time, also by
	// way of another server.
	select {
	case <-time.After(s.broker.timing.gone):
	case <-ctx.Done():
		return ctx.Err()
	}
	if !t.gone(ctx, id) {
		return nil
	}
	stream, err := s.js.Stream(ctx, ShardStream)
	if err != nil {
		return err
	}
	c, err := stream.Consumer(ctx, consumerOf(t.shard))
	if err != nil || pinOf(c.CachedInfo()) != id {
		return err
	}
	if err := t.returnAll(ctx, stream, c.CachedInfo()); err != nil {
		return err
	}
	return stream.UnpinConsumer(ctx, consumerOf(t.shard), group)
}

// gone tells whether the client with the pin has no connection.
func (t takeover) gone(ctx context.Context, id string) bool {
	ctx, cancel := context.WithTimeout(ctx, t.session.broker.timing.gone)
	defer cancel()
	_, err := t.session.conn.RequestWithContext(ctx, ownerSubject(id), nil)
	return errors.Is(err, nats.ErrNoResponders)
}

// returnAll returns what a consumer has handed out. The server counts that as it
// counts any return. The subjects are those of the deliveries
// (docs.nats.io, "JetStream wire API"); of one that is not handed out, the server
// ignores the return.
func (t takeover) returnAll(ctx context.Context, stream jetstream.Stream, info *jetstream.ConsumerInfo) error {
	next := info.AckFloor.Stream + 1
	for range info.NumAckPending {
		m, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(subjectOf(t.shard)))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if m.Sequence > info.Delivered.Stream {
			return nil
		}
		reply := fmt.Sprintf("$JS.ACK.%s.%s.1.%d.%d.0.0", ShardStream, consumerOf(t.shard), m.Sequence, info.Delivered.Consumer)
		if err := t.session.conn.Publish(reply, []byte(nak)); err != nil {
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
