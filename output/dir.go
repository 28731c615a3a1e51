package output

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"async-data-processor/durable"
	"async-data-processor/output/committed"
)

var (
	// errMoved: a new process would find another output folder. The folder is not
	// made again here, because what is missing may be a mount.
	errMoved = errors.New("the output folder was moved away, removed or replaced; put it back, or start again")

	// errBusy: another process, or another Shard of this one, has the lock.
	errBusy = errors.New("another process owns the shard's folder")
)

// standbyInterval is how often a standby asks for the lock. It bounds how long
// a shard stays without an owner after a crash.
const standbyInterval = 200 * time.Millisecond

// seekInterval is how often a standby tells the owner that it waits.
const seekInterval = 2 * time.Second

// Dir is the output folder. Its methods may be called concurrently.
type Dir struct {
	// Rescued, unless nil, is told of each rolling file that another program had removed
	// or replaced, once its acknowledged bytes are in another one. It must not block.
	// Set before the first Shard, read-only after.
	Rescued func(shard int, file string, bytes int64)
	// Synced, unless nil, is told how long each fsync took that a message waits for. It
	// is called concurrently, and must not block. Set before the first Shard, read-only
	// after.
	Synced func(took time.Duration)
	// Recorder, unless nil, records the published files of each shard that this process
	// owns. Set before the first Shard, read-only after.
	Recorder Recorder
	// Seeks, unless nil, tells whether this process could write a shard that it waits for.
	// Then the owner is told, also where it cannot be reached in another way: see
	// Shard.Sought. Set before the first Shard, read-only after.
	Seeks func() bool

	root   *os.Root
	path   string // absolute, so that a change of working directory does not matter
	names  syncer // of the shards' folders, which are opened at the same time
	window Window
	roll   Roll

	mu       sync.Mutex         // guards legacies
	legacies map[string]*legacy // by the shard's name

	// Set before the first Shard, read-only after; tests put theirs in.
	now     func() time.Time
	standby time.Duration
	sync    func(path string) error
	wrap    func(folder) folder
}

// Open returns the output folder at dir. A missing one is made, parents included,
// and durable when Open returns. Each of its shards remembers what w says, and
// rolls its files as r says. If the folder cannot be used, the error says which
// one, why, and what to do about it.
func Open(dir string, w Window, r Roll) (*Dir, error) {
	if w.IDs < 1 || w.Age <= 0 {
		return nil, fmt.Errorf("output folder: a window of %d ids for %v remembers nothing", w.IDs, w.Age)
	}
	if r.Bytes < 0 || r.Interval < 0 {
		return nil, fmt.Errorf("output folder: files cannot be rolled at %d bytes and %v", r.Bytes, r.Interval)
	}
	path, err := durable.Folder("output folder", dir, 0o755)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open output folder: %w", err)
	}
	d := &Dir{
		root: root, path: path, window: w, roll: r, legacies: make(map[string]*legacy),
		now: time.Now, standby: standbyInterval, sync: durable.SyncDir,
	}
	d.names.folder = parent{d}
	return d, nil
}

// Path is the folder's absolute path.
func (d *Dir) Path() string { return d.path }

// Close closes the output folder. The shards opened from it stay open.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.legacies {
		if r := l.orphan.Swap(nil); r != nil {
			_ = r.f.Close() // its entries are lost, as its shard's Close has said
		}
	}
	return d.root.Close()
}

// legacy returns what the owners of a shard leave each other.
func (d *Dir) legacy(name string) *legacy {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.legacies[name] == nil {
		l := &legacy{window: committed.New(d.window.IDs, d.window.Unsettled, d.window.Age), rescued: func(string, int64) {}}
		if n, ok := ParseShard(name); ok && d.Rescued != nil {
			l.rescued = func(file string, bytes int64) { d.Rescued(n, file, bytes) }
		}
		d.legacies[name] = l
	}
	return d.legacies[name]
}

// await is acquire once no other process owns the shard's folder. Meanwhile p reads its
// files: first all that the window needs, so that the owner is asked for the shard when
// little is left to do.
func (d *Dir) await(ctx context.Context, name string, p *preread, onStandby func()) (folder, error) {
	began, told := time.Now(), onStandby == nil
	for sought := (time.Time{}); ; {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("wait for %s: %w", name, context.Cause(ctx))
		}
		// A standby starts over each time, so that it never waits for the lock
		// of a folder that was moved away meanwhile.
		f, err := d.acquire(name)
		if !errors.Is(err, errBusy) {
			return f, err
		}
		if d.Seeks != nil && time.Since(sought) >= seekInterval && d.Seeks() {
			sought = time.Now()
			_ = d.root.Chtimes(filepath.Join(name, lockName), time.Time{}, sought) // the owner may be gone by now
		}
		more := p.step(ctx, time.Now().Add(d.standby))
		if !told && (!more || time.Since(began) >= prereadPatience) {
			told = true
			onStandby()
		}
		if more {
			continue
		}
		pause := time.NewTimer(d.standby)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

// acquire makes and opens the folder and takes its lock, or fails with errBusy.
func (d *Dir) acquire(name string) (folder, error) {
	if err := d.Check(); err != nil {
		return nil, err
	}
	path := filepath.Join(d.path, name)
	if err := d.root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, failed("mkdir", path, err)
	}
	root, err := d.root.OpenRoot(name)
	if err != nil {
		return nil, failed("open", path, err)
	}
	disk, err := lock(root, path)
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	if d.wrap != nil {
		return d.wrap(disk), nil
	}
	return disk, nil
}

// Check fails unless the output folder is what is found at its path. It asks the disk.
func (d *Dir) Check() error {
	ours, err := d.root.Stat(".")
	if err != nil {
		return failed("stat", d.path, err)
	}
	found, err := os.Stat(d.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(ours, found) {
		err = errMoved
	}
	if err != nil {
		return failed("stat", d.path, err)
	}
	return nil
}

// syncName makes the name of a shard's folder durable. It is done for an old
// folder too: an earlier process may have died before it came to this. Shards that
// are opened at the same time share an fsync.
func (d *Dir) syncName(name string) error {
	names, err := d.names.begin()
	if err == nil {
		err = names.sync()
	}
	if err != nil {
		return fmt.Errorf("make the name %s durable: %w", name, err)
	}
	return nil
}

// parent is the output folder as a syncer uses it.
type parent struct{ dir *Dir }

func (p parent) open() (handle, error) { return p, nil }
func (p parent) Sync() error           { return p.dir.sync(p.dir.path) }
func (p parent) Close() error          { return nil }
