package broker

import (
	"context"
	"sync"

	"async-data-processor/message"
)

// PublishEach is Publish for an engine that gains nothing by it: it
// publishes the envelopes at the same time, one by one.
func PublishEach(ctx context.Context, publish func(context.Context, message.Envelope) error, envelopes []message.Envelope, done func(int, error)) {
	var others sync.WaitGroup
	for i := range envelopes {
		if i == len(envelopes)-1 {
			done(i, publish(ctx, envelopes[i]))
			break
		}
		others.Go(func() { done(i, publish(ctx, envelopes[i])) })
	}
	others.Wait()
}
