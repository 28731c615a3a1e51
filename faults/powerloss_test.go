package faults

import (
	"math/rand/v2"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"async-data-processor/faults/lossyfs"
	"async-data-processor/faults/rig"
)

// long tells whether the tests take the time to search, instead of to check.
var long = os.Getenv("FAULTS") == "long"

// losses is a source of losses of power: when, and what survives.
type losses struct {
	*rand.Rand
	atMost int // the power of two of the highest number of operations
}

func newLosses(t *testing.T, atMost int) *losses {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("FAULTS_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("FAULTS_SEED=%d", seed)
	return &losses{rand.New(rand.NewPCG(seed, 0)), atMost}
}

// arm lets power go after some operations, before or after one. As often in
// the first ten as in the first thousand. What is not durable is gone, or is a
// matter of chance.
func (l *losses) arm(d *lossyfs.Disk) <-chan lossyfs.Op {
	var chance *rand.Rand
	if l.IntN(2) == 0 {
		chance = rand.New(rand.NewPCG(l.Uint64(), 0))
	}
	last := int64(1) << l.IntN(l.atMost)
	last += l.Int64N(last)
	var count atomic.Int64
	lost := make(chan lossyfs.Op, 1)
	d.SetHook(func(op lossyfs.Op) error {
		if count.Add(1) == last {
			d.PowerLoss(chance)
			lost <- op
		}
		return nil
	})
	return lost
}

// TestPowerLoss: the machine that all is on loses power again and again, under
// load and while it starts.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	cycles := 10
	if long {
		cycles = 200
	}
	m := newMachine(t)
	l := newLosses(t, 15)
	var s senders
	for cycle := range cycles {
		lost := l.arm(m.disk)
		p := rig.Spawn(t, "standalone", m.settings()...)
		stop := func() {}
		for up := p.Listening(); ; {
			select {
			case <-up:
				stop, up = s.start(p), nil
				continue
			case op := <-lost:
				t.Logf("%d: at %s %s, done %t; %d accepted so far", cycle, op.Kind, op.Path, op.Done, s.count())
			case <-p.Exited():
				t.Fatal("it gave up")
			case <-time.After(rig.Patience):
				t.Fatal("it does nothing")
			}
			break
		}
		m.reboot(p)
		stop()
	}
	p := rig.Start(t, "standalone", m.settings()...).Ready()
	s.finish(t, m.output(), p)
}
