package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"async-data-processor/durable"
	"async-data-processor/event"
	"async-data-processor/output"
)

// room tells whether the output can take what is accepted.
type room struct {
	dir     *output.Dir
	set     watched
	reserve *durable.Watermark
	// store tells that the broker is a store of this process, from which no other one
	// takes messages.
	store bool
	// broken is why the folder cannot be looked at, nil if it can.
	broken atomic.Pointer[error]
}

// watched is the view of a consumer.Set.
type watched interface {
	FolderMet(err error)
	Standby() int
}

// err returns why the output takes nothing new, nil if it does. It never asks the disk,
// which may not answer. It may be called concurrently.
func (r *room) err() error {
	if broken := r.broken.Load(); broken != nil {
		return *broken
	}
	if err := r.reserve.Low(); err != nil {
		return err
	}
	return r.foreign()
}

// foreign returns an error if another process owns shards, and this one has a store of
// its own. What that store holds is not written then. From a broker that both use, the
// other process takes it.
func (r *room) foreign() error {
	if n := r.set.Standby(); r.store && n > 0 {
		return fmt.Errorf("another process owns %d shards in %s, so nothing writes what the store of this process holds; "+
			"give it an --output-dir of its own, or stop the other process", n, r.dir.Path())
	}
	return nil
}

// look asks the disk. It returns why the output takes nothing new.
func (r *room) look() error {
	err := r.dir.Check()
	if err == nil {
		if low := r.reserve.Look(); low == nil {
			r.reserve.Clear()
		} else if low.Cause != nil {
			err = low
		}
	}
	if err == nil {
		r.broken.Store(nil)
	} else {
		r.broken.Store(&err)
	}
	r.set.FolderMet(err)
	return r.err()
}

// roomInterval is how often the output folder and its free space are looked at. The
// fastest consumer writes some thirty megabytes in it.
const roomInterval = 500 * time.Millisecond

// watch tells when the output takes nothing new and when it does again, until ctx ends.
func (r *room) watch(ctx context.Context, events event.Sink) {
	var told error
	low := false
	every(ctx, roomInterval, func() {
		err := r.look()
		if err != nil && told != nil && low == errors.Is(err, syscall.ENOSPC) || err == nil && told == nil {
			return
		}
		if err != nil {
			low = errors.Is(err, syscall.ENOSPC)
		}
		told = err
		events.Send(event.OutputChanged{Dir: r.dir.Path(), Err: err, Low: low})
	})
}
