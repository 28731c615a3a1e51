package jobs

import (
	"errors"
	"os"
	"testing"
	"time"

	"async-data-processor/event"
)

// TestAwayWithoutRunners: a look that has nothing to ask the database for does not say that it
// answers.
func TestAwayWithoutRunners(t *testing.T) {
	inBubble(t, func(rg *rig) {
		must(t, os.WriteFile(rg.jobs, []byte("hello: {command: x}"), 0o600))
		s := &hurtStore{Store: rg.store}
		e := rg.start("node", s)
		time.Sleep(time.Minute)
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
