package faults

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"async-data-processor/faults/rig"
)

// TestPausedAcrossKills pauses a shard under load by way of the server, and kills its
// owner: before, while and after it takes the command. After an answer 200 no file of the shard appears, at no
// later owner. Resumed, it has all, once.
func TestPausedAcrossKills(t *testing.T) {
	on(t, "kill -9 of the owner of a paused shard", func(c *campaign) {
		c.start(rig.LoadConfig{Pause: 20 * time.Millisecond})
		for n := range either(2, 100) {
			c.load.More(200)
			body := fmt.Sprintf(`{"id":"pause-%d","verb":"pause","target":"shard:2"}`, n)
			if n%2 == 0 { // the owner dies at some point of the command
				owner, server, answer := c.consumer, c.server, make(chan int, 1)
				go func() { answer <- command(server, body) }()
				c.moment(100 * time.Millisecond)
				owner.Signal(syscall.SIGKILL)
				if <-answer == http.StatusOK {
					names := c.visible(2)
					c.kill(owner)
					c.up()
					c.stillPaused(names)
				} else {
					c.kill(owner)
					c.up()
				}
			}
			c.command(body)
			names := c.visible(2)
			c.load.More(200)
			c.moment(100 * time.Millisecond)
			c.kill(c.consumer)
			c.up()
			c.load.More(200)
			c.stillPaused(names)
			c.command(fmt.Sprintf(`{"id":"resume-%d","verb":"resume","target":"shard:2"}`, n))
			c.cycle()
		}
		c.finish()
	}, inBothModes(embedded, jetstream, rabbitmq)...)
}

// command sends a command to the server, until the owner has done it.
func (c *campaign) command(body string) {
	c.Helper()
	rig.Eventually(c, "the answer of the owner", func() error {
		if code := command(c.server, body); code != http.StatusOK {
			return fmt.Errorf("the answer is %d", code)
		}
		return nil
	})
}

// command sends a command to a process. A connection that broke is the status 0.
func command(p *rig.Process, body string) int {
	answer, err := http.Post("http://"+p.Addr+"/api/v1/commands", "application/json", strings.NewReader(body))
	if err != nil {
		return 0
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body) // the process may be gone
	return answer.StatusCode
}

// visible returns the names of the files of a shard.
func (c *campaign) visible(shard int) []string {
	names, err := filepath.Glob(filepath.Join(c.dir, fmt.Sprintf("shard-%d", shard), "*.ndjson"))
	if err != nil {
		c.Fatal(err)
	}
	return names
}

// stillPaused fails if shard 2 has got a file.
func (c *campaign) stillPaused(names []string) {
	c.Helper()
	if now := c.visible(2); !slices.Equal(now, names) {
		c.Errorf("a paused shard had %d files, and has %d", len(names), len(now))
	}
}
