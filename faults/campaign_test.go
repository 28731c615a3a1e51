package faults

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"syscall"
	"testing"
	"time"

	"async-data-processor/faults/rig"
)

const (
	shards = 5
	// comesAgain is longer than any engine waits before it delivers again what
	// was delivered to a process that is gone, counted from its own start.
	comesAgain = 8 * time.Second
)

// campaign is a scenario on one engine: a pipeline that works under a load,
// while faults come.
type campaign struct {
	*testing.T
	rig.Broker
	row

	rng      *rand.Rand // of the seed and the test's name
	dir      string     // of the output
	rolls    bool       // into rolling files
	batch    int
	shards   int
	settings []string
	began    time.Time

	// Running processes, the same one of an embedded broker; nil if down.
	consumer, server *rig.Process
	load             *rig.Load
	check            *rig.Checker
}

// on runs a scenario on each of the engines, side by side with everything else.
func on(t *testing.T, fault string, scenario func(*campaign), engines ...engine) {
	t.Parallel()
	each(t, (*testing.T).Parallel, fault, scenario, engines)
}

// alone is on for a scenario that measures times: one engine after the other, before all
// scenarios that run side by side.
func alone(t *testing.T, fault string, scenario func(*campaign), engines ...engine) {
	each(t, func(*testing.T) {}, fault, scenario, engines)
}

func each(t *testing.T, begin func(*testing.T), fault string, scenario func(*campaign), engines []engine) {
	for _, e := range engines {
		t.Run(e.testName(), func(t *testing.T) {
			begin(t)
			scenario(newCampaign(t, fault, e, e.open(t)))
		})
	}
}

func newCampaign(t *testing.T, fault string, e engine, b rig.Broker) *campaign {
	hash := fnv.New64()
	hash.Write([]byte(t.Name()))
	c := &campaign{
		T: t, Broker: b, row: row{fault: fault, engine: e.name}, dir: t.TempDir(), rolls: e.rolls, batch: 5, shards: shards, began: time.Now(),
		rng: rand.New(rand.NewPCG(*seed, hash.Sum64())),
	}
	t.Cleanup(func() {
		c.account()
		results.add(c.row)
	})
	return c
}

// account fills the row, of a scenario that came to its end or did not.
func (c *campaign) account() {
	c.took, c.failed = time.Since(c.began), c.Failed()
	if c.check == nil {
		return
	}
	c.lost, _ = c.check.Lost()
	c.twice = c.check.Twice
	c.accepted = c.load.Accepted()
	c.tally = c.load.Tally()
}

// environment is what every process gets.
func (c *campaign) environment(more ...string) []string {
	settings := []string{
		"DATA_OUTPUT_DIR=" + c.dir, "SHARDS_COUNT=" + strconv.Itoa(c.shards), "BATCH_SIZE=" + strconv.Itoa(c.batch),
		"EMBEDDED_MIN_FREE=1048576", "LOG_LEVEL=info",
	}
	if c.rolls {
		settings = append(settings, rolling...)
	}
	return append(append(settings, c.settings...), more...)
}

// start brings the pipeline up and the load on it.
func (c *campaign) start(cfg rig.LoadConfig) {
	c.Helper()
	c.up()
	c.load = rig.StartLoad(c, c.server, cfg)
	c.check = c.checker()
}

// checker judges what becomes of the load.
func (c *campaign) checker() *rig.Checker {
	c.Helper()
	return rig.NewChecker(c, c.dir, c.shards, c.mostLines(), c.load)
}

// mostLines bounds the lines of a file; 0 is no bound.
func (c *campaign) mostLines() int {
	if c.rolls {
		return 0
	}
	return c.batch
}

// up starts what is down and waits until it is ready.
func (c *campaign) up() {
	c.Helper()
	switch {
	case c.Consumer == "" && c.server == nil:
		c.consumer, c.server = c.Launch(c, c.environment()...)
	case c.Consumer != "":
		if c.server == nil {
			c.server = c.LaunchServer(c, c.environment()...)
		}
		if c.consumer == nil {
			c.consumer = c.LaunchConsumer(c, c.environment()...)
		}
	}
	if c.load != nil {
		c.load.Aim(c.server)
	}
}

