package faults

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"async-data-processor/faults/rig"
)

const (
	publishTimeout = 5 * time.Second
	// slack is for what a machine that has other things to do adds to a bound.
	slack = 30 * time.Second
	// backAgain is how soon everything has to work after the broker does.
	backAgain = 10 * time.Second
)

// TestRabbitMQ disturbs a RabbitMQ node of its own, in one way after the other.
func TestRabbitMQ(t *testing.T) {
	t.Parallel()
	node := rig.StartNode(t)
	for _, s := range []struct {
		fault    string
		scenario func(*campaign, rig.Node)
	}{
		{"broker absent at start", absent},
		{"broker restarted", func(c *campaign, n rig.Node) {
			restarted(c, func() { n.Do(c, "stop") }, func() { n.Do(c, "start") })
		}},
		{"broker silent (SIGSTOP)", func(c *campaign, n rig.Node) {
			silent(c, func() { n.Do(c, "pause") }, func() { n.Do(c, "resume") })
		}},
		{"memory alarm", func(c *campaign, n rig.Node) {
			alarm(c, n, []string{"set_vm_memory_high_watermark", "0.00001"}, []string{"set_vm_memory_high_watermark", "0.4"})
		}},
		{"disk alarm", func(c *campaign, n rig.Node) {
			alarm(c, n, []string{"set_disk_free_limit", "1000000000000000"}, []string{"set_disk_free_limit", "20MB"})
		}},
		{"broker restarted under listen", func(c *campaign, n rig.Node) {
			listening(c, func() { n.Do(c, "stop") }, func() { n.Do(c, "start") })
		}},
		{"all killed under send", func(c *campaign, n rig.Node) {
			sending(c, func() {
				n.Do(c, "stop")
				n.Do(c, "start")
			})
		}},
	} {
		t.Run(strings.ReplaceAll(s.fault, " ", "-"), func(t *testing.T) {
			s.scenario(newCampaign(t, s.fault, rabbitmq, node.Vhost(t)), node)
		})
	}
}

// absent starts the processes before the broker: they are up, not ready, and
// answer 503 until it is there.
func absent(c *campaign, n rig.Node) {
	for range either(1, 3) {
		if c.load != nil {
			c.stop()
		}
		n.Do(c, "stop")
		c.begin()
		if status, _, _ := c.server.Post(rig.Entries(0, 1)); status != http.StatusServiceUnavailable {
			c.Errorf("status %d without a broker, want 503", status)
		}
		n.Do(c, "start")
		if c.load == nil {
			c.start(rig.LoadConfig{})
		}
		c.load.Aim(c.server)
		c.load.More(1000)
		c.cycle()
	}
	c.finish()
}

// restarted stops the broker in order and starts it again. (After a kill -9 a
// quorum queue of RabbitMQ 3.10 may stay without a leader, rabbitmq-server
// issue 10070.)
func restarted(c *campaign, stop, start func()) {
	c.start(rig.LoadConfig{Pause: 20 * time.Millisecond})
	for range either(1, 20) {
		c.load.More(1000)
		c.moment(time.Second)
		stop()
		c.moment(time.Second)
		start()
		back := time.Now()
		c.server.Ready()
		c.consumer.Ready()
		c.load.More(1)
		if took := time.Since(back); took > backAgain+slack {
			c.Errorf("ready again after %v", took)
		}
		c.cycle()
	}
	c.finish()
}

// TestJetStream kills a NATS server under load and starts it again.
func TestJetStream(t *testing.T) {
	on(t, "broker restarted", func(c *campaign) { restarted(c, c.Stop, c.Broker.Start) }, jetstream)
}

// TestSilentJetStream stops the process of a NATS server for a while.
func TestSilentJetStream(t *testing.T) {
	on(t, "broker silent (SIGSTOP)", func(c *campaign) { silent(c, c.Stall, c.Resume) }, jetstream)
}

