package faults

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"async-data-processor/faults/rig"
)

// TestWholeWay is the main job, undisturbed: submissions become files, each entry
// once, and the history accounts for all of them.
func TestWholeWay(t *testing.T) {
	on(t, "none", func(c *campaign) {
		if c.Consumer != "" {
			c.server = c.LaunchServer(c, c.environment()...)
		} else {
			c.up()
		}
		c.load = rig.StartLoad(c, c.server, rig.LoadConfig{Clients: 8, Size: 7, Limit: either(300, 10_000)})
		c.load.Done()
		c.up()
		c.check = c.checker()
		c.check.Await(nil)
		consumer, server := c.consumer, c.server
		c.finish()

		tr, records := rig.ReadTree(c, c.dir, shards, c.batch), consumer.History()
		byWorker := make(map[string]int)
		incomplete := 0
		for _, f := range tr.Files {
			byWorker[f.Worker] += f.Lines
			if f.Lines < c.batch {
				incomplete++
			}
			if _, ok := records[f.Worker]; !ok {
				c.Errorf("%s has no worker in the history", f.Name)
			}
		}
		sum := 0
		for id, r := range records {
			sum += r.Messages
			if r.State != "stopped" || byWorker[id] != r.Messages {
				c.Errorf("worker %s: %s with %d messages, its files hold %d", id, r.State, r.Messages, byWorker[id])
			}
		}
		if sum != c.accepted {
			c.Errorf("the history adds up to %d messages, want %d", sum, c.accepted)
		}
		// Only the linger and the drain let an incomplete batch go. All that is
		// consumed from a queue waited there, so these are exceptions.
		if c.Consumer != "" && incomplete > len(tr.Files)/10 {
			c.Errorf("%d of %d files are incomplete", incomplete, len(tr.Files))
		}
		for _, p := range []*rig.Process{server, consumer} {
			if found := p.Errors(); len(found) > 0 {
				c.Errorf("errors in the log: %q", found)
			}
		}
	}, rabbitmq, jetstream, embedded)
}

// TestDrainFlushes: an incomplete batch that would linger for minutes is in a
// file when the process has drained.
func TestDrainFlushes(t *testing.T) {
	on(t, "drain of an incomplete batch", func(c *campaign) {
		c.settings = []string{"BATCH_LINGER=10m", "SHARDS_COUNT=1", "LOG_LEVEL=debug"}
		c.up()
		// The eight messages are one envelope: when the full batch is written, the
		// other three are in the next one.
		_, r, _ := c.server.Post(rig.Entries(0, 8))
		c.consumer.Await("the full batch", func(l rig.Line) bool { return l.Message == "batch written" })
		c.stop()
		tr := rig.ReadTree(c, c.dir, 1, c.batch)
		if n, example := tr.Missing(r.IDs()); n > 0 || len(r.IDs()) != 8 {
			c.Errorf("%d messages were not flushed, one is %s", n, example)
		}
		if len(tr.Files) != 2 {
			c.Errorf("%d files, want one of five and one of three lines", len(tr.Files))
		}
	}, rabbitmq, embedded, jetstream)
}

// TestElasticPool: a backlog makes a pool grow to its maximum and not beyond;
// the history says why.
func TestElasticPool(t *testing.T) {
	on(t, "backlog for an elastic pool", func(c *campaign) {
		c.settings = []string{"SHARDS_COUNT=1", "LOG_LEVEL=debug"}
		c.server = c.LaunchServer(c, c.environment()...)
		ids := c.server.PostAll(20, 500)
		c.up()
		consumer := c.consumer
		consumer.Await("a fourth worker", func(l rig.Line) bool {
			return l.Message == "worker started" && strings.Contains(l.Reason, "batches wait")
		})
		consumer.Await("a worker retired", func(l rig.Line) bool {
			return l.Message == "worker stopped" && l.Reason == "idle"
		})
		c.settled(1, ids)
		alive, most := 0, 0
		for _, l := range consumer.Lines() {
			switch l.Message {
			case "worker started":
				alive++
			case "worker stopped":
				alive--
			}
			most = max(most, alive)
		}
		if most != 4 || alive != 0 {
			c.Errorf("at most %d workers at a time and %d at the end, want 4 and 0", most, alive)
		}
	}, rabbitmq, jetstream)
}

