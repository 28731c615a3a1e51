package faults

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"async-data-processor/faults/rig"
)

const (
	// manyShards are what several consumers share.
	manyShards = 20
	// sharedSoon and sharedOrderly bound how long a shard is not written when its owner is
	// killed, or ends in order, and how long a new consumer waits for its part.
	sharedSoon    = 10 * time.Second
	sharedOrderly = 2 * time.Second
)

// TestSharedShards lets consumers come, be killed and end in order under load. They
// share the shards, and what a consumer had is written again in time.
func TestSharedShards(t *testing.T) {
	on(t, "consumers come and go, sharing the shards", func(c *campaign) {
		c.shards = manyShards
		c.start(rig.LoadConfig{Pause: 200 * time.Millisecond}) // 2,000 entries a second
		s := &sharers{campaign: c, consumers: []*rig.Process{c.consumer}}
		s.await("one has all", time.Now(), sharedOrderly)
		s.come(2)
		for range either(1, 50) {
			s.come(1)
			s.end("killed", sharedSoon, func(p *rig.Process) { c.kill(p) })
			s.come(1)
			s.end("ended in order", sharedOrderly, func(p *rig.Process) {
				if code := p.Stop(); code != 0 {
					c.Errorf("exit %d", code)
				}
				if d := p.Settled().Duplicates; d > 0 && c.kills == 0 {
					c.Errorf("%d messages were delivered again after hand-overs in order", d)
				}
			})
			c.cycle()
		}
		s.note("a new one has its part after %v, shards of a killed one are written again after %v, of one that ends in order after %v",
			s.took["come"], s.took["killed"], s.took["ended in order"])
		for _, p := range s.consumers[1:] {
			if code := p.Stop(); code != 0 {
				c.Errorf("exit %d", code)
			}
		}
		c.consumer = s.consumers[0]
		c.finish()
	}, rabbitmq, jetstream)
}

// sharers are consumers that share the shards.
type sharers struct {
	*campaign
	consumers []*rig.Process
	took      map[string]time.Duration // the longest of each kind
}

// come starts consumers, and waits until each has its part.
func (s *sharers) come(n int) {
	s.Helper()
	began := time.Now()
	for range n {
		s.consumers = append(s.consumers, s.LaunchConsumer(s, s.environment()...))
	}
	s.await("come", began, sharedSoon)
}

// end ends the first consumer, and waits until the others write its shards.
func (s *sharers) end(how string, within time.Duration, end func(*rig.Process)) {
	s.Helper()
	if s.load != nil {
		s.load.More(500)
	}
	s.moment(200 * time.Millisecond)
	victim := s.consumers[0]
	s.consumers = s.consumers[1:]
	s.campaign.consumer = s.consumers[0]
	began := time.Now()
	end(victim)
	s.await(how, began, within)
}

// await waits until the consumers share all shards. It fails if they do not in time.
func (s *sharers) await(what string, began time.Time, within time.Duration) {
	s.Helper()
	rig.Eventually(s, what, func() error { return s.shared(s.consumers[0]) })
	took := time.Since(began).Round(10 * time.Millisecond)
	if took > within+either(slack, slack/3) { // a long run has the machine for itself
		s.Errorf("%s: after %v, want %v", what, took, within)
	}
	if s.took == nil {
		s.took = make(map[string]time.Duration)
	}
	s.took[what] = max(s.took[what], took)
}

// shared returns an error unless a consumer says that every shard runs, and that each
// of the consumers has its part.
func (s *sharers) shared(p *rig.Process) error {
	var answer struct {
		Shards []struct {
			State, Owner string
		}
	}
	ask(s, p, "shards", &answer)
	owned := make(map[string]int)
	for _, sh := range answer.Shards {
		if sh.State != "running" {
			return fmt.Errorf("a shard is %s", sh.State)
		}
		owned[sh.Owner]++
	}
	var loads []int
	for _, n := range owned {
		loads = append(loads, n)
	}
	if len(loads) != len(s.consumers) || slices.Max(loads)-slices.Min(loads) > 1 || len(answer.Shards) != manyShards {
		return fmt.Errorf("the consumers own %v of %d shards", owned, len(answer.Shards))
	}
	return nil
}

// ask reads what a process answers of the system.
func ask(t testing.TB, p *rig.Process, what string, into any) {
	t.Helper()
	status, text := p.Get("/api/v1/" + what)
	if err := json.Unmarshal([]byte(text), into); err != nil || status != http.StatusOK {
		t.Fatalf("%s: %d %s, %v", what, status, text, err)
	}
}

// TestSharedShardsWithoutBus cuts the bus: everything goes on being written, also what a
// killed consumer had.
func TestSharedShardsWithoutBus(t *testing.T) {
	on(t, "the bus is cut, then a consumer killed", func(c *campaign) {
		c.shards = manyShards
		c.start(rig.LoadConfig{Pause: 200 * time.Millisecond})
		s := &sharers{campaign: c, consumers: []*rig.Process{c.consumer}}
		s.come(1)
		c.CutBus(c)
		time.Sleep(8 * time.Second) // each counts the other as gone, and waits for its shards
		before := s.written()
		c.load.More(2000)
		rig.Eventually(c, "entries written without the bus", func() error {
			for i, now := range s.written() {
				if now < before[i]+500 {
					return fmt.Errorf("a consumer has written %d entries since", now-before[i])
				}
			}
			return nil
		})
		s.end("killed without the bus", takenWithoutBus, func(p *rig.Process) { c.kill(p) })
		c.finish()
	}, rabbitmq)
}