// TestNoBroker: without a broker both processes are up, not ready, and stop
// cleanly; the server answers 503, and the log has no password.
func TestNoBroker(t *testing.T) {
	nowhere := rig.Broker{Server: "amqp://guest:hunter2@127.0.0.1:1/", Consumer: "amqp://guest:hunter2@127.0.0.1:1/"}
	on(t, "no broker", func(c *campaign) {
		c.begin()
		processes := []*rig.Process{c.server, c.consumer}
		status, _, header := c.server.Post(rig.Entries(0, 1))
		if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
			c.Errorf("status %d, Retry-After %q", status, header.Get("Retry-After"))
		}
		for _, p := range processes {
			p.Await("the reason", func(l rig.Line) bool { return strings.Contains(l.Error, "refused") })
		}
		c.stop()
		for _, p := range processes {
			if strings.Contains(p.Dump(), "hunter2") {
				c.Errorf("the password is in the log:\n%s", p.Dump())
			}
		}
	}, engine{name: "nowhere", open: func(testing.TB) rig.Broker { return nowhere }})
}

// TestDrainDeadline: a broker that does not answer makes the drain run into its
// deadline; exit 3. What was received is in a file, and in no second one after
// the broker has come back and delivered it again.
func TestDrainDeadline(t *testing.T) {
	on(t, "broker silent in a drain", func(c *campaign) {
		c.settings = []string{"DRAIN_TIMEOUT=200ms", "BATCH_LINGER=10m", "SHARDS_COUNT=1", "LOG_LEVEL=debug"}
		c.up()
		_, r, _ := c.server.Post(rig.Entries(0, 8))
		c.consumer.Await("the full batch", func(l rig.Line) bool { return l.Message == "batch written" })
		c.Stall()
		if code := c.consumer.Stop(); code != 3 {
			c.Errorf("exit %d, want 3", code)
		}
		c.gone(c.consumer)
		c.Stop()
		c.Broker.Start()
		c.settings = []string{"SHARDS_COUNT=1"}
		c.up()
		c.server.Ready()
		c.settled(1, r.IDs())
	}, jetstream)
}

// flat is by how many goroutines a process may differ from itself: a few for
// each of the load's clients, whatever the length of the fault.
const flat = 64

// silent stops the broker's process, so that its connections stay and nothing
// comes: no answer takes longer than the time-out of a publish, and what waits
// does not pile up.
func silent(c *campaign, stall, resume func()) {
	c.settings = []string{"PPROF=true"}
	c.start(rig.LoadConfig{})
	for _, pause := range either([]time.Duration{5 * time.Second}, []time.Duration{5 * time.Second, time.Minute}) {
		c.load.More(1000)
		processes := []*rig.Process{c.server, c.consumer}
		before := [...]int{c.server.Goroutines(), c.consumer.Goroutines()}
		stall()
		time.Sleep(pause)
		for i, p := range processes {
			now := p.Goroutines()
			if now > before[i]+flat {
				c.Errorf("%d goroutines grew to %d", before[i], now)
			}
			c.note("%s of silence: %d to %d goroutines", pause, before[i], now)
		}
		resume()
		c.server.Ready()
		c.load.More(1000)
		c.cycle()
	}
	c.finish()
	if c.tally.Slowest > publishTimeout+slack {
		c.Errorf("an answer took %v", c.tally.Slowest)
	}
}

// alarm lets the broker refuse publishes only: clients hear so at once, and
// what is queued is consumed.
func alarm(c *campaign, n rig.Node, on, off []string) {
	c.start(rig.LoadConfig{Pause: 20 * time.Millisecond})
	for range either(1, 5) {
		c.load.More(500)
		n.Do(c, append([]string{"ctl"}, on...)...)
		refused := func(n int) {
			goal := c.load.Tally().Refused + n
			rig.Eventually(c, "refusals", func() error {
				if got := c.load.Tally().Refused; got < goal {
					return fmt.Errorf("%d, want %d", got, goal)
				}
				return nil
			})
		}
		refused(1) // it may have been on the way when the alarm came
		began := time.Now()
		refused(40) // ten for each client
		if took := time.Since(began); took > slack {
			c.Errorf("40 refusals took %v", took)
		}
		c.check.Await(nil)
		n.Do(c, append([]string{"ctl"}, off...)...)
		c.server.Ready()
		c.load.More(500)
		c.cycle()
	}
	c.finish()
}