// TestRepeatedRequest: the same request with the same Idempotency-Key, several
// times at once and later again, is written once.
func TestRepeatedRequest(t *testing.T) {
	on(t, "repeated requests", func(c *campaign) {
		const keys, times, size = 10, 6, 7
		c.settings = []string{"LOG_LEVEL=debug"}
		c.up()
		consumer := c.consumer
		var mu sync.Mutex
		known := make(map[string]bool)
		var ids []string
		for round := 1; round <= 2; round++ {
			var clients sync.WaitGroup
			for i := range keys * times {
				clients.Go(func() {
					status, r, _ := c.server.Post(rig.Entries(i%keys*size, size), "Idempotency-Key", fmt.Sprint("key-", i%keys))
					if status != http.StatusCreated || r.Accepted != size {
						c.Errorf("status %d, accepted %d", status, r.Accepted)
					}
					mu.Lock()
					defer mu.Unlock()
					for _, id := range r.IDs() {
						if !known[id] {
							known[id], ids = true, append(ids, id)
						}
					}
				})
			}
			clients.Wait()
			want := round * keys * times * size
			rig.Eventually(c, "every message settled", func() error {
				if got := consumer.Settled(); got.Messages+got.Duplicates != want {
					return fmt.Errorf("%d written and %d duplicates, want %d in all", got.Messages, got.Duplicates, want)
				}
				return nil
			})
		}
		c.settled(shards, ids)
		if len(ids) != keys*size {
			c.Errorf("%d ids, want %d", len(ids), keys*size)
		}
		told := 0 // the history accounts for the duplicates, too
		for _, r := range consumer.History() {
			told += r.Duplicates
		}
		if want := (2*times - 1) * keys * size; told != want {
			c.Errorf("the history tells of %d duplicates, want %d", told, want)
		}
	}, rabbitmq, embedded, jetstream)
}

// TestResharded: with another number of shards, smaller or larger, everything
// that was queued before is written, each message once and to the folder of the
// shard that it was queued for.
func TestResharded(t *testing.T) {
	for _, number := range [][2]int{{8, 3}, {3, 8}} {
		before, after := number[0], number[1]
		t.Run(fmt.Sprint(before, " to ", after), func(t *testing.T) {
			on(t, fmt.Sprintf("%d shards become %d", before, after), func(c *campaign) {
				c.settings = []string{fmt.Sprint("SHARDS_COUNT=", before)}
				if c.Consumer != "" {
					c.server = c.LaunchServer(c, c.environment()...)
				} else {
					// It cannot fill a batch, and does not live to flush one.
					c.batch, c.settings = 1000, append(c.settings, "BATCH_LINGER=10m")
					c.up()
				}
				ids := c.server.PostAll(20, 20)
				c.kill(c.server)
				if files := rig.ReadTree(c, c.dir, before, c.batch).Files; len(files) > 0 {
					c.Errorf("%d files are written, want none", len(files))
				}
				c.consumer, c.batch, c.settings = nil, 5, []string{fmt.Sprint("SHARDS_COUNT=", after)}
				c.up()
				consumer := c.consumer
				for n := after; n < before; n++ {
					consumer.Await("the old queue", func(l rig.Line) bool {
						return strings.HasPrefix(l.Message, "found a queue beyond SHARDS_COUNT") && l.Shard == n
					})
				}
				c.settled(before, ids)
				if found := consumer.Errors(); len(found) > 0 {
					c.Errorf("errors in the log: %q", found)
				}
			}, rabbitmq, jetstream, embedded)
		})
	}
}

// TestReshardedAfterACrash: what is in rolling files when the process dies, of
// which the broker knows nothing any more, is published by one with fewer shards.
func TestReshardedAfterACrash(t *testing.T) {
	on(t, "kill -9, then fewer shards", func(c *campaign) {
		c.batch = 0
		c.settings = []string{"BATCH_SIZE=5", "ROLL_BYTES=1GiB", "ROLL_INTERVAL=1h", "LOG_LEVEL=debug"}
		c.up()
		ids := c.server.PostAll(20, 20)
		rig.Eventually(c, "every accepted message in a hidden file", func() error {
			if n := c.consumer.Settled().Messages; n < len(ids) {
				return fmt.Errorf("%d of %d", n, len(ids))
			}
			return nil
		})
		c.kill(c.consumer)
		if files, hidden := rig.ReadTree(c, c.dir, shards, 0).Files, rig.Temporary(c, c.dir); len(files) > 0 || len(hidden) != shards {
			c.Errorf("files %v and %q, want one of each shard, hidden", files, hidden)
		}
		c.settings = append(c.settings, "SHARDS_COUNT=1")
		c.up()
		consumer := c.consumer
		c.settled(shards, ids)
		if found := consumer.Errors(); len(found) > 0 {
			c.Errorf("errors in the log: %q", found)
		}
	}, embedded)
}
