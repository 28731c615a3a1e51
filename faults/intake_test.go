package faults

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"async-data-processor/faults/rig"
)

// TestIntakePaused pauses the intake of two servers under load by way of one of them: after
// the answer neither takes anything, nor does one that was killed and is started again.
// Resumed, they do.
func TestIntakePaused(t *testing.T) {
	on(t, "the intake of two servers paused", func(c *campaign) {
		c.start(rig.LoadConfig{Pause: 20 * time.Millisecond})
		other := c.LaunchServer(c, c.environment()...)
		for range either(2, 20) {
			c.load.Aim(c.server)
			c.load.More(500)
			c.intake(other, "pause")
			paused := time.Now() // what was begun before may still be answered with 201
			c.refuses(c.server)
			c.refuses(other)
			c.load.Aim(other)
			c.kill(c.server)
			c.server = c.LaunchServer(c, c.environment()...)
			rig.Eventually(c, "a server that comes is paused", func() error {
				// Until it hears of the pause it may accept; the view still has the killed one.
				if status, text := c.server.Get("/metrics"); status != http.StatusOK || !strings.Contains(text, "adp_intake_paused 1\n") {
					return fmt.Errorf("its metrics have no pause, the answer is %d", status)
				}
				return nil
			})
			c.refuses(c.server)
			c.moment(500 * time.Millisecond)
			if newest := c.load.Newest(); newest.After(paused) {
				c.Errorf("a submission was accepted that was begun %v after the intake was paused", newest.Sub(paused))
			}
			c.intake(c.server, "resume")
			c.load.More(500)
			c.cycle()
		}
		if code := other.Stop(); code != 0 {
			c.Errorf("exit %d", code)
		}
		c.load.Aim(c.server)
		c.finish()
	}, rabbitmq, jetstream)
}

// intake sends a command to the intake until every server has told that it is done.
func (c *campaign) intake(p *rig.Process, verb string) {
	c.Helper()
	rig.Eventually(c, "the answer of the servers", func() error {
		if code := command(p, fmt.Sprintf(`{"verb":%q,"target":"intake"}`, verb)); code != http.StatusOK {
			return fmt.Errorf("the answer to %s is %d", verb, code)
		}
		return nil
	})
}

// refuses fails unless the server says that the intake is paused.
func (c *campaign) refuses(p *rig.Process) {
	c.Helper()
	if status, text := p.Send("/message", rig.Entries(0, 1)); status != http.StatusServiceUnavailable || !strings.Contains(text, "problem:paused") {
		c.Errorf("a server with a paused intake answers %d %s", status, text)
	}
}
