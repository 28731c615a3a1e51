package jobs

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"async-data-processor/event"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
)

// TestAwayWithoutRunners: a look that has nothing to ask the database for does not say that it
// answers.
func TestAwayWithoutRunners(t *testing.T) {
	inBubble(t, func(rg *rig) {
		must(t, os.WriteFile(rg.jobs, []byte("hello: {command: x}"), 0o600))
		s := &hurtStore{Store: rg.store}
		e := rg.start("node", s)
		time.Sleep(10300 * time.Millisecond) // when no part of the engine asks
		s.hurt(true)
		time.Sleep(2 * expireInterval())
		for range 10 {
			time.Sleep(lookInterval / 2)
			if !errors.Is(e.Ready(), errAway) {
				t.Fatalf("ready says %v", e.Ready())
			}
		}
		s.hurt(false)
		time.Sleep(2 * expireInterval())
		if told := eventsOf[event.StateDatabase](rg); len(told) != 2 || e.Ready() != nil {
			t.Errorf("told %v, ready says %v", told, e.Ready())
		}
	})
}

// longArgs is a store where another hand has made arguments long.
type longArgs struct{ *store.Store }

func (s longArgs) Claim(ctx context.Context, c store.Claim) ([]store.Run, error) {
	runs, err := s.Store.Claim(ctx, c)
	for i := range runs {
		if runs[i].Job == "again" {
			runs[i].Args = make([]byte, store.MaxArgs+1)
		}
	}
	return runs, err
}

// TestLongArgs: no runner gets what would break its connection.
func TestLongArgs(t *testing.T) {
	inBubble(t, func(rg *rig) {
		e := rg.start("node", longArgs{rg.store})
		p, _ := e.connect("r1", 2, nil)
		long := e.create("again")
		next := e.create("hello")
		if offer := p.hear(frame.Offer); offer.Run != next.ID {
			t.Errorf("offered %+v", offer)
		}
		if got := rg.run(long.ID); got.State != store.Queued || got.Why != "its arguments are too long" {
			t.Errorf("the run is %+v", got)
		}
	})
}
