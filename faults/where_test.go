package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"async-data-processor/faults/rig"
	"async-data-processor/live"
)

// TestWhereAcrossAKill finds messages in their files and lines, says of others that they
// wait for a paused shard, and finds all of them after kill -9 of everything. While the
// owner is gone, what it has is unknown.
func TestWhereAcrossAKill(t *testing.T) {
	on(t, "kill -9 between two looks for a message", func(c *campaign) {
		c.up()
		_, written, _ := c.server.Post(rig.Entries(0, 12), "Prefer", "wait=30")
		c.awaitInFiles(written.IDs())
		c.command(`{"id":"pause","verb":"pause","target":"shard:*","reason":"moving the files"}`)
		_, waiting, _ := c.server.Post(rig.Entries(100, 3))
		for _, id := range waiting.IDs() {
			if l := c.where(id); l.State != live.WhereQueued || l.Why == nil || !strings.Contains(*l.Why, "is paused since") || !strings.Contains(*l.Why, ": moving the files") {
				c.Errorf("%s: %+v", id, l)
			}
		}
		if apart := c.consumer != c.server; apart {
			c.kill(c.consumer)
			for _, id := range []string{written.IDs()[0], waiting.IDs()[0]} {
				if l := c.where(id); l.State != live.WhereUnknown || l.Complete || l.Why == nil || !strings.Contains(*l.Why, "has answered") {
					c.Errorf("without an owner, %s: %+v", id, l)
				}
			}
		}
		c.kill(c.server)
		c.up()
		c.awaitInFiles(written.IDs())
		c.command(`{"id":"resume","verb":"resume","target":"shard:*"}`)
		c.awaitInFiles(waiting.IDs())
		c.stop()
	}, embedded, embedded.rolled(), rabbitmq)
}

// where asks the server where a message is.
func (c *campaign) where(id string) (l live.Location) {
	c.Helper()
	status, text := c.server.Get(live.MessagePath + id)
	if err := json.Unmarshal([]byte(text), &l); err != nil || status != http.StatusOK {
		c.Fatalf("%s: %d %s, %v", id, status, text, err)
	}
	return l
}

// awaitInFiles waits until each message is in the line that it is said to be in.
func (c *campaign) awaitInFiles(ids []string) {
	c.Helper()
	if len(ids) == 0 {
		c.Fatal("nothing was accepted")
	}
	for _, id := range ids {
		rig.Eventually(c, id+" in its file", func() error {
			l := c.where(id)
			if l.State != live.WhereWritten || l.File == nil || l.Line == nil {
				text, err := json.Marshal(l)
				return errors.Join(fmt.Errorf("it is %s", text), err)
			}
			text, err := os.ReadFile(filepath.Join(c.dir, *l.File)) // a rolling one may have got its name since
			if lines := strings.Split(string(text), "\n"); err != nil || len(lines) < *l.Line || !strings.HasPrefix(lines[*l.Line-1], `{"message_id":"`+id+`"`) {
				return errors.Join(fmt.Errorf("it is not in line %d of %s", *l.Line, *l.File), err)
			}
			return nil
		})
	}
}
