package jetstream

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/broker"
)

// Backlogs implements broker.Broker. A queue is a subject here, which is there
// as long as it has an envelope that is not acknowledged. Those of the client's own
// shards are listed also when they are empty.
func (b *Broker) Backlogs(ctx context.Context, from int) (found []broker.Backlog, err error) {
	err = b.conns.With(ctx, b.conns.Consuming, func(ctx context.Context, s *session) error {
		subjects, err := subjectsOf(ctx, s)
		if err == nil {
			found = backlogs(subjects, from, b.cfg.Shards)
		}
		return err
	})
	return found, err
}

// Depths implements broker.Queues. The server counts what is not acknowledged, so what
// this client has of a shard is taken off.
func (b *Broker) Depths(ctx context.Context, shards []int) (found []broker.Backlog, err error) {
	err = b.conns.With(ctx, b.conns.Consuming, func(ctx context.Context, s *session) error {
		subjects, err := subjectsOf(ctx, s)
		if err != nil {
			return err
		}
		own := s.subs.unacked()
		for _, n := range shards {
			found = append(found, broker.Backlog{Shard: n, Envelopes: max(int(subjects[subjectOf(n)])-own[n], 0)})
		}
		return nil
	})
	return found, err
}

// subjectsOf returns how many envelopes the stream has of each subject.
func subjectsOf(ctx context.Context, s *session) (map[string]uint64, error) {
	b := s.broker
	ctx, stop := context.WithTimeout(ctx, b.timing.rpc)
	defer stop()
	stream, err := s.js.Stream(ctx, ShardStream)
	var info *jetstream.StreamInfo
	if err == nil {
		info, err = stream.Info(ctx, jetstream.WithSubjectFilter(subjectPrefix+"*")) // all pages of it
	}
	if err != nil {
		return nil, b.target.explain(fmt.Errorf("looking for subjects of the stream %s: %w", ShardStream, err))
	}
	return info.State.Subjects, nil
}

// backlogs picks the shards from the given number on out of all subjects.
func backlogs(subjects map[string]uint64, from, shards int) (found []broker.Backlog) {
	for n := max(from, 0); n < shards; n++ {
		found = append(found, broker.Backlog{Shard: n, Envelopes: int(subjects[subjectOf(n)])})
	}
	for subject, envelopes := range subjects {
		// Among them are names that another program made up.
		if n := shardOfSubject(subject); n >= max(from, shards) {
			found = append(found, broker.Backlog{Shard: n, Envelopes: int(envelopes)})
		}
	}
	slices.SortFunc(found, func(x, y broker.Backlog) int { return cmp.Compare(x.Shard, y.Shard) })
	return found
}
