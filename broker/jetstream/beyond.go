package jetstream

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/broker"
)

// Beyond implements broker.Broker. A queue is a subject here, which is there
// as long as it holds an envelope, handed out or not; gaps do not matter.
func (b *Broker) Beyond(ctx context.Context, shards, _ int) ([]broker.Backlog, error) {
	if !b.enter() {
		return nil, broker.ErrClosed
	}
	defer b.calls.Done()
	b.consume()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.ctx, cancel)()
	s, err := b.consuming.await(ctx)
	if err != nil {
		return nil, err
	}
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
	return beyond(info.State.Subjects, shards), nil
}

// beyond picks the shards from the given number on out of all subjects.
func beyond(subjects map[string]uint64, shards int) (found []broker.Backlog) {
	for subject, envelopes := range subjects {
		n, err := strconv.Atoi(strings.TrimPrefix(subject, subjectPrefix))
		if err != nil || subject != subjectOf(n) || n < shards || n >= maxShards {
			continue // among them names that another program made up
		}
		found = append(found, broker.Backlog{Shard: n, Envelopes: int(envelopes)})
	}
	slices.SortFunc(found, func(x, y broker.Backlog) int { return cmp.Compare(x.Shard, y.Shard) })
	return found
}
