package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"async-data-processor/output"
)

const (
	// defaultRollInterval is how old a file gets of which only the size is set:
	// without a limit, what comes to a quiet shard would not be seen for days.
	defaultRollInterval = time.Minute
	// rollLookShare is the part of the interval in which files are looked at, but
	// rollLookMax at most: so late a file may be. Each look costs a system call.
	rollLookShare = 20
	rollLookMax   = time.Second

	// togetherFiles and togetherRolled bound what a worker takes at a time of a
	// backlog: as many files with an fsync of their folder for all, and as many
	// messages with one of their file.
	togetherFiles  = 8
	togetherRolled = 4096
)

// roll is when files are published that batches are appended to.
func (c Config) roll() output.Roll {
	r := output.Roll{Bytes: c.RollBytes, Interval: c.RollInterval}
	if r.Bytes > 0 && r.Interval == 0 {
		r.Interval = defaultRollInterval
	}
	return r
}

// together is how many messages full batches may have that leave together.
func (c Config) together() int {
	if c.roll().Rolls() {
		return max(c.BatchSize, togetherRolled)
	}
	return c.BatchSize * togetherFiles
}

// roll has the shard's file published when it is due, until ctx ends. While it
// cannot be, or nobody can tell, the process is not ready.
func (c *consuming) roll(ctx context.Context, n int, f folder, o *outage, giveUp func(why error)) {
	interval := c.cfg.roll().Interval
	if interval == 0 {
		return // files do not roll
	}
	tick := time.NewTicker(min(interval/rollLookShare, rollLookMax))
	defer tick.Stop()
	defer c.setUnrolled(n, nil) // then it is the next owner's
	for failed := false; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		err := c.rollOnce(ctx, n, f)
		if ctx.Err() != nil {
			return
		}
		c.setUnrolled(n, err)
		// Whoever is at the file tells what ails the disk.
		turn := errors.Is(err, output.ErrTurn)
		switch {
		case turn:
			c.teller.unrolled(n, err, false)
		case err != nil:
			c.teller.unrolled(n, err, f.RollErr() != nil)
			if why := c.whyGiveUp(o, err); why != nil {
				giveUp(why)
			}
		case failed:
			o.over()
		}
		failed = err != nil && (failed || !turn)
	}
}

// errHangs is why a file is not published while the disk does not answer.
var errHangs = errors.New("the output hangs")

// rollOnce has the file published if it is due. A system call may take for ever,
// and says nothing meanwhile.
func (c *consuming) rollOnce(ctx context.Context, n int, f folder) error {
	told := make(chan struct{})
	hung := time.AfterFunc(c.cfg.WorkerTimeout, func() {
		defer close(told)
		c.setUnrolled(n, errHangs)
		c.teller.unrolled(n, errHangs, false)
	})
	err := f.Roll(ctx)
	if !hung.Stop() {
		<-told // what it says is over
	}
	return err
}

// setUnrolled says why the shard's file is not published, nil if none is late.
func (c *consuming) setUnrolled(n int, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if why == nil {
		delete(c.unrolled, n)
		return
	}
	c.unrolled[n] = why
}

// publishedLater is said of acknowledged entries that are not to be seen yet.
const publishedLater = "what is in the file that is not published is durable, and the next start publishes it"

// closeFolder closes the folder, which publishes its file.
func closeFolder(f folder) error {
	err := f.Close()
	if f.RollErr() != nil {
		return fmt.Errorf("%w; %s", err, publishedLater)
	}
	return err
}
