package files

import (
	"errors"
	"testing"
	"testing/synctest"

	"async-data-processor/event"
)

// TestAwayIsToldOnce: a database that is away is told once, not once a shard.
func TestAwayIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.setAway(errors.New("away"))
		for n := range 3 {
			r.shard(n)
		}
		stop := r.run()
		synctest.Wait()
		told := r.events()
		if len(told) != 1 || told[0].(event.FilesUnrecorded).Err.Error() != "away" {
			t.Errorf("told %v", told)
		}
		r.setAway(nil)
		stop()
	})
}
