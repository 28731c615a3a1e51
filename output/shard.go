package output

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"async-data-processor/message"
	"async-data-processor/output/committed"
)

// Shard is one shard's folder, owned by this process until Close. Its methods
// may be called concurrently.
//
//	Shard ──┬── attempt    one write of one batch; its Write's goroutine has it
//	        ├── appender   the rolling file; the caller that has the turn has it
//	        ├── undo       what failed attempts owe; under its own lock
//	        ├── window     the ids in durable files, and those being written
//	        └── shardDir   what all of them use
type Shard struct {
	dir      *shardDir
	window   *committed.Window
	undo     *undo
	appender *appender

	sign time.Time // that Sought saw last; only used by Sought

	// Set by Dir.Shard, read-only after.
	removedTemps int
	rebuilt      Rebuilt
}

// Known is what a shard knows of a submission, and Memory how far back it remembers.
type (
	Known  = committed.Known
	Memory = committed.Memory
)

// legacy is what the owners of a shard in this process leave each other: another one
// takes the shard after the folder was given away or lost.
type legacy struct {
	// window is the ids that this process has committed or found in files. So a folder
	// that was moved away does not make it forget.
	window *committed.Window
	// ids are those in the names of the folder's files.
	ids message.Sequence
	// probeSize is the size of the largest file for which there was no room, until
	// a probe finds room.
	probeSize atomic.Int64
	// orphan is the rolling file that the last owner has lost with its folder; only its
	// descriptor is left, which the next one publishes.
	orphan atomic.Pointer[rolling]
	// rescued is told of each rescue. Read-only.
	rescued func(file string, bytes int64)
}

// shardDir is the folder of a shard: its names, its fsync, and until when this
// process may change it.
type shardDir struct {
	folder
	name   string // relative to the output folder: "shard-0"
	syncer syncer
	now    func() time.Time
	*legacy
	// publications is nil if no one records them. Set by Dir.Shard, read-only after.
	publications *Publications

	// gate keeps Close from giving the lock away while the folder changes. Close
	// holds it alone. Others hold it shared: an attempt from its request for the
	// right to publish until its files are durable or undone, a caller of the
	// appender as long as it is there.
	gate sync.RWMutex

	mu      sync.Mutex // guards what follows
	closed  bool
	writers int // Writes that are running; the last one closes the folder
}

// Shard opens the folder shard-<n>, made if missing. It waits until no other
// process owns it, or until ctx is done; then it fails with ctx's cause. If it
// has to wait it reads the files first, for 10 seconds at most, and then calls onStandby,
// once; nil is allowed. While it waits it reads what is new now and then. The lock of
// another owner ends with its Close or with its process.
//
// When Shard returns:
//
//   - the temporary files of an earlier owner are removed (see RemovedTemps);
//   - the rolling files of an earlier owner are published;
//   - the folder has just taken a file (see attempt.probe);
//   - every visible name is durable;
//   - the ids in the newest files are in the window (see Rebuilt).
//
// One of our files that cannot be read fails Shard: without its ids, messages
// might be written twice and unnoticed. After an error nothing is held, and Shard
// may be called again: a disk that is full or fails may recover.
func (d *Dir) Shard(ctx context.Context, n int, onStandby func()) (*Shard, error) {
	name := ShardName(n)
	l := d.legacy(name)
	p := &preread{dir: d, name: name, window: l.window}
	defer p.close()
	f, err := d.await(ctx, name, p, onStandby)
	if err != nil {
		return nil, err
	}
	p.match(f)
	s := newShard(f, name, l, d.roll, d.now)
	s.dir.syncer.synced = d.Synced
	if d.Recorder != nil {
		s.dir.publications = newPublications(s.dir, n, d.Recorder)
	}
	if err := d.syncName(name); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.takeOver(ctx, d.window, p); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if d.Recorder != nil {
		d.Recorder.Opened(s.dir.publications)
	}
	return s, nil
}

func newShard(f folder, name string, l *legacy, r Roll, now func() time.Time) *Shard {
	dir := &shardDir{folder: f, name: name, syncer: syncer{folder: f}, now: now, legacy: l}
	u := &undo{dir: dir}
	return &Shard{
		dir: dir, window: l.window, undo: u,
		appender: &appender{dir: dir, undo: u, roll: r, turn: make(chan struct{}, 1)},
	}
}

// takeOver makes the folder of an earlier owner this one's.
func (s *Shard) takeOver(ctx context.Context, w Window, p *preread) error {
	began := time.Now()
	files := newest{limit: w.IDs, now: s.dir.now()}
	if err := s.cleanUp(ctx, &files); err != nil {
		return err
	}
	if err := (&attempt{dir: s.dir, undo: s.undo}).probe(); err != nil {
		return err
	}
	// Also for the names that a crashed owner published last: its fsync may never
	// have happened, and the broker forgets a message that is in a visible file.
	if err := s.dir.syncNames(); err != nil {
		return err
	}
	err := s.rebuildWindow(ctx, &files, p)
	s.rebuilt.Took = time.Since(began)
	return err
}

// cleanUp removes the temporary files, and publishes the rolling ones. It adds
// the names of visible files to files.
func (s *Shard) cleanUp(ctx context.Context, files *newest) error {
	var temps, rolling []string
	err := s.dir.names(func(name string) {
		kind, stem := splitName(name)
		_, _, at, ours := splitStem(stem)
		switch {
		case kind == Visible:
			files.add(name) // foreign ones, too
		case ours && kind == Temporary:
			temps = append(temps, name)
		case ours && kind == Rolling:
			rolling = append(rolling, stem)
			files.reach(at)
		}
	})
	if err != nil {
		return s.dir.failed("list", "", err)
	}
	for _, name := range temps {
		if err := s.dir.remove(name); err != nil {
			return s.dir.failed("remove", name, err)
		}
		s.removedTemps++
	}
	s.dir.ids.Follow(files.highest)
	if s.dir.publications != nil {
		s.dir.publications.before = files.top()
	}
	return s.publishLeft(ctx, rolling, files)
}

