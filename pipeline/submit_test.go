package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
	"async-data-processor/server"
	"async-data-processor/shard"
	"async-data-processor/space"
)

// publishes records envelopes and fails those of some shards.
type publishes struct {
	mu       sync.Mutex
	received []message.Envelope
	fail     map[int]error
}

func (p *publishes) Publish(_ context.Context, envelopes []message.Envelope, done func(int, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.received = append(p.received, envelopes...)
	for i, e := range envelopes {
		done(i, p.fail[e.Shard])
	}
}

// threeShards is a submission with one message in each of shards 0, 1 and 2.
func threeShards() message.Submission {
	s := message.Submission{ID: "S"}
	found := make(map[int]bool)
	for at := time.Unix(0, 0); len(found) < 3; at = at.Add(time.Second) {
		if n := shard.Of(at, 3); !found[n] {
			found[n] = true
			line := fmt.Sprintf(`{"message_id":"S.%d","timestamp":%q}`, len(s.Messages), at.Format(time.RFC3339))
			s.Messages = append(s.Messages, message.Message{Line: []byte(line), Time: at})
		}
	}
	return s
}

// TestSubmitWithoutRoom: what would find no room in the output is refused for
// certain, whatever the broker could take.
func TestSubmitWithoutRoom(t *testing.T) {
	var p publishes
	reserve := space.New(t.TempDir(), 1<<62)
	reserve.Look()
	_, err := newSubmitter(&p, 3, reserve).Submit(t.Context(), threeShards())
	if !errors.Is(err, server.ErrNoRoom) || !errors.Is(err, server.ErrNotPublished) || len(p.received) > 0 {
		t.Errorf("error %v, %d envelopes published", err, len(p.received))
	}
}

func TestSubmit(t *testing.T) {
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
			p := &publishes{fail: tc.fail}
			counts, err := newSubmitter(p, 3, nil).Submit(t.Context(), threeShards())
			if !errors.Is(err, tc.err) || errors.Is(err, server.ErrNotPublished) != tc.notPublished {
				t.Errorf("error %v, want %v and ErrNotPublished: %v", err, tc.err, tc.notPublished)
			}
			if want := map[int]int{0: 1, 1: 1, 2: 1}; err == nil && !maps.Equal(counts, want) {
				t.Errorf("counts %v, want %v", counts, want)
			}
			if len(p.received) != 3 {
				t.Errorf("%d envelopes published, want every one tried", len(p.received))
			}
		})
	}
}
