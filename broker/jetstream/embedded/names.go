package embedded

import (
	"fmt"
	"os"
	"sync"
	"time"

	"async-data-processor/durable"
)

// clockGrain is how far the time of a change of a folder may lag behind the
// clock: file systems take the time of the last tick.
const clockGrain = 20 * time.Millisecond

// names makes the names of a stream's blocks durable. The server syncs what it
// writes to a block before it acknowledges, but not the folder that got a new
// block: where the file system does not do that with the file, a loss of power
// takes the block away by its name.
type names struct {
	dir string

	mu     sync.Mutex // guards what follows; held during the sync, for which all wait
	synced time.Time  // when the last sync began
}

// settle returns when every name that was there when it was called is durable.
// It costs one look at the folder unless that has changed.
func (n *names) settle() error {
	info, err := os.Stat(n.dir)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if info.ModTime().Add(clockGrain).Before(n.synced) {
		return nil
	}
	begin := time.Now()
	if err := durable.SyncDir(n.dir); err != nil {
		return err
	}
	n.synced = begin
	return nil
}

// durable makes the names of a stream's files durable after it has
// acknowledged a publish, for which the whole tree is synced the first time.
func (b *Broker) durable(stream string) error {
	settle := b.names[stream].settle
	if !b.namesSynced.Load() {
		settle = b.store.syncTree
	}
	if err := settle(); err != nil {
		return fmt.Errorf("the names of the store's files are not durable: %w", err)
	}
	b.namesSynced.Store(true)
	return nil
}