// begin is up for processes that need not come to be ready.
func (c *campaign) begin() {
	c.Helper()
	if c.Consumer == "" {
		c.consumer = rig.Start(c, "standalone", c.environment("BROKER_URL="+c.Server)...)
		c.server = c.consumer
		return
	}
	c.server = rig.Start(c, "server", c.environment("BROKER_URL="+c.Server)...)
	c.consumer = rig.Start(c, "message-consumer", c.environment("BROKER_URL="+c.Consumer)...)
}

// victims are processes to hurt: the consumer, the server, or both.
func (c *campaign) victims() (found []*rig.Process) {
	if c.Consumer == "" {
		return []*rig.Process{c.server}
	}
	return [][]*rig.Process{{c.consumer}, {c.server}, {c.consumer, c.server}}[c.rng.IntN(3)]
}

// gone takes note that processes have ended.
func (c *campaign) gone(processes ...*rig.Process) {
	for _, p := range processes {
		if p == c.consumer {
			c.consumer = nil
		}
		if p == c.server {
			c.server = nil
		}
	}
}

// kill is kill -9, of all at the same moment.
func (c *campaign) kill(processes ...*rig.Process) {
	c.measure()
	for _, p := range processes {
		p.Signal(syscall.SIGKILL)
		c.kills++
	}
	for _, p := range processes {
		p.Kill()
	}
	c.gone(processes...)
}

// stop stops what is up; each process has to end cleanly: the consumer first,
// because the other may have its broker.
func (c *campaign) stop() {
	c.Helper()
	c.measure()
	for _, p := range []*rig.Process{c.consumer, c.server} {
		if p == nil {
			continue
		}
		if code := p.Stop(); code != 0 {
			c.Errorf("exit %d", code)
		}
	}
	c.server, c.consumer = nil, nil
}

// measure keeps the most memory that a process had.
func (c *campaign) measure() {
	for _, p := range []*rig.Process{c.server, c.consumer} {
		if p != nil {
			c.peak = max(c.peak, p.Usage().Peak)
		}
	}
}

// moment lets a random time pass, so that a fault comes at any point of the work.
func (c *campaign) moment(most time.Duration) {
	time.Sleep(time.Duration(c.rng.Int64N(int64(most))))
}

// cycle counts one, and logs it: a campaign that goes on is not silent.
func (c *campaign) cycle() {
	c.cycles++
	c.Logf("%d cycles, %d kills", c.cycles, c.kills)
}

// note adds a line to the report.
func (c *campaign) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

// written waits until all messages are in files of so many shards.
func (c *campaign) written(shards int, ids []string) {
	c.Helper()
	rig.Eventually(c, "every accepted message in a file", func() error {
		if n, example := rig.ReadTree(c, c.dir, shards, c.mostLines()).Missing(ids); n > 0 {
			return fmt.Errorf("%d of %d missing, one is %s", n, len(ids), example)
		}
		return nil
	})
}

// settled is finish without a load: the messages, and no others, end up in files,
// each once.
func (c *campaign) settled(shards int, ids []string) {
	c.Helper()
	c.written(shards, ids)
	c.stop()
	tr := rig.ReadTree(c, c.dir, shards, c.mostLines())
	if n, example := tr.Twice(); n > 0 || len(tr.Lines) != len(ids) {
		c.Errorf("%d messages in files, want %d; %d twice, one is %s", len(tr.Lines), len(ids), n, example)
	}
	if left := rig.Temporary(c, c.dir); len(left) > 0 {
		c.Errorf("temporary files are left: %v", left)
	}
}

// finish ends the load, lets the dust settle, and judges what is there.
func (c *campaign) finish() {
	c.Helper()
	c.load.Stop()
	c.up()
	c.check.Await(nil)
	c.empty()
	c.check.Final()
	c.account()
	c.Logf("%d entries accepted in %d cycles, %+v", c.accepted, c.cycles, c.tally)
}

// empty stops what is up when the queues are empty.
func (c *campaign) empty() {
	c.Helper()
	c.stop()
	// What was delivered to a process that was killed comes again and is a
	// duplicate: it must not be written.
	rig.Eventually(c, "empty queues", func() error {
		waiting, dead := c.Depth(c, c.shards)
		if dead > 0 {
			c.Fatalf("%d dead letters, of a load without any fault in it", dead)
		}
		if waiting > 0 {
			c.up()
			c.Logf("%d envelopes wait", waiting)
			time.Sleep(comesAgain)
			c.stop()
			return fmt.Errorf("%d envelopes wait", waiting)
		}
		return nil
	})
}
