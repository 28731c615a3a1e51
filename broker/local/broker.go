package local

import (
	"context"
	"errors"
	"sync"
	"time"

	"async-data-processor/durable"
	"async-data-processor/event"
)

const (
	// DefaultMinFree is how much of its disk a broker keeps free, in bytes. There is
	// room for what is published between two looks at the disk.
	DefaultMinFree = 256 << 20
	// watchInterval is how often the free space, the lock and the size of the file
	// are looked at.
	watchInterval = time.Second
	// compactPause is between attempts that fail. The file stays as it is meanwhile.
	compactPause = time.Minute
	// settleDelay bounds how much comes again after a crash. It costs an idle
	// broker a commit after its last publish.
	settleDelay = 10 * time.Millisecond
	// closeTimeout is longer than a slow disk takes.
	closeTimeout = 10 * time.Second
)

// FileConfig says what a Broker is.
type FileConfig struct {
	// Dir is the folder of the store. It is made if it is missing.
	Dir string
	// Shards is the number of shards that the process publishes to.
	Shards int
	// MinFree is how many bytes of the disk are kept free: below it nothing is
	// published, until an eighth more is free.
	MinFree int64
	// Events hears of the store. It must not call the broker.
	Events event.Sink
}

// Broker is the client of an engine of its own over a File.
type Broker struct {
	*Client
	engine  *Engine
	file    *File
	space   *durable.Watermark
	quit    chan struct{}
	watched sync.WaitGroup
	closing sync.Once
	closed  error
}

// Open takes the store and opens it. It gives up when ctx ends.
func Open(ctx context.Context, cfg FileConfig) (*Broker, error) {
	file, err := OpenFile(cfg.Dir, func(done, total int64) {
		cfg.Events.Send(event.StoreChecked{Dir: cfg.Dir, Done: done, Total: total})
	})
	if err != nil {
		return nil, err
	}
	if file.created {
		cfg.Events.Send(event.StoreCreated{Dir: cfg.Dir})
	}
	b := &Broker{file: file, space: durable.NewWatermark(file.dir, cfg.MinFree), quit: make(chan struct{})}
	b.engine = New(Config{Store: file, SettleDelay: settleDelay, Admit: b.space.Check, CloseTimeout: closeTimeout})
	b.Client = b.engine.Client(cfg.Shards, cfg.Events)
	if err := b.engine.Open(ctx); err != nil {
		return nil, errors.Join(err, b.engine.Close())
	}
	b.watched.Go(b.watch)
	return b, nil
}

// Close stores the settles made so far, and gives the store to the next process. It
// may be called more than once.
func (b *Broker) Close() error {
	b.closing.Do(func() {
		close(b.quit)
		b.closed = errors.Join(b.Client.Close(), b.engine.Close())
		if b.closed == nil { // else the disk may hold it
			b.watched.Wait()
		}
	})
	return b.closed
}

// watch looks at the free space, at the lock, and at how much of the file is in use.
func (b *Broker) watch() {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	var commits uint64
	var pause time.Time // no file is made smaller before
	for {
		select {
		case <-tick.C:
		case <-b.quit:
			return
		}
		minSize := int64(minCompact)
		if low := b.space.Look(); low != nil {
			b.engine.Block(low)
			minSize = minCompactLow // the space may be free in the file
		} else {
			b.space.Clear()
			b.engine.Block(nil)
		}
		if err := b.file.Check(); err != nil {
			b.engine.Fail(err)
		}
		if n := b.file.commits.Load(); n != commits {
			commits = n // not idle since the last look
		} else if time.Now().After(pause) && b.file.Compact(minSize) != nil {
			pause = time.Now().Add(compactPause)
		}
	}
}
