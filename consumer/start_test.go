package consumer

import (
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/event"
)

// TestShardsOpened: what the start has come to is told once, when each shard runs or
// has begun to wait.
func TestShardsOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var mu sync.Mutex // guards told
		var told []event.ShardsOpened
		r.hear = func(e event.Event) {
			mu.Lock()
			defer mu.Unlock()
			if e, ok := e.(event.ShardsOpened); ok {
				told = append(told, e)
			}
		}
		r.fail(0, faults{open: broken("mkdir", 0, syscall.EIO)})
		r.fail(1, faults{standby: true})
		r.start()
		r.after(10 * time.Second)
		r.fail(0, faults{})
		r.fail(1, faults{})
		r.after(time.Minute)
		r.stop()
		want := event.ShardsOpened{Shards: 3, Owned: 1, Standby: 1}
		if len(told) == 1 {
			want.Took = told[0].Took
		}
		if len(told) != 1 || told[0] != want || want.Took > time.Second {
			t.Errorf("told %+v, want one %+v", told, want)
		}
	})
}
