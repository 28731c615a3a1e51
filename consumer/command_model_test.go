package consumer

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/event"
	"async-data-processor/output"
)

// TestRandomCommands sends a thousand commands to a shard under load, which moves
// between two owners at times, and compares it with a model. A paused shard never gets a
// file, and in the end each message is written once.
func TestRandomCommands(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { randomCommands(t, rand.New(rand.NewPCG(seed, 7))) })
		})
	}
}

// model is what the answered commands say of shard 0.
type model struct {
	paused   bool
	until    time.Time
	min, max int
	files    []string // when it was paused
	applied  []Command
}

func randomCommands(t *testing.T, dice *rand.Rand) {
	a := newRig(t)
	if dice.IntN(2) == 0 {
		a.roll = output.Roll{Interval: 2 * time.Second, Bytes: 4096}
	}
	b := newRig(t)
	b.memory, b.dir, b.roll, b.cfg.Queues = a.memory, a.dir, a.roll, a.memory.Open(nil)
	for _, r := range []*rig{a, b} {
		r.cfg.WorkersMin, r.cfg.WorkersMax = 2, 3
		r.run()
	}
	owner, other := a, b
	owner.set.Start(0)
	m := model{min: 2, max: 3}
	m.check(t, owner)
	stop := a.load(200 * time.Millisecond)
	for i := range 250 {
		c := m.random(dice, i)
		if c.Verb == "" { // the shard moves
			owner.set.Stop(0)
			other.set.Start(0)
			owner, other = other, owner
		} else {
			if m.paused {
				m.checkFiles(t, owner)
			}
			out, err := owner.try(0, c)
			m.apply(c, out, err, owner)
		}
		m.check(t, owner)
		time.Sleep(time.Duration(dice.IntN(400)) * time.Millisecond)
		m.check(t, owner)
	}
	sent := stop()
	owner.command(0, Command{Verb: ResumeShard})
	time.Sleep(time.Minute)
	owner.command(0, Command{Verb: FlushShard})
	a.checkOnce(sent)
	a.checkDepth(0, 0)
	a.stop()
	b.stop()
}

// random returns the next command, one without a verb if the shard is to move.
func (m *model) random(dice *rand.Rand, i int) Command {
	c := Command{ID: fmt.Sprint("c", i)}
	switch dice.IntN(12) {
	case 0:
		return Command{}
	case 1:
		if n := len(m.applied); n > 0 { // again, one that is remembered
			return m.applied[n-1-dice.IntN(min(n, 5))]
		}
	case 2, 3, 4:
		c.Verb = PauseShard
		if dice.IntN(3) == 0 {
			c.Until = time.Now().Add(time.Duration(1+dice.IntN(20)) * time.Second)
		}
		return c
	case 5, 6:
		c.Verb = ResizeShard
		c.Min = 1 + dice.IntN(5)
		c.Max = c.Min + dice.IntN(5)
		return c
	case 7, 8:
		c.Verb = FlushShard
		return c
	}
	c.Verb = ResumeShard
	return c
}

func (m *model) apply(c Command, out Outcome, err error, r *rig) {
	again := slices.ContainsFunc(m.applied, func(a Command) bool { return a.ID == c.ID })
	if err != nil && !(again && c.Verb == PauseShard && errors.Is(err, ErrSuperseded)) {
		r.t.Errorf("%+v: %v", c, err)
	}
	if out.Repeated != (again && c.Verb != FlushShard) {
		r.t.Errorf("%+v: repeated is %v", c, out.Repeated)
	}
	if again {
		return
	}
	m.applied = append(m.applied, c)
	switch c.Verb {
	case PauseShard:
		m.paused, m.until, m.files = true, c.Until, r.visible(0)
	case ResumeShard:
		m.paused = false
	case ResizeShard:
		m.min, m.max = c.Min, c.Max
	}
}

func (m *model) over() bool { return !m.until.IsZero() && !time.Now().Before(m.until) }

// checkFiles fails if the paused shard has got a file. It ends the pause in the model
// when its time has come.
func (m *model) checkFiles(t *testing.T, r *rig) {
	t.Helper()
	if m.over() {
		m.paused = false
		return
	}
	if now := r.visible(0); !slices.Equal(now, m.files) {
		t.Errorf("a paused shard had %d files, and has %d", len(m.files), len(now))
	}
}

// check waits until the owner has what the model says.
func (m *model) check(t *testing.T, owner *rig) {
	t.Helper()
	var last Status
	for range 3000 {
		synctest.Wait()
		if m.paused {
			m.checkFiles(t, owner)
		}
		want := event.ShardRunning
		if m.paused {
			want = event.ShardPaused
		}
		last = owner.set.Status()
		if len(last) == 1 && last[0].State == want && last[0].WorkersMin == m.min && last[0].WorkersMax == m.max {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("the owner has %+v, the model %+v", last, *m)
}
