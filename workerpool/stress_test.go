package workerpool_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"async-data-processor/workerpool"
)

// TestStress throws everything at a pool at once. Whatever happens, each batch
// is settled once, acknowledged if and only if it was written but for what of
// it is dead, and the history adds up: the rig checks that at the end of every test.
func TestStress(t *testing.T) {
	t.Logf("repeat with -seed=%d", *seed)
	for round := range 10 {
		for _, cancels := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d/cancel=%v", round, cancels), func(t *testing.T) { stress(t, uint64(round), cancels) })
		}
	}
}

func stress(t *testing.T, round uint64, cancels bool) {
	trouble := trouble{*seed + round}
	o := &output{before: trouble.before, after: trouble.after}
	cfg := workerpool.Config{Min: 2, Max: 8, Timeout: time.Second}
	inBubbleWith(t, cfg, o, func(r *rig) {
		const feeders, each = 8, 50
		var feeding sync.WaitGroup
		for f := range feeders {
			rnd := rand.New(rand.NewPCG(*seed+round, uint64(f)))
			feeding.Go(func() {
				for range each {
					r.hand(1 + rnd.IntN(12)) // some are several that waited together
					time.Sleep(time.Duration(rnd.IntN(30)) * time.Millisecond)
				}
			})
		}
		if cancels {
			time.AfterFunc(700*time.Millisecond, func() { r.cancel(errDeadline) })
		}
		feeding.Wait()
		r.drain()
		if n := len(o.visible); n == 0 || n == r.handed {
			r.t.Errorf("%d of %d messages were written, want some but not all", n, r.handed)
		}
	})
}

// trouble is what may happen to a write: drawn anew for each of its steps, but
// the same whenever the seed is.
type trouble struct{ seed uint64 }

func (tr trouble) before(c call) error { return tr.step(c, 0) }

func (tr trouble) after(c call) error { return tr.step(c, 1) }

func (tr trouble) step(c call, step uint64) error {
	var n uint64
	_, _ = fmt.Sscanf(c.batch, "b%d", &n)
	rnd := rand.New(rand.NewPCG(tr.seed, n<<32|uint64(c.attempt)<<1|step))
	pause := time.Duration(rnd.IntN(20)) * time.Millisecond
	switch rnd.IntN(30) {
	case 0:
		panic("boom")
	case 1:
		runtime.Goexit()
	case 2:
		return hangs(time.Second)(c) // as long as the timeout
	case 3:
		return hangs(5 * time.Second)(c)
	case 4, 5, 6:
		time.Sleep(pause)
		return errDiskFull
	case 7:
		return hangs(pause)(c)
	case 8, 9, 10:
		return nil
	}
	return takes(pause)(c)
}
