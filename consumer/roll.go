package consumer

import (
	"context"
	"errors"
	"time"

	"async-data-processor/event"
	"async-data-processor/output"
)

const (
	// rollLookShare is the part of the interval in which open files are looked at,
	// but rollLookMax at most: a file may be so late. Each look costs a system call.
	rollLookShare = 20
	rollLookMax   = time.Second
)

// errHangs is why a file is not published while the disk does not answer.
var errHangs = errors.New("the output hangs")

// roll has the shard's file published when it is due, until ctx ends. While it
// cannot be, the shard's status says so.
func (sh *shard) roll(ctx context.Context, f Folder, giveUp func(why error)) {
	interval := sh.set.cfg.RollInterval
	if interval == 0 {
		return // files do not roll
	}
	tick := time.NewTicker(min(interval/rollLookShare, rollLookMax))
	defer tick.Stop()
	defer sh.setOverdue(nil) // then it is the next owner's
	for failed := false; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		err := sh.rollOnce(ctx, f)
		if ctx.Err() != nil {
			return
		}
		sh.setOverdue(err)
		waits := errors.Is(err, output.ErrTurn) // for a worker, which meets what ails the disk
		switch {
		case waits:
			sh.tellOverdue(err, false)
		case err != nil:
			sh.tellOverdue(err, waiting(f))
			if why := sh.hopeless(err); why != nil {
				giveUp(why)
			}
		case failed:
			sh.outage.over()
		}
		failed = err != nil && (failed || !waits)
	}
}

// rollOnce has the file published if it is due. A system call may take for ever,
// and tells nothing meanwhile.
func (sh *shard) rollOnce(ctx context.Context, f Folder) error {
	told := make(chan struct{})
	hung := time.AfterFunc(sh.set.cfg.WorkerTimeout, func() {
		defer close(told)
		sh.setOverdue(errHangs)
		sh.tellOverdue(errHangs, false)
	})
	err := f.Roll(ctx)
	if !hung.Stop() {
		<-told // what it says is over
	}
	return err
}

func (sh *shard) setOverdue(why error) {
	sh.set.mu.Lock()
	defer sh.set.mu.Unlock()
	sh.overdue = why
}

func (sh *shard) tellOverdue(err error, durable bool) {
	sh.set.cfg.Events.Send(event.FileOverdue{Shard: sh.n, Err: err, Durable: durable, Damaged: errors.Is(err, output.ErrDamaged)})
}
