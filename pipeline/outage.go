package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"async-data-processor/output"
)

// ErrOutputFailed is returned when the output has failed for longer than
// --output-error-timeout, and not for lack of space. What was in hand is back at
// the broker.
var ErrOutputFailed = errors.New("the output has failed for too long")

const (
	// holdLimit is how long a shard holds a batch before it gives what it has in
	// hand back, and is taken anew when its disk works. It is well under the
	// half hour after which RabbitMQ takes an unacknowledged delivery back, and
	// counts it, over and over.
	holdLimit = 5 * time.Minute
	// takeMin and takeMax bound the wait before a shard that could not be taken
	// is tried again.
	takeMin = 100 * time.Millisecond
	takeMax = 5 * time.Second
)

var (
	// errHeldLong is why a shard is given up.
	errHeldLong = fmt.Errorf("a batch was held for %v", holdLimit)
	// errNotTaken: nobody knows yet whether the shard can be.
	errNotTaken = errors.New("the shard is being taken")
)

// outage is how long the output of a shard has been failing, whether it is to
// be taken or written to. Its methods may be called concurrently.
type outage struct {
	shard int
	dir   string
	// patience is how long a failure may go on; one that has been quiet for
	// longer than quiet has ended by itself.
	patience, quiet time.Duration

	mu    sync.Mutex // guards what follows
	since time.Time  // of the first failure that goes on, zero if none does
	last  time.Time
}

// met takes an error of the output. It returns ErrOutputFailed, with all that
// somebody has to know, if such have gone on for too long. A lack of space may
// go on for ever: it passes. What is no error of the file system, like a batch
// that waits for another, is no failure of the output.
func (o *outage) met(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if output.LacksSpace(err) {
		o.since = time.Time{}
		return nil
	}
	if _, ok := errors.AsType[*fs.PathError](err); !ok {
		return nil
	}
	now := time.Now()
	if o.since.IsZero() || now.Sub(o.last) > o.quiet {
		o.since = now
	}
	o.last = now
	if now.Sub(o.since) < o.patience {
		return nil
	}
	return fmt.Errorf("%w: shard %d in %s: %w; since %s, longer than the %v of --output-error-timeout; "+
		"what was in hand is back at the broker, mend that disk or folder and start again",
		ErrOutputFailed, o.shard, o.dir, err, o.since.Format(time.RFC3339), o.patience)
}

// over ends the failure.
func (o *outage) over() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.since = time.Time{}
}

// take takes the shard's folder, and tries again for as long as the disk does
// not let it: until then nothing is consumed. It returns nil when intake ends,
// or an error when the disk has failed for too long.
func (c *consuming) take(intake context.Context, n int, o *outage) (folder, error) {
	if c.configured(n) {
		c.setUntaken(n, errNotTaken)
	}
	for pause, failed := takeMin, false; ; pause = min(2*pause, takeMax) {
		f, err := c.takeShard(intake, n, func() {
			o.over() // who waits for another process fails in nothing
			c.clearUntaken(n)
			c.teller.standby(n)
		})
		if err == nil {
			if failed {
				o.over() // it was the taking that failed
			}
			c.clearUntaken(n)
			return f, nil
		}
		failed = true
		if intake.Err() != nil {
			return nil, nil // stopped while it stood by or tried
		}
		c.setUntaken(n, err)
		if err := o.met(err); err != nil {
			c.fail(err)
			return nil, err
		}
		c.teller.untaken(n, err, pause)
		select {
		case <-time.After(pause):
		case <-intake.Done():
		}
	}
}

// setUntaken says why the shard is not owned; that it is being taken says less
// than what is known of it already.
func (c *consuming) setUntaken(n int, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if why != errNotTaken || c.untaken[n] == nil {
		c.untaken[n] = why
	}
}

func (c *consuming) clearUntaken(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.untaken, n)
}

// spaceInterval is how often the free space is looked at. The fastest consumer
// writes some ten megabytes in it.
const spaceInterval = 250 * time.Millisecond

// watchSpace tells when the output's disk runs low and when that is over, until
// ctx ends.
func (c *consuming) watchSpace(ctx context.Context) {
	tick := time.NewTicker(spaceInterval)
	defer tick.Stop()
	for told := false; ; {
		low := c.reserve.Look()
		if low == nil {
			c.reserve.Clear()
		}
		if told != (low != nil) {
			told = !told
			c.teller.space(c.dir.Path(), low)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
