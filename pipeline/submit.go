package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"async-data-processor/broker"
	"async-data-processor/message"
	"async-data-processor/server"
	"async-data-processor/shard"
	"async-data-processor/space"
)

// publisher is the half of a broker that submissions need.
type publisher interface {
	Publish(ctx context.Context, e message.Envelope) error
}

// submitter shards a submission and publishes its envelopes, all at once.
type submitter struct {
	broker publisher
	shards int
	// reserve is undercut when there is no room for more files; it may be nil.
	reserve *space.Watermark
}

// Submit implements server.Submitter.
func (s submitter) Submit(ctx context.Context, sub message.Submission) (map[int]int, error) {
	if s.reserve != nil {
		if err := s.reserve.Low(); err != nil {
			return nil, fmt.Errorf("%w: %w", server.ErrNoRoom, err)
		}
	}
	envelopes := shard.Split(sub, s.shards)
	errs := make([]error, len(envelopes))
	var publishes sync.WaitGroup
	for i, e := range envelopes[1:] {
		publishes.Go(func() { errs[i+1] = s.broker.Publish(ctx, e) })
	}
	errs[0] = s.broker.Publish(ctx, envelopes[0])
	publishes.Wait()

	counts := make(map[int]int, len(envelopes))
	rejected := 0
	for i, e := range envelopes {
		counts[e.Shard] += e.Count
		if errors.Is(errs[i], broker.ErrRejected) {
			rejected++
		}
	}
	err := errors.Join(errs...)
	switch {
	case err == nil:
		return counts, nil
	case rejected == len(envelopes):
		return nil, fmt.Errorf("%w: %w", server.ErrNotPublished, errs[0])
	}
	return nil, err
}
