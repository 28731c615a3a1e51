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
	on(t, "1,024 shards", func(c *campaign) {
		c.settings = []string{"SHARDS_COUNT=1024"}
		c.up() // makes the queues
		c.stop()
		began := time.Now()
		c.up()
		took := time.Since(began)
		if took > 3*time.Second+slack {
			c.Errorf("ready after %v", took)
		}
		c.note("ready again after %v", took.Round(10*time.Millisecond))
		consumer := c.consumer
		consumer.Await("the line of all shards", func(l rig.Line) bool { return l.Message == "shards owned" })
		if got := len(consumer.Lines()); got > 50 {
			c.Errorf("%d lines until then", got)
		}
		c.settled(most, c.server.PostAll(20, 10))
		if found := consumer.Errors(); len(found) > 0 {
			c.Errorf("errors in the log: %q", found)
		}
	}, engines...)
}
