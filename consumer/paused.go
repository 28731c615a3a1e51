package consumer

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"async-data-processor/backoff"
	"async-data-processor/event"
	"async-data-processor/output"
)

const (
	// pausedInterval is how often a pause is told again.
	pausedInterval = 10 * time.Minute
	// pausedLook is how often a paused shard looks whether its folder is still there,
	// and whether its pause is over. Clocks may jump.
	pausedLook = time.Second
)

// received counts the envelopes that were received until a flush.
type received struct {
	unsettled atomic.Int64
	returned  atomic.Bool // one of them went back to the broker unwritten
}

// waits tells whether one of them is not settled.
func (r *received) waits() bool { return r.unsettled.Load() > 0 }

// arrivals counts the envelopes that a shard has received, apart for each flush.
type arrivals struct {
	current atomic.Pointer[received]
	earlier []*received // before the last flush; only used by cut
}

// receive counts an envelope, and returns where.
func (a *arrivals) receive() *received {
	for {
		r := a.current.Load()
		r.unsettled.Add(1)
		if a.current.Load() == r {
			return r
		}
		r.unsettled.Add(-1) // a flush came between, and may have seen none
	}
}

// cut returns what counts all that was received before and is not settled. It has one
// caller at a time.
func (a *arrivals) cut() []*received {
	a.earlier = slices.DeleteFunc(a.earlier, func(r *received) bool { return !r.waits() })
	a.earlier = append(a.earlier, a.current.Swap(new(received)))
	return slices.Clone(a.earlier)
}

// own consumes, and rests while the shard is paused, until it has to give the folder
// back. It closes it.
//
//	running ── pause ──▶ written, settled ──▶ open file published ──▶ paused
//	   ▲                                                                │
//	   └────────────────────── resume, or the end of it ────────────────┘
func (sh *shard) own(work context.Context, f Folder) (err error) {
	for err == nil && sh.stopping.Err() == nil {
		intake, stop := sh.begin()
		if intake == nil {
			err = sh.rest(f)
			continue
		}
		sh.enter(event.ShardRunning, nil, 0)
		err = sh.consume(work, intake, f)
		stop()
		if err == nil && sh.stopping.Err() == nil {
			err = sh.publish(work, f)
		}
		sh.set.mu.Lock()
		sh.drain = nil
		sh.set.mu.Unlock()
	}
	sh.set.mu.Lock()
	sh.folder = nil
	sh.set.mu.Unlock()
	err = sh.end(f, err)
	sh.set.mu.Lock()
	defer sh.set.mu.Unlock()
	sh.finished = err == nil
	return err
}

// begin returns what ends the next consuming, nil if the shard is paused.
func (sh *shard) begin() (intake context.Context, stop context.CancelFunc) {
	sh.set.mu.Lock()
	defer sh.set.mu.Unlock()
	if sh.control.paused(time.Now()) {
		return nil, nil
	}
	sh.control.Pause = nil
	intake, sh.drain = context.WithCancel(sh.stopping)
	return intake, sh.drain
}

// publish publishes the open file of a shard that has written all it has. It goes on
// until it succeeds, the shard is to stop, or the output is given up.
func (sh *shard) publish(work context.Context, f Folder) error {
	pause := backoff.Backoff{Min: retryMin, Max: retryMax}
	defer sh.setOverdue(nil)
	for failed := false; ; {
		err := f.Flush(work)
		switch {
		case err == nil:
			if failed {
				sh.outage.over()
			}
			return nil
		case sh.stopping.Err() != nil:
			return nil // Close tries once more, and tells
		case errors.Is(err, output.ErrTurn):
			continue
		}
		failed = true
		sh.setOverdue(err)
		sh.tellOverdue(err, waiting(f))
		if why := sh.hopeless(err); why != nil {
			return why
		}
		backoff.Sleep(sh.stopping, pause.Next())
	}
}

// rest waits until the pause is over, or the shard is to stop. It returns an error when
// the folder is lost.
func (sh *shard) rest(f Folder) error {
	sh.enter(event.ShardPaused, nil, 0)
	look, again := time.NewTicker(pausedLook), time.NewTicker(pausedInterval)
	defer look.Stop()
	defer again.Stop()
	for told := (*Pause)(nil); ; {
		sh.set.mu.Lock()
		c, turn := sh.control, sh.turn
		sh.set.mu.Unlock()
		if !c.paused(time.Now()) {
			return nil
		}
		if told != c.Pause {
			told = c.Pause
			sh.set.cfg.Events.Send(event.ShardIsPaused{
				Shard: sh.n, Since: told.Since, Until: told.Until, Reason: told.Reason, By: told.By, Damaged: told.Damaged,
			})
		}
		select {
		case <-turn:
		case <-again.C:
			told = nil
		case <-look.C:
			if err := f.Held(); errors.Is(err, output.ErrLost) {
				return err
			}
			if p := keepOldest(sh, f); p != nil {
				told = p
			}
		case <-sh.stopping.Done():
			return nil
		}
	}
}
