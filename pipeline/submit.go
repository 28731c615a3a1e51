package pipeline

import (
	"context"
	"errors"
	"fmt"

	"async-data-processor/broker"
	"async-data-processor/message"
	"async-data-processor/server"
	"async-data-processor/shard"
	"async-data-processor/space"
)

// publisher is the half of a broker that submissions need.
type publisher interface {
	Publish(ctx context.Context, envelopes []message.Envelope, done func(i int, outcome error))
}

// submitter hands submissions to the lanes of their shards.
type submitter struct {
	lanes *shard.Lanes
	// reserve is undercut when there is no room for more files; it may be nil.
	reserve *space.Watermark
}

func newSubmitter(b publisher, shards int, reserve *space.Watermark) submitter {
	return submitter{shard.NewLanes(shards, broker.PublishTimeout, b.Publish), reserve}
}

// Submit implements server.Submitter.
func (s submitter) Submit(ctx context.Context, sub message.Submission) (map[int]int, error) {
	if s.reserve != nil {
		if err := s.reserve.Low(); err != nil {
			return nil, fmt.Errorf("%w: %w", server.ErrNoRoom, err)
		}
	}
	counts, outcomes := s.lanes.Submit(ctx, sub)
	rejected := 0
	for _, err := range outcomes {
		if errors.Is(err, broker.ErrRejected) {
			rejected++
		}
	}
	err := errors.Join(outcomes...)
	switch {
	case err == nil:
		return counts, nil
	case rejected == len(outcomes):
		return nil, fmt.Errorf("%w: %w", server.ErrNotPublished, outcomes[0])
	}
	return nil, err
}
