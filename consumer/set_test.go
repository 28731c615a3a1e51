package consumer

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestHistoryIsBounded pauses and resumes a shard, which ends and starts its workers: the
// history keeps its sums, and has an end.
func TestHistoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.first = 1
		r.cfg.WorkersMin, r.cfg.WorkersMax = 32, 32
		r.run()
		synctest.Wait()
		const cycles = 40
		for range cycles {
			r.accept(0, 5)
			r.after(2 * time.Second)
			r.command(0, Command{Verb: PauseShard})
			r.command(0, Command{Verb: ResumeShard})
			r.after(time.Second)
		}
		var messages int64
		history := r.set.History()
		for _, w := range history {
			messages += w.Messages
		}
		if len(history) > 1000+1+32 || messages != 5*cycles {
			t.Errorf("%d records of %d workers, with %d messages of %d", len(history), cycles*32, messages, 5*cycles)
		}
		r.stop()
	})
}
