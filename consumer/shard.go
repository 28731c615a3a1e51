package consumer

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"async-data-processor/backoff"
	"async-data-processor/event"
	"async-data-processor/output"
	"async-data-processor/workerpool"
)

// shard is the state machine of one shard, from its start to its end.
type shard struct {
	set     *Set
	n       int
	purpose purpose
	// intake ends when the Set drains.
	intake context.Context
	// stopping ends when the shard has to finish what it has; stop ends it.
	stopping context.Context
	stop     context.CancelFunc
	// outage is how long its output has been failing.
	outage outage
	// age knows of the oldest message that is not written.
	age *age
	// unsettled counts the envelopes that were received and not settled.
	unsettled atomic.Int64
	// dead counts the messages that became dead letters.
	dead atomic.Int64
	// consumes tells that the shard has begun to consume its queue.
	consumes atomic.Bool
	// arrivals counts what was received, for flushes.
	arrivals arrivals
	// flushes asks the batcher to flush; it holds one request.
	flushes chan struct{}
	// deciding is held while a command is decided.
	deciding chan struct{}
	// err is why it could not go on; set before ended is closed.
	err   error
	ended chan struct{}

	// Guarded by set.mu.
	state   event.ShardState
	since   time.Time
	why     error            // it does not run
	overdue error            // why a file that is due is not published
	pool    *workerpool.Pool // nil while it does not run
	// folder is nil while the shard has none, or gives it back. control is what the
	// folder has, or had.
	folder   Folder
	control  control
	drain    context.CancelFunc // ends the consuming; nil while the shard does not consume
	giveUp   func(why error)    // nil while it does not consume
	finished bool               // all that it had is written, settled and published
	turn     chan struct{}      // closed at each change of state, folder and control
}

func newShard(s *Set, intake context.Context, n int, p purpose) *shard {
	sh := &shard{set: s, n: n, purpose: p, intake: intake, age: s.ages.of(n), state: event.ShardOpening, since: time.Now(), why: errOpening}
	sh.flushes, sh.deciding = make(chan struct{}, 1), make(chan struct{}, 1)
	sh.ended, sh.turn = make(chan struct{}), make(chan struct{})
	sh.arrivals.current.Store(new(received))
	sh.stopping, sh.stop = context.WithCancel(intake)
	sh.outage = newOutage(&s.cfg, fmt.Sprintf("shard %d in %s", n, s.cfg.Dir.Path()))
	return sh
}

// run goes through the states until the shard is to stop, or can never go on.
func (sh *shard) run(work context.Context) error {
	if sh.purpose == toPublishFile {
		return sh.publishFile()
	}
	for why := errOpening; ; {
		sh.enter(event.ShardOpening, why, 0)
		folder, err := sh.open()
		if folder == nil {
			return err
		}
		err = sh.own(work, folder)
		if sh.stopping.Err() != nil || !errors.Is(err, output.ErrLost) && !errors.Is(err, errHeldLong) {
			return err
		}
		why = err
	}
}

// enter sets the state, and why the shard does not run, and tells of it.
func (sh *shard) enter(state event.ShardState, why error, retry time.Duration) {
	sh.set.mu.Lock()
	if sh.state != state {
		sh.set.countStandby(sh.state, -1)
		sh.state, sh.since = state, time.Now()
		sh.set.countStandby(state, +1)
		if state == event.ShardStandby {
			sh.age.forget()
		}
	}
	sh.why = why
	sh.turned()
	sh.set.mu.Unlock()
	if why == errOpening {
		why = nil // nothing has happened to it
	}
	sh.set.cfg.Events.Send(event.ShardChanged{Shard: sh.n, State: state, Err: why, Retry: retry})
	if state != event.ShardOpening {
		sh.set.opened(sh.n)
	}
}

const (
	// retryMin and retryMax bound the pause before a folder that could not be
	// taken is tried again.
	retryMin = 100 * time.Millisecond
	retryMax = 5 * time.Second
)

// open takes the shard's folder. It tries again for as long as the disk does not
// let it, and nothing is consumed meanwhile. It returns nil when the shard is to
// stop, or with an error when the disk has failed for too long.
func (sh *shard) open() (Folder, error) {
	pause := backoff.Backoff{Min: retryMin, Max: retryMax}
	for failed := false; ; failed = true {
		folder, err := sh.set.cfg.Open(sh.stopping, sh.n, func() {
			sh.outage.over() // waiting for another owner is no failure
			sh.enter(event.ShardStandby, nil, 0)
		})
		if err == nil {
			if err = sh.load(folder); err != nil {
				_ = folder.Close() // nothing was written
			}
		}
		switch {
		case err == nil:
			if failed {
				sh.outage.over() // opening was what had failed
			}
			sh.opened(folder)
			return folder, nil
		case sh.stopping.Err() != nil:
			return nil, nil
		}
		retry := pause.Next()
		sh.enter(event.ShardRetrying, err, retry)
		if err := sh.outage.met(err); err != nil {
			sh.set.fail(err)
			return nil, err
		}
		backoff.Sleep(sh.stopping, retry)
	}
}

func (sh *shard) opened(f Folder) {
	found := f.Rebuilt()
	sh.set.cfg.Events.Send(event.ShardOpened{
		Shard: sh.n, RemovedTemps: f.RemovedTemps(), IDs: found.IDs, Files: found.Files, Beforehand: found.Beforehand,
		Damaged: found.Damaged, Foreign: found.Foreign, Example: found.Example,
		Recovered: found.Recovered, CutBytes: found.Cut, Took: found.Took,
	})
}

// publishFile takes the folder, which publishes the open file that a crash has
// left there, and gives it back.
func (sh *shard) publishFile() error {
	folder, err := sh.set.cfg.Open(sh.stopping, sh.n, func() {
		sh.enter(event.ShardStandby, nil, 0)
	})
	switch {
	case err == nil:
		err = closeFolder(folder)
	case sh.stopping.Err() != nil:
		return nil
	}
	sh.set.cfg.Events.Send(event.LeftFile{Shard: sh.n, Err: err})
	return nil
}

// publishedLater is said of acknowledged messages that are not visible yet.
const publishedLater = "what is in the open file is durable, the next start publishes it"

// waiting tells whether acknowledged messages are durable in a file that is not published.
func waiting(f Folder) bool {
	err := f.RollErr()
	return err != nil && !errors.Is(err, output.ErrDamaged)
}

// closeFolder closes the folder, which publishes its open file.
func closeFolder(f Folder) error {
	err := f.Close()
	if waiting(f) {
		return fmt.Errorf("%w; %s", err, publishedLater)
	}
	return err
}
