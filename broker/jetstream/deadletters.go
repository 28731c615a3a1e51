package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// DeadLetters implements broker.Broker. It reads the stream by its sequence
// and holds nothing, so others see the same at the same time; a dead letter
// that is replayed twice is stored once.
func (b *Broker) DeadLetters(ctx context.Context, decide func(broker.DeadLetter) broker.Verdict) error {
	return b.conns.With(ctx, b.conns.Publishing, func(ctx context.Context, s *session) error {
		return b.eachDeadLetter(ctx, s, decide)
	})
}

func (b *Broker) eachDeadLetter(ctx context.Context, s *session, decide func(broker.DeadLetter) broker.Verdict) error {
	stream, err := s.js.Stream(ctx, DeadStream)
	if err != nil {
		return b.target.explain(clarified(fmt.Errorf("the stream %s: %w", DeadStream, err)))
	}
	last := stream.CachedInfo().State.LastSeq
	for sequence := uint64(1); sequence <= last; sequence++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		// The first one from there on: what was removed leaves gaps.
		m, err := stream.GetMsg(ctx, sequence, jetstream.WithGetMsgSubject(deadSubject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return b.target.explain(fmt.Errorf("reading the stream %s: %w", DeadStream, err))
		}
		if sequence = m.Sequence; sequence > last {
			return nil
		}
		if err := b.apply(ctx, stream, m, decide(letterOf(m))); err != nil {
			return err
		}
	}
	return nil
}

// apply does what was decided on a dead letter.
func (b *Broker) apply(ctx context.Context, stream jetstream.Stream, m *jetstream.RawStreamMsg, verdict broker.Verdict) error {
	if verdict == broker.Keep {
		return nil
	}
	if verdict == broker.Replay {
		if err := b.replay(ctx, m); err != nil {
			return err
		}
	}
	err := stream.DeleteMsg(ctx, m.Sequence)
	if errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		_, gone := stream.GetMsg(ctx, m.Sequence)
		if errors.Is(gone, jetstream.ErrMsgNotFound) {
			return nil // another process has removed it
		}
	}
	if err != nil {
		return b.target.explain(fmt.Errorf("removing from the stream %s: %w", DeadStream, err))
	}
	return nil
}

// replay publishes a dead letter to the subject of its shard as it once came
// there, but for the id by which the stream knows a retried publish: the
// stream may still remember the original one.
func (b *Broker) replay(ctx context.Context, m *jetstream.RawStreamMsg) error {
	shard := shardOfSubject(m.Header.Get(subjectHeader))
	if shard < 0 {
		return broker.ErrNoOrigin
	}
	header := nats.Header{
		// One dead letter is replayed once, however often it is tried.
		jetstream.MsgIDHeader: {fmt.Sprintf("%s%d.%d", replayPrefix, m.Sequence, m.Time.UnixNano())},
	}
	for _, name := range []string{idHeader, typeHeader, contentTypeHeader, countHeader} {
		if text := m.Header.Get(name); text != "" {
			header.Set(name, text)
		}
	}
	carryAttributes(header, m.Header)
	return b.conns.Publish(ctx, func(ctx context.Context, s *session) error {
		return s.publish(ctx, ShardStream, &nats.Msg{Subject: subjectOf(shard), Header: header, Data: m.Data})
	})
}

// letterOf reads what a message in the dead letters' stream tells.
func letterOf(m *jetstream.RawStreamMsg) broker.DeadLetter {
	origin := m.Header.Get(subjectHeader)
	when, err := time.Parse(time.RFC3339Nano, m.Header.Get(timeHeader))
	if err != nil {
		when = m.Time // when it was stored
	}
	l := broker.DeadLetter{
		Envelope: message.Envelope{
			ID:      m.Header.Get(idHeader),
			Shard:   shardOfSubject(origin),
			Count:   1,
			Body:    m.Data,
			Foreign: m.Header.Get(typeHeader) != envelopeType,
		},
		Reason: m.Header.Get(reasonHeader),
		Origin: origin,
		Time:   broker.LetterTime(when),
	}
	if !l.Envelope.Foreign {
		msg := &nats.Msg{Header: m.Header, Data: m.Data}
		l.Envelope.Count, l.Envelope.Attributes = count(msg), attributes(msg)
	}
	if l.Envelope.ID == "" {
		l.Envelope.ID = message.KeyedID("", m.Data)
	}
	return l
}

// shardOfSubject is the number of the shard that has the subject, -1 if none has.
func shardOfSubject(subject string) int {
	shard, err := strconv.Atoi(strings.TrimPrefix(subject, subjectPrefix))
	if err != nil || shard < 0 || shard >= maxShards || subjectOf(shard) != subject {
		return -1
	}
	return shard
}
