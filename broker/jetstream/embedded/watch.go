package embedded

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"async-data-processor/broker/conn"
	"async-data-processor/broker/jetstream"
	"async-data-processor/durable"
	"async-data-processor/event"
)

const (
	// watchInterval is how often the server is looked at. It bounds how long
	// publishes meet a server that cannot store, and how much of the end of a
	// store could be cut off after a crash and not be missed.
	watchInterval = 250 * time.Millisecond
	// Waits between restarts of a server that met an error: they double from
	// the first to the second, and start over after a quiet time as long.
	minRestart = time.Second
	maxRestart = 30 * time.Second
)

// watcher is the state of watch, and its goroutine's alone.
type watcher struct {
	*Broker
	highWaters map[string]*highWater
	ill        error // why it has to be restarted; nil once it was
	restart    time.Duration
	next       time.Time // not restarted again before
}

// watch keeps the server able to store until the broker is closed.
func (b *Broker) watch() {
	w := watcher{Broker: b, highWaters: map[string]*highWater{}}
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		w.look(time.Now())
		select {
		case <-tick.C:
		case <-b.quit:
			w.record() // the last known state is the better one
			for _, f := range w.highWaters {
				_ = f.close() // it was never promised to be on disk
			}
			return
		}
	}
}

// look is what watch does at a time.
func (w *watcher) look(at time.Time) {
	full := w.space.Look()
	if full == nil && w.space.Low() != nil {
		w.restart, w.next = 0, at // it was full, which changes everything
	}
	w.record()
	if w.ill == nil {
		w.ill = w.fault(full)
	}
	switch {
	case w.ill != nil:
		w.setDown(w.ill)
		if !at.Before(w.next) && !errors.Is(w.ill, errStuck) && w.room(full) {
			w.again(at)
		}
	case at.After(w.next.Add(maxRestart)):
		w.restart = 0
	}
	if full == nil && w.ill == nil {
		w.space.Clear()
	}
	// Asked here as well, so that people hear of a full disk, and of space
	// again, when nothing is published.
	_ = w.Ready()
}

// room tells whether a restart makes sense. Without a byte left the server
// would only meet the same error, but long before there is enough for
// publishes again it can be drained.
func (w *watcher) room(full *durable.LowError) bool {
	return full == nil || full.Cause == nil && full.Free > w.cfg.MinFree/4
}

// fault returns why the server, which runs, has to be restarted, or nil.
func (w *watcher) fault(full *durable.LowError) error {
	i := w.running()
	if i.log.erred.Swap(false) {
		if err := i.unhealthy(); err != nil {
			return err
		}
		// A disk without space leaves errors in the server that nothing but a
		// restart takes away, and not all of them show in its health.
		if full != nil && full.Free <= w.cfg.MinFree/8 {
			return errors.New("the embedded server met an error on a full disk" + i.log.last())
		}
	}
	if !i.JetStreamEnabled() {
		return i.unhealthy()
	}
	if full != nil {
		return nil
	}
	return w.limitReached(i)
}

// limitReached tells whether the limit of the store, which is from the free space
// at the start, is about to refuse what the disk has room for.
func (w *watcher) limitReached(i *instance) error {
	const near, worth = 64 << 20, 1 << 20
	stats := i.GlobalAccount().JetStreamUsage()
	left := i.limit - int64(stats.Store)
	if left > max(w.cfg.MinFree, near) {
		return nil
	}
	now, err := storeLimit(w.store, w.cfg.MinFree)
	if err != nil || now-i.limit < max(4*left, worth) {
		return nil
	}
	return fmt.Errorf("the embedded server's limit of %d MiB is almost reached, though the disk has more room now", i.limit>>20)
}

// again restarts the server on the same store.
func (w *watcher) again(at time.Time) {
	w.restart = min(max(2*w.restart, minRestart), maxRestart)
	w.next = at.Add(w.restart)
	w.ill = w.stop()
	if w.ill == nil {
		w.ill = w.start(false)
	}
	if w.ill != nil {
		w.setDown(w.ill)
		w.cfg.Events.Send(event.Connection{State: event.Lost, Role: conn.Publish, Shard: -1, Err: w.ill, Retry: w.restart})
	}
}

func (w *watcher) setDown(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = err
}

// record raises the highWaters.
func (w *watcher) record() {
	i := w.running()
	if i == nil {
		return
	}
	streams, err := i.streams()
	if err != nil {
		return // the server is about to be restarted
	}
	w.deleted(streams)
	for _, stream := range streams {
		// Those of others may be in memory, and are not checked for us.
		if stream.Name != jetstream.ShardStream && stream.Name != jetstream.DeadStream {
			continue
		}
		f := w.highWaters[stream.Name]
		if f == nil {
			var err error
			if f, err = w.store.openHighWater(stream.Name); err != nil {
				continue // a full disk; the next look tries again
			}
			w.highWaters[stream.Name] = f
		}
		if stream.State.LastSeq != f.last {
			// For dead letters and for those who publish from another process,
			// who are not made to wait for it.
			_ = durable.SyncDir(w.store.path(streamsPath, stream.Name, messagesName))
		}
		_ = f.set(stream.State.LastSeq)
	}
}

// deleted lowers the highWaters of streams that an operator has deleted.
func (w *watcher) deleted(streams []server.StreamDetail) {
	for name, f := range w.highWaters {
		if !slices.ContainsFunc(streams, func(s server.StreamDetail) bool { return s.Name == name }) {
			_ = f.set(0)
		}
	}
}

// start checks the store and starts a server on it.
func (b *Broker) start(accept bool) error {
	repaired, err := b.store.admit(accept)
	if err != nil {
		return err
	}
	for _, d := range repaired {
		b.cfg.Events.Send(event.StoreRepaired{Err: errors.New(d.String())})
	}
	// From here on the server changes its blocks.
	if err := b.store.forgetManifest(); err != nil {
		return err
	}
	i, err := startServer(b.store, b.cfg)
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.server, b.down = i, nil
	b.mu.Unlock()
	return nil
}

// stop stops the server, if one runs.
func (b *Broker) stop() error {
	b.mu.Lock()
	i := b.server
	b.server = nil
	b.mu.Unlock()
	if i == nil {
		return nil
	}
	err := i.stop()
	if errors.Is(err, errStuck) {
		b.mu.Lock()
		b.stuck = true
		b.mu.Unlock()
	}
	return err
}
