package workerpool_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestHolder: who has a message is known from when a worker takes it until it is settled,
// also while its output fails; and of no batch that waits.
func TestHolder(t *testing.T) {
	o := new(output)
	o.before = func(c call) error {
		if c.attempt == 1 {
			time.Sleep(10 * time.Second)
			return errors.New("the disk fails")
		}
		return nil
	}
	inBubble(t, o, func(r *rig) {
		check := func(id, want string, since time.Duration) {
			t.Helper()
			synctest.Wait()
			worker, at, found := r.pool.Holder([]byte(id))
			if worker != want || found != (want != "") || found && !at.Equal(r.began.Add(since)) {
				t.Errorf("after %v: %s has %s since %v, want %q since %v", time.Since(r.began), worker, id, at.Sub(r.began), want, since)
			}
		}
		r.at(time.Second)
		check("b0", "", 0)
		r.hand(5)
		synctest.Wait()
		holder, _, _ := r.pool.Holder([]byte("b0"))
		for range 5 {
			r.hand(5)
		}
		check("b0", holder, time.Second)
		check("b4", holder, time.Second)
		check("b29", "", 0) // all workers are busy
		check("b", "", 0)
		r.at(11050 * time.Millisecond)
		check("b0", holder, time.Second) // until the next attempt
		r.at(40 * time.Second)
		check("b0", "", 0)
		check("b29", "", 0)
		r.drain()
	})
}
