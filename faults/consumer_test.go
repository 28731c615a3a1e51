package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"async-data-processor/faults/rig"
)

// TestStandby kills the consumer that owns the shards, again and again, while a
// second one stands by; the next one stands by for that.
func TestStandby(t *testing.T) {
	on(t, "owner killed, standby takes over", func(c *campaign) {
		c.start(rig.LoadConfig{Pause: 50 * time.Millisecond})
		owner := c.consumer
		for range either(2, 20) {
			c.owns(owner)
			next := rig.Start(c, "message-consumer", c.environment("BROKER_URL="+c.Consumer)...)
			next.Await("a standby", func(l rig.Line) bool { return strings.HasSuffix(l.Message, "standing by") })
			c.load.More(500)
			c.moment(200 * time.Millisecond)
			c.kill(owner)
			owner, c.consumer = next, next
			c.cycles++
		}
		c.owns(owner)
		c.finish()
	}, inBothModes(rabbitmq, listener)...)
}

// owns waits until a consumer owns every shard.
func (c *campaign) owns(p *rig.Process) {
	c.Helper()
	for n := range shards {
		p.Await("its shards", func(l rig.Line) bool { return l.Message == "shard owned" && l.Shard == n })
	}
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
		c.cycles++
		c.finish()
		c.bounded()
	}, rabbitmq, embedded, listener)
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

// TestDiskFull fills the disk of the output under load, and frees it again.
func TestDiskFull(t *testing.T) {
	on(t, "output's disk full", func(c *campaign) {
		if err := unix.Mount("none", c.dir, "tmpfs", 0, "size=256m"); err != nil {
			// Who may not mount cannot fill a disk either; the tests of output
			// inject the error there.
			c.note("cannot mount a file system here: %v", err)
			return
		}
		c.Cleanup(func() { _ = unix.Unmount(c.dir, unix.MNT_DETACH) })
		c.settings = []string{"OUTPUT_MIN_FREE=0"} // or it would never be ready on so small a disk
		c.start(rig.LoadConfig{Pause: 20 * time.Millisecond})
		for range either(1, 5) {
			c.load.More(500)
			free := c.fill()
			rig.Eventually(c, "noticing it", func() error {
				if c.consumer.NotReady() == nil {
					return errors.New("the consumer is ready")
				}
				return nil
			})
			c.moment(2 * time.Second)
			free()
			c.consumer.Ready()
			c.cycles++
		}
		c.finish()
	}, inBothModes(rabbitmq, embedded)...)
}

// fill takes what is left of the output's disk, and returns how to free it.
func (c *campaign) fill() (free func()) {
	c.Helper()
	path := filepath.Join(c.dir, ".ballast")
	f, err := os.Create(path)
	if err != nil {
		c.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(block)
	}
	return func() { _ = os.Remove(path) }
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
		c.cycles++
		c.finish()
		c.bounded()
	}, rabbitmq, listener)
}
