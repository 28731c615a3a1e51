package pipeline

import (
	"context"
	"errors"
	"fmt"

	"async-data-processor/broker"
	"async-data-processor/message"
	"async-data-processor/server"
	"async-data-processor/shard"
)

// submitter hands submissions to the lanes of their shards.
type submitter struct {
	lanes *shard.Lanes
}

func newSubmitter(b broker.Broker, shards int) submitter {
	return submitter{shard.NewLanes(shards, broker.PublishTimeout, b.Publish)}
}

// Submit implements server.Submitter.
func (s submitter) Submit(ctx context.Context, sub message.Submission) (map[int]int, error) {
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
