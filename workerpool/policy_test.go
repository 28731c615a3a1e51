package workerpool_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"async-data-processor/event"
	"async-data-processor/workerpool"
)

var errGiveUp = errors.New("the policy gives up")

// TestPolicyIsAsked: before each further attempt the policy hears what failed and
// for how long it has; its error sends the batch back.
func TestPolicyIsAsked(t *testing.T) {
	const patience = time.Minute
	var mu sync.Mutex
	var asked []time.Duration
	o := &output{before: fails}
	cfg := workerpool.Config{Min: 3, Max: 4, Timeout: 30 * time.Second, OnRetry: func(err error, failingFor time.Duration) error {
		mu.Lock()
		defer mu.Unlock()
		if !errors.Is(err, errDiskFull) {
			t.Errorf("asked about %v", err)
		}
		asked = append(asked, failingFor)
		if failingFor >= patience {
			return errGiveUp
		}
		return nil
	}}
	inBubbleWith(t, cfg, o, func(r *rig) {
		b := r.hand(5)
		r.at(patience - time.Second)
		if workers, worker, why := r.pool.Held(); workers != 1 || worker != "7-1" && worker != "7-2" && worker != "7-3" || !errors.Is(why, errDiskFull) {
			t.Errorf("held by %d workers, %s because of %v", workers, worker, why)
		}
		r.at(2 * patience)
		r.happened(b, "return")
		if workers, worker, why := r.pool.Held(); workers != 0 {
			t.Errorf("after the return held by %d workers, %s because of %v", workers, worker, why)
		}
		returned := told[event.BatchReturned](r)
		if len(returned) != 1 || !errors.Is(returned[0].Err, errGiveUp) || !errors.Is(returned[0].Err, errDiskFull) {
			t.Errorf("told %+v", returned)
		}
		r.cancel(errDeadline) // or a batch that was not returned would be tried for ever
		r.drain()
	})
	if len(asked) < 3 || asked[0] != 0 || asked[len(asked)-1] < patience || asked[len(asked)-1] > patience+workerpool.HoldMax {
		t.Errorf("asked after %v", asked)
	}
}

// TestPolicyOfAHungOutput: a worker that waits for a write slot asks, too, and
// its batch was never begun.
func TestPolicyOfAHungOutput(t *testing.T) {
	const patience, most = 20 * time.Minute, 4
	o := new(output)
	o.before = func(call) error {
		time.Sleep(time.Hour)
		return nil
	}
	cfg := workerpool.Config{Min: 3, Max: most, Timeout: 30 * time.Second, OnRetry: func(_ error, failingFor time.Duration) error {
		if failingFor >= patience {
			return errGiveUp
		}
		return nil
	}}
	inBubbleWith(t, cfg, o, func(r *rig) {
		r.handMany(20)
		r.at(10 * time.Minute)
		if workers, _, why := r.pool.Held(); workers != most || why == nil || why.Error() != "all 8 write slots are stuck: the disk does not respond" {
			t.Errorf("%d workers hold a batch because of %v", workers, why)
		}
		r.at(50 * time.Minute)
		stuck := 0
		for _, e := range told[event.BatchReturned](r) {
			if errors.Is(e.Err, errGiveUp) {
				stuck++
			}
		}
		if stuck == 0 {
			t.Error("no batch was returned by the policy")
		}
		r.at(2 * time.Hour)
		r.drain()
	})
}
