package publisher_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
	"async-data-processor/publisher"
)

// oneOfEach is a submission with a message for each of the shards.
func oneOfEach(shards int) (s message.Submission) {
	for i, at := range instants(shards) {
		s.Messages = append(s.Messages, numbered(i, 100, at))
	}
	return s
}

// TestNoRoom: what would find no room behind the broker is refused for certain,
// whatever the broker could take.
func TestNoRoom(t *testing.T) {
	var r recorder
	full := errors.New("3 MiB are free")
	p := publisher.New(publisher.Config{
		Broker: oneByOne(r.publish), Shards: 3, Timeout: timeout, Room: func() error { return full },
	})
	_, err := p.Submit(t.Context(), oneOfEach(3))
	// There are more causes than a full disk.
	if want := "nothing was published: the output takes nothing new now: 3 MiB are free"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	for _, want := range []error{message.ErrNoRoom, message.ErrNotPublished, full} {
		if !errors.Is(err, want) {
			t.Errorf("error %v does not wrap %v", err, want)
		}
	}
	if len(r.envelopes) > 0 {
		t.Errorf("%d envelopes are published", len(r.envelopes))
	}
	full = nil
	if _, err := p.Submit(t.Context(), oneOfEach(3)); err != nil || len(r.envelopes) != 3 {
		t.Errorf("with room: error %v, %d envelopes are published, want 3", err, len(r.envelopes))
	}
}

// TestOutcome: ErrNotPublished is the outcome exactly if every envelope is
// rejected.
func TestOutcome(t *testing.T) {
	rejected := fmt.Errorf("%w: no connection", broker.ErrRejected)
	unknown := fmt.Errorf("%w: no answer", broker.ErrUnknown)
	for name, tc := range map[string]struct {
		fail         map[int]error
		notPublished bool
		err          error
	}{
		"all confirmed":         {},
		"all rejected":          {fail: map[int]error{0: rejected, 1: rejected, 2: rejected}, notPublished: true, err: broker.ErrRejected},
		"one rejected":          {fail: map[int]error{1: rejected}, err: broker.ErrRejected},
		"one unknown":           {fail: map[int]error{2: unknown}, err: broker.ErrUnknown},
		"one unknown, rejected": {fail: map[int]error{0: rejected, 1: unknown, 2: rejected}, err: broker.ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			var r recorder
			p := publisher.New(publisher.Config{Shards: 3, Timeout: time.Second, Broker: oneByOne(
				func(ctx context.Context, e message.Envelope) error {
					_ = r.publish(ctx, e)
					return tc.fail[e.Shard]
				})})
			shards, err := p.Submit(t.Context(), oneOfEach(3))
			if !errors.Is(err, tc.err) || errors.Is(err, message.ErrNotPublished) != tc.notPublished {
				t.Errorf("error %v, want %v and ErrNotPublished: %v", err, tc.err, tc.notPublished)
			}
			if want := []message.ShardCount{{Shard: 0, Messages: 1}, {Shard: 1, Messages: 1}, {Shard: 2, Messages: 1}}; !slices.Equal(shards, want) {
				t.Errorf("shards %v, want %v", shards, want)
			}
			if len(r.envelopes) != 3 {
				t.Errorf("%d envelopes reached the broker, want every one tried", len(r.envelopes))
			}
		})
	}
}