// publishLeft publishes what earlier owners have left: the file that this process has lost
// with its folder, and those of the stems. The latest comes first, as an earlier one may
// have its lines, too (see strip).
func (s *Shard) publishLeft(ctx context.Context, stems []string, files *newest) error {
	adopted, err := s.appender.adopt()
	if err != nil {
		return err
	}
	if adopted != "" {
		s.rebuilt.Recovered++
		files.add(adopted)
	}
	slices.SortFunc(stems, func(a, b string) int { return strings.Compare(b[len(b)-ulidLen:], a[len(a)-ulidLen:]) })
	for _, stem := range stems {
		if visibleName(stem) == adopted {
			continue // it was put back
		}
		final, cut, err := s.appender.recoverRolling(ctx, stem, files.from(stem))
		s.rebuilt.Cut += cut
		if err != nil {
			return err
		}
		if final != "" {
			s.rebuilt.Recovered++
			files.add(final)
		}
	}
	return nil
}

// RemovedTemps is the number of temporary files of an earlier owner that were
// removed when this process opened the shard.
func (s *Shard) RemovedTemps() int { return s.removedTemps }

// Rebuilt is what this process found in the shard's files when it opened it.
func (s *Shard) Rebuilt() Rebuilt { return s.rebuilt }

// Sought tells whether another process that could write the shard has waited for its folder
// since the last call; the first call says nothing. It has one caller at a time. It asks the
// disk.
func (s *Shard) Sought() bool {
	sign, err := s.dir.sign()
	if err != nil || sign.Equal(s.sign) {
		return false
	}
	first := s.sign.IsZero()
	s.sign = sign
	return !first
}

// Remembered returns how many ids of written messages are remembered, and for how long
// the oldest is.
func (s *Shard) Remembered() (ids int, oldest time.Duration) { return s.window.Remembered() }

// Known returns which messages of a submission are durable, and how far back the shard
// remembers. What was taken away before this process opened the shard is not known.
func (s *Shard) Known(submission string, count int) (Known, Memory) {
	return s.window.Known(submission, count), s.window.Memory()
}

// Written tells whether a message is durable, and since when.
func (s *Shard) Written(id []byte) (at time.Time, known bool) {
	return s.window.Find(committed.KeyOf(id))
}

// Roll publishes the shard's file if it is full or old, or if an earlier try has
// failed. How often it is called decides how late a file may be.
func (s *Shard) Roll(ctx context.Context) error { return s.appender.publish(ctx, false) }

// Flush publishes the shard's file, however young and small it is. When it returns nil,
// every message that was written before is in a visible file.
func (s *Shard) Flush(ctx context.Context) error { return s.appender.publish(ctx, true) }

// RollErr is why a file that is due is not published, or nil. Everything in that
// file is durable, but until it is published nothing else is written. The next
// owner of the folder publishes it at the latest.
func (s *Shard) RollErr() error { return s.appender.err() }

// Close publishes the rolling file, and gives the shard's folder to the next
// owner. Closing it again does nothing.
//
// It waits for writers that publish or append. Those that still write their
// temporary file, or wait for their turn, find the shard closed afterwards. If
// Close cannot publish the file, its error says so, and the next owner of that
// folder publishes it.
func (s *Shard) Close() error {
	s.dir.gate.Lock()
	defer s.dir.gate.Unlock()
	first, err := s.dir.shut(s.undo.finish)
	if !first {
		return nil
	}
	err = errors.Join(err, s.appender.close(), s.dir.leave())
	s.dir.publications.close()
	return errors.Join(err, s.dir.unlock())
}

// enter admits a writer. It calls pay first, which no Close can overtake.
func (d *shardDir) enter(pay func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	if err := pay(); err != nil {
		return err
	}
	d.writers++
	return nil
}

// shut admits no more writers, and pays for the last time. The caller counts as a
// writer until it calls leave.
func (d *shardDir) shut(pay func() error) (first bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false, nil
	}
	d.closed = true
	d.writers++
	return true, pay()
}

// leave closes the folder after the last writer of a closed shard.
func (d *shardDir) leave() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writers--
	if !d.closed || d.writers > 0 {
		return nil
	}
	d.syncer.close()
	return d.folder.close()
}

// ready fails if there is a reason not to publish that Batch does not know of.
func (d *shardDir) ready(ctx context.Context) error {
	if d.isClosed() {
		return ErrClosed
	}
	if ctx.Err() != nil {
		return fmt.Errorf("write to %s: %w", d.name, context.Cause(ctx))
	}
	return d.held()
}

func (d *shardDir) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// syncNames makes durable which names are in the folder.
func (d *shardDir) syncNames() error {
	names, err := d.syncer.begin()
	if err != nil {
		return d.failed("open", "", err)
	}
	if err := names.sync(); err != nil {
		return d.failed("fsync", "", err)
	}
	return nil
}

// noRoom notes the size of a file that could not be written. If err is for lack
// of space, the next owner's probe writes at least as much.
func (d *shardDir) noRoom(size int, err error) {
	for LacksSpace(err) {
		known := d.probeSize.Load()
		if known >= int64(size) || d.probeSize.CompareAndSwap(known, int64(size)) {
			return
		}
	}
}

// failed is the error of a step on a name of the shard's folder, or on the
// folder itself.
func (d *shardDir) failed(step, name string, err error) error {
	return failed(step, filepath.Join(d.name, name), err)
}
