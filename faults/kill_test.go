package faults

import (
	"syscall"
	"testing"
	"time"

	"async-data-processor/faults/rig"
)

// TestKill kills the server, the consumer or both, again and again at random
// moments of a load.
func TestKill(t *testing.T) {
	on(t, "kill -9", func(c *campaign) { killLoop(c, either(3, 200), 500) }, inBothModes(rabbitmq, embedded, jetstream)...)
}

// TestKillLong is the same over many entries, in larger files.
func TestKillLong(t *testing.T) {
	on(t, "kill -9, files of 100", func(c *campaign) {
		c.batch = 100
		killLoop(c, either(2, 200), 2500)
		if *long && (c.accepted < 500_000 || c.kills < 200) {
			c.Errorf("%d entries and %d kills are too few to tell", c.accepted, c.kills)
		}
	}, rabbitmq, embedded)
}

// killLoop kills in each of the cycles, after about so many entries more.
func killLoop(c *campaign, cycles, entries int) {
	c.start(rig.LoadConfig{Pause: 20 * time.Millisecond})
	for range cycles {
		c.load.More(entries/2 + c.rng.IntN(entries))
		c.moment(200 * time.Millisecond)
		c.kill(c.victims()...)
		c.up()
		c.cycle()
	}
	c.finish()
}

// TestKillDraining kills in the middle of a drain.
func TestKillDraining(t *testing.T) {
	on(t, "kill -9 while draining", func(c *campaign) {
		c.start(rig.LoadConfig{Pause: 20 * time.Millisecond})
		for range either(2, 30) {
			c.load.More(500)
			victims := c.victims()
			for _, p := range victims {
				p.Signal(syscall.SIGTERM)
			}
			c.moment(100 * time.Millisecond)
			c.kill(victims...)
			c.up()
			c.cycle()
		}
		c.finish()
	}, inBothModes(rabbitmq, embedded, jetstream)...)
}

// TestTerminate: SIGTERM under load ends with 0, also if it comes twice; with 1 if the
// machine is so busy that the second one comes a second later.
func TestTerminate(t *testing.T) {
	on(t, "SIGTERM", func(c *campaign) {
		c.start(rig.LoadConfig{Pause: 20 * time.Millisecond})
		for n := range either(3, 100) {
			c.load.More(200)
			c.moment(100 * time.Millisecond)
			victims, twice := c.victims(), n%3 == 2
			for _, p := range victims {
				p.Signal(syscall.SIGTERM)
			}
			if twice {
				c.moment(20 * time.Millisecond)
			}
			for _, p := range victims {
				if twice {
					p.Signal(syscall.SIGTERM)
				}
				if code := p.Wait(); code != 0 && (code != 1 || !twice) {
					c.Errorf("exit %d", code)
				}
			}
			c.gone(victims...)
			c.up()
			c.cycle()
		}
		c.finish()
	}, inBothModes(rabbitmq, embedded, jetstream)...)
}

// TestTerminateStarting: so does SIGTERM in the middle of a start.
func TestTerminateStarting(t *testing.T) {
	on(t, "SIGTERM while starting", func(c *campaign) {
		c.start(rig.LoadConfig{Limit: 20})
		c.load.Done()
		c.stop() // with files to take the ids from, and maybe a backlog
		for range either(2, 40) {
			var starting []*rig.Process
			if c.Consumer == "" {
				starting = append(starting, c.spawn("standalone", c.Server))
			} else {
				starting = append(starting, c.spawn("server", c.Server), c.spawn("message-consumer", c.Consumer))
			}
			c.moment(200 * time.Millisecond)
			for _, p := range starting {
				p.Signal(syscall.SIGTERM)
			}
			for _, p := range starting {
				// Before the program has its first line run it ends as any other.
				if code := p.Wait(); code != 0 && (code != -1 || len(p.Lines()) > 0) {
					c.Errorf("exit %d", code)
				}
			}
			c.cycle()
		}
		c.finish()
	}, rabbitmq, embedded, jetstream)
}

// spawn starts a process and does not wait for anything.
func (c *campaign) spawn(command, url string) *rig.Process {
	return rig.Spawn(c, command, c.environment("BROKER_URL="+url)...)
}
