package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"async-data-processor/faults/rig"
)

// TestStandby kills the consumer that owns the shards, again and again, while a
// second one stands by; the next one stands by for that.
func TestStandby(t *testing.T) {
	on(t, "owner killed, standby takes over", func(c *campaign) {
		c.passOn(either(2, 20), func(owner *rig.Process) { c.kill(owner) })
	}, inBothModes(rabbitmq, jetstream)...)
}

// TestHandOver stops the owner in order instead: the next one gets nothing again.
func TestHandOver(t *testing.T) {
	on(t, "shards handed to a standby", func(c *campaign) {
		c.passOn(either(2, 30), func(owner *rig.Process) {
			if code := owner.Stop(); code != 0 {
				c.Errorf("exit %d", code)
			}
			if d := owner.Settled().Duplicates; d != 0 {
				c.Errorf("%d messages were delivered again after a hand-over in order", d)
			}
			c.gone(owner)
		})
	}, inBothModes(rabbitmq, jetstream)...)
}

// passOn passes the shards from one consumer to the next under load, so many
// times: the owner ends by end.
func (c *campaign) passOn(times int, end func(owner *rig.Process)) {
	c.start(rig.LoadConfig{Pause: 50 * time.Millisecond})
	owner := c.consumer
	for range times {
		owner.AwaitShards(shards)
		next := rig.Start(c, "message-consumer", c.environment("BROKER_URL="+c.Consumer)...)
		// The owner gives up some shards when it hears of it. That may be before it waits.
		next.Await("a standby", func(l rig.Line) bool {
			return strings.HasSuffix(l.Message, "standing by") || strings.HasPrefix(l.Message, "sharing the shards")
		})
		c.load.More(500)
		c.moment(200 * time.Millisecond)
		end(owner)
		owner, c.consumer = next, next
		c.cycle()
	}
	owner.AwaitShards(shards)
	c.finish()
}

// TestSlowSink lets a single worker write every message to a file of its own
// while clients send as fast as they can: what waits, waits in the broker.
func TestSlowSink(t *testing.T) {
	on(t, "slow sink, ten times the load", func(c *campaign) {
		c.batch = 1
		c.settings = []string{"WORKERS_MIN=1", "WORKERS_MAX=1"}
		c.start(rig.LoadConfig{Clients: 8, Size: 200})
		c.load.More(either(2_000, 100_000))
		c.measure()
		lost, _ := c.check.Lost()
		accepted := c.load.Accepted()
		c.note("%d of %d entries were written meanwhile", accepted-lost, accepted)
		// How the rest is written is not what this is about.
		c.load.Stop()
		c.stop()
		c.batch, c.settings = 100, nil
		c.check = c.checker()
		c.cycle()
		c.finish()
		c.bounded()
	}, rabbitmq, embedded, jetstream)
}

// bounded holds the memory of the processes to what they may take, whatever
// waits. The race detector multiplies it.
func (c *campaign) bounded() {
	most := 200 << 10
	if rig.Race {
		most *= 5
	}
	if c.peak > most {
		c.Errorf("a process took %d MB of memory", c.peak/1024)
	}
}

// TestBacklog lets one consumer drain a long queue, with as many ids in mind as
// there may be. Its memory is that of the ids, not of the queue.
func TestBacklog(t *testing.T) {
	on(t, "backlog drained", func(c *campaign) {
		const size = 1000
		submissions := either(20, 1067) // a million and some more, since some are short
		ids := either(1000, 100_000)    // so that they are full when half is done
		c.settings = []string{fmt.Sprint("DEDUPE_IDS=", ids)}
		if *long {
			c.batch = 20
		}
		c.server = c.LaunchServer(c, c.environment()...)
		c.load = rig.StartLoad(c, c.server, rig.LoadConfig{Size: size, Limit: submissions})
		c.load.Done()
		c.check = c.checker()
		began := time.Now()
		c.up()
		type sample struct{ done, rss int }
		var samples []sample
		c.check.Await(func(missing int) {
			samples = append(samples, sample{c.load.Accepted() - missing, c.consumer.Usage().RSS})
		})
		took := time.Since(began)
		most := map[bool]int{}
		for _, s := range samples {
			late := s.done > c.load.Accepted()*6/10
			most[late] = max(most[late], s.rss)
		}
		c.note("%d entries in %v, %.0f/s; at most %d MB in the first 60 %% and %d MB after",
			c.load.Accepted(), took.Round(time.Second), float64(c.load.Accepted())/took.Seconds(), most[false]/1024, most[true]/1024)
		if *long && most[true] > most[false]*5/4 {
			c.Errorf("the memory grows with what was drained: %d KiB, then %d KiB", most[false], most[true])
		}
		c.cycle()
		c.finish()
		c.bounded()
	}, rabbitmq, jetstream)
}
