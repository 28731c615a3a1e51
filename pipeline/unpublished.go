package pipeline

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
)

// publishLeft has the files published that crashed owners have left in the
// folders of shards beyond the number of shards, until intake ends. What is in
// them the broker has forgotten, so a queue may not be there to tell of them; it
// is not consumed either, because RabbitMQ would declare it again.
func (c *consuming) publishLeft(g *errgroup.Group, intake context.Context) {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		found, err := c.dir.Unpublished(c.cfg.Shards)
		if intake.Err() != nil {
			return
		}
		if err != nil {
			c.teller.notFound(err)
		}
		for _, n := range found {
			if done := c.beginPublishing(n); done != nil {
				c.writing.Add(1)
				g.Go(func() error { // it may have to stand by
					defer c.writing.Done()
					defer done()
					c.publish(intake, n)
					return nil
				})
			}
		}
		select {
		case <-tick.C:
		case <-intake.Done():
			return
		}
	}
}

// publish takes the shard, which publishes its file, and gives it back.
func (c *consuming) publish(intake context.Context, n int) {
	f, err := c.takeShard(intake, n, func() { c.teller.standby(n) })
	switch {
	case err == nil:
		err = closeFolder(f)
	case intake.Err() != nil:
		return // stopped while it stood by or tried
	}
	c.teller.published(n, err)
}

// beginPublishing returns what is to be called when the shard's file is published,
// or nil if this process has the shard, or is about to.
func (c *consuming) beginPublishing(n int) (done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leftovers[n] != nil || c.publishing[n] != nil {
		return nil
	}
	published := make(chan struct{})
	c.publishing[n] = published
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.publishing, n)
		close(published)
	}
}

// awaitPublished waits until the shard is not taken for its file alone: this
// process would stand by for itself.
func (c *consuming) awaitPublished(n int) {
	c.mu.Lock()
	published := c.publishing[n]
	c.mu.Unlock()
	if published != nil {
		<-published // it ends with intake at the latest
	}
}
