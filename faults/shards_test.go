package faults

import (
	"testing"
	"time"

	"async-data-processor/faults/rig"
)

// TestManyShards runs as many shards as there may be: they are ready soon, one line
// tells of them, and they stop in time.
func TestManyShards(t *testing.T) {
	const most = 1024
	engines := either([]engine{embedded, jetstream}, []engine{embedded, jetstream, rabbitmq})
	alone(t, "1,024 shards", func(c *campaign) {
		c.settings = []string{"SHARDS_COUNT=1024"}
		c.up() // makes the queues
		// A busy machine may lose its connection to the broker meanwhile, and then all
		// shards begin again. So the best of three starts counts.
		var took time.Duration
		var lines int
		for range 3 {
			c.stop()
			began := time.Now()
			c.up()
			took = time.Since(began)
			c.consumer.Await("the line of all shards", func(l rig.Line) bool { return l.Message == "shards owned" })
			if lines = len(c.consumer.Lines()); took <= 3*time.Second+slack && lines <= 50 {
				break
			}
			c.note("ready after %v and %d lines, not counted", took.Round(10*time.Millisecond), lines)
		}
		if took > 3*time.Second+slack || lines > 50 {
			c.Errorf("ready after %v and %d lines", took, lines)
		}
		c.note("ready again after %v", took.Round(10*time.Millisecond))
		consumer := c.consumer
		c.settled(most, c.server.PostAll(20, 10))
		if found := consumer.Errors(); len(found) > 0 {
			c.Errorf("errors in the log: %q", found)
		}
	}, engines...)
}
