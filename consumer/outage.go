package consumer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"async-data-processor/message"
	"async-data-processor/output"
)

// holdLimit is how long a shard keeps a batch that cannot be written, before it
// returns what it has received and is opened anew. An attempt under way is finished
// first, so it may be up to a worker's time-out more: 10 minutes when the disk is
// slow. Both are well under the half hour after which RabbitMQ takes an
// unacknowledged delivery back, and counts it.
const holdLimit = 5 * time.Minute

// stopLimit is how long a shard that is to stop keeps such a batch: another process
// waits for the shard.
const stopLimit = 5 * time.Second

// errStopping is why a shard returns what it has when it is to stop.
var errStopping = fmt.Errorf("could not write for %v, and another process is to own the shard", stopLimit)

// errHeldLong is why a shard returns what it has received.
var errHeldLong = fmt.Errorf("could not write for %v", holdLimit)

// policy returns what decides whether a batch that cannot be written is tried
// again. If not, the whole shard is given up: its other batches would fare no
// better.
func (sh *shard) policy(giveUp func(why error)) func(error, time.Duration) error {
	return func(err error, failingFor time.Duration) error {
		why := sh.hopeless(err)
		if why == nil && failingFor >= holdLimit {
			why = errHeldLong
		}
		if why == nil && failingFor >= stopLimit && sh.stopping.Err() != nil && sh.intake.Err() == nil {
			why = errStopping
		}
		if why != nil {
			giveUp(why)
		}
		return why
	}
}

// hopeless returns why it makes no sense to try the output of the shard again,
// nil if it does.
func (sh *shard) hopeless(failed error) error {
	if errors.Is(failed, output.ErrLost) {
		return failed
	}
	if err := sh.outage.met(failed); err != nil {
		sh.set.fail(err)
	}
	return context.Cause(sh.set.failed)
}

// outage is how long the output of a shard, or the folder of all, has been failing,
// whether it is opened, looked at or written to. Its methods may be called concurrently.
type outage struct {
	what string // "shard 3 in /data"
	// patience is how long a failure may go on. One that has been quiet for
	// longer than quiet has ended by itself.
	patience, quiet time.Duration

	mu    sync.Mutex // guards what follows
	since time.Time  // of the first failure that goes on, zero if none does
	last  time.Time
}

// met takes an error of the output. It returns ErrOutputFailed, with what the
// user has to know, if such errors have gone on for too long. A lack of space, or
// of descriptors, may go on for ever: it passes. What is no error of the file system, like a batch
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
	return fmt.Errorf("%w: %s: %w; since %s, longer than the %v of --output-error-timeout; "+
		"unwritten messages are back at the broker, repair that disk or folder and start again",
		ErrOutputFailed, o.what, err, o.since.Format(time.RFC3339), o.patience)
}

// over ends the failure.
func (o *outage) over() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.since = time.Time{}
}

// recovering is a folder whose outage a write ends that succeeds.
type recovering struct {
	Folder
	outage *outage
}

func (r recovering) Write(ctx context.Context, worker string, b *message.Batch) (file string, written []message.Message, err error) {
	file, written, err = r.Folder.Write(ctx, worker, b)
	if err == nil && len(written) > 0 {
		r.outage.over()
	}
	return file, written, err
}