// TestSharedShardsDeniedBus has a nats-server whose user may not use the bus: everything is
// written all the same, also what a killed consumer had.
func TestSharedShardsDeniedBus(t *testing.T) {
	on(t, "the subjects of the bus are denied, then a consumer killed", func(c *campaign) {
		c.shards = manyShards
		c.start(rig.LoadConfig{Pause: 200 * time.Millisecond})
		s := &sharers{campaign: c, consumers: []*rig.Process{c.consumer, c.LaunchConsumer(c, c.environment()...)}}
		c.consumer.Await("the denial", func(l rig.Line) bool { return strings.HasPrefix(l.Message, "no bus, entries are written all the same") })
		for range either(1, 20) {
			before := s.written()
			c.load.More(2000)
			rig.Eventually(c, "entries written without the bus", func() error {
				if now := s.written(); now[0] < before[0]+1000 || now[1] != before[1] {
					return fmt.Errorf("the consumers have written %v, before %v", now, before)
				}
				return nil
			})
			s.end("killed without the bus", takenWithoutBus, func(p *rig.Process) { c.kill(p) })
			s.consumers = append(s.consumers, c.LaunchConsumer(c, c.environment()...))
			c.cycle()
		}
		if code := s.consumers[1].Stop(); code != 0 {
			c.Errorf("exit %d", code)
		}
		c.finish()
	}, engine{name: "jetstream", open: rig.NewSilentNATS})
}

// TestSharedShardsFrozen freezes a consumer for longer than the others wait for its
// beats, and lets it go on. For a moment two have different opinions about every shard.
func TestSharedShardsFrozen(t *testing.T) {
	on(t, "a consumer frozen for ten seconds", func(c *campaign) {
		c.shards = manyShards
		c.start(rig.LoadConfig{Pause: 200 * time.Millisecond})
		s := &sharers{campaign: c, consumers: []*rig.Process{c.consumer}}
		s.come(1)
		for range either(1, 20) {
			frozen := s.consumers[c.rng.IntN(2)]
			frozen.Signal(syscall.SIGSTOP)
			time.Sleep(10 * time.Second)
			frozen.Signal(syscall.SIGCONT)
			s.await("thawed", time.Now(), frozenAgain)
			c.cycle()
		}
		if code := s.consumers[1].Stop(); code != 0 {
			c.Errorf("exit %d", code)
		}
		c.finish()
	}, rabbitmq, jetstream)
}

// frozenAgain is how long a consumer that was frozen may wait for its part. It was gone,
// so it has to be well for two seconds first.
const frozenAgain = 15 * time.Second

// written is how many entries each of the consumers says that it has written.
func (s *sharers) written() (written []int) {
	s.Helper()
	for _, p := range s.consumers {
		var answer struct{ Written int }
		ask(s, p, "overview", &answer)
		written = append(written, answer.Written)
	}
	return written
}

// takenWithoutBus is how long a shard without an owner may wait for one then.
const takenWithoutBus = 10 * time.Second

// TestSharedShardsInOwnFolders lets each consumer write to a folder of its own. After
// hand-overs in order nothing is in two of them, and nothing is lost.
func TestSharedShardsInOwnFolders(t *testing.T) {
	on(t, "consumers with folders of their own", func(c *campaign) {
		c.shards = manyShards
		c.server = c.LaunchServer(c, c.environment()...)
		s := &sharers{campaign: c}
		var dirs []string
		come := func() {
			c.dir = c.TempDir()
			dirs = append(dirs, c.dir)
			s.come(1)
		}
		var ids []string
		come()
		for range either(2, 20) {
			posted := make(chan []string)
			go func() { posted <- c.server.PostAll(300, 20) }()
			come()
			s.end("ended in order", sharedOrderly, func(p *rig.Process) {
				if code := p.Stop(); code != 0 {
					c.Errorf("exit %d", code)
				}
			})
			ids = append(ids, <-posted...)
			c.cycle()
		}
		lines := make(map[string]int)
		rig.Eventually(c, "every accepted message in a file", func() error {
			clear(lines)
			for _, dir := range dirs {
				for id, files := range rig.ReadTree(c, dir, manyShards, c.batch).Lines {
					lines[id] += len(files)
				}
			}
			for _, id := range ids {
				if lines[id] == 0 {
					return fmt.Errorf("%s is missing", id)
				}
			}
			return nil
		})
		c.stop()
		for id, n := range lines {
			if n > 1 {
				c.Errorf("%s is in %d files", id, n)
			}
		}
		c.note("%d entries in %d folders, each once", len(lines), len(dirs))
	}, rabbitmq, jetstream)
}
