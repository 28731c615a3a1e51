package output

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"path/filepath"
	"sync"
	"time"

	"async-data-processor/message"
	"async-data-processor/output/committed"
)

// turnPatience bounds how long a batch waits for its turn. It is long for an
// append, and short against a worker's time-out: when the disk hangs, the worker
// is to keep its batch and not to be replaced.
const turnPatience = 5 * time.Second

// maxBuffer is how much memory a shard keeps from append to append.
const maxBuffer = 1 << 20

// appender appends batches to the shard's rolling file and publishes it. A shard
// has one such file, however many workers it has: files side by side would not
// tell the next owner which of their ids were committed last.
type appender struct {
	dir  *shardDir
	undo *undo
	roll Roll

	// turn is a lock that can be waited for with a context. A caller that has the
	// turn and holds the gate, or holds the gate alone, may use what follows.
	turn   chan struct{}
	file   *rolling // or nil
	buffer []byte   // of the last append

	mu      sync.Mutex // guards rollErr
	rollErr error      // see Shard.RollErr
}

// rolling is a rolling file. Its state says what has to be done before anything
// else is written:
//
//	open ─── full, old, or Close ─────▶ sealed ── finish ──▶ visible
//	  └───── an append failed ──▶ broken and sealed ─ repair ─▶ sealed
type rolling struct {
	hidden, final string
	inode         // of hidden, as it was made

	f     file      // nil if it is not open
	last  []byte    // the append that is under way, or has failed
	size  int64     // what is durable of it
	sum   uint32    // of that
	lines int       // of that; 0 if an earlier owner has written it
	first time.Time // append

	// broken: there may be more in it than what is durable.
	broken bool
	// sealed: nothing is appended any more.
	sealed bool
	// linked: it was given its visible name, and since then only a reader may
	// have taken it away.
	linked bool
	// shown: it was given its visible name durably.
	shown bool
}

func newRolling(stem string) *rolling {
	return &rolling{hidden: rollingName(stem), final: visibleName(stem)}
}

var sumTable = crc32.MakeTable(crc32.Castagnoli)

// append writes the fresh messages of b at the end of the shard's file. The
// system calls without errors:
//
//	newfstatat(lock file's absolute path)    when it has its turn
//	        b.BeginPublish
//	write(hidden)                            all lines at once
//	fsync(hidden)
//	newfstatat(hidden)                       durable from here, if it is still there
//	        claim.Commit                     known from here
//
// The first batch of a file has these after the first newfstatat:
//
//	openat(hidden, O_CREAT|O_EXCL)
//	fstat(hidden)
//	fsync(folder)
//	newfstatat(lock file's absolute path)
//
// The last one publishes the file (see finish). If that fails the batch is
// written all the same, and a later call publishes the file (see Shard.RollErr).
func (a *appender) append(ctx context.Context, worker string, b *message.Batch, fresh []message.Message, claim *committed.Claim) (file string, err error) {
	if err := a.takeTurn(ctx); err != nil {
		return "", fmt.Errorf("write to %s: %w", a.dir.name, err)
	}
	defer a.giveTurn()
	// Until the end, and not only while it publishes: the file may be the next
	// owner's as soon as the shard is closed.
	a.dir.gate.RLock()
	defer a.dir.gate.RUnlock()
	if err := a.dir.ready(ctx); err != nil {
		return "", err
	}
	if err := a.finishSealed(); err != nil {
		return "", err
	}

	defer func() { // however it ends, panics and runtime.Goexit included
		if owed := a.finishSealed(); owed != nil && err != nil {
			err = fmt.Errorf("%w; %w", err, owed)
		}
	}()
	if a.file == nil {
		if err := a.begin(worker); err != nil {
			return "", err
		}
		if err := a.dir.ready(ctx); err != nil {
			return "", err
		}
	}
	// Before the first byte: the file will be published, and until it is repaired
	// it is not known how much of a failed append is in it.
	if !b.BeginPublish() {
		return "", ErrAbandoned
	}
	content := join(a.buffer[:0], fresh)
	if cap(content) <= maxBuffer {
		a.buffer = content
	}
	r := a.file
	if err := a.extend(r, content); err != nil {
		a.dir.noRoom(len(content), err)
		return "", err
	}
	r.lines += len(fresh)
	// In the order of the file, and before its publication: even if that fails, this
	// batch is written.
	claim.Commit()
	r.sealed = a.due(r)
	return path.Join(a.dir.name, r.final), nil
}

// takeTurn waits until no other caller uses the shard's file.
func (a *appender) takeTurn(ctx context.Context) error {
	select {
	case a.turn <- struct{}{}:
		return nil
	default:
	}
	expired := time.NewTimer(turnPatience)
	defer expired.Stop()
	select {
	case a.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-expired.C:
		return ErrTurn
	}
}

func (a *appender) giveTurn() { <-a.turn }

// begin makes a new file with a durable name. After an error the file is sealed:
// nothing is in it, so it will be removed.
func (a *appender) begin(worker string) error {
	names, err := a.dir.syncer.begin()
	if err != nil {
		return a.dir.failed("open", "", err)
	}
	r := newRolling(a.dir.beginFile(worker))
	r.sealed = true
	a.file = r
	if r.f, err = a.dir.create(r.hidden); err != nil {
		return a.dir.failed("create", r.hidden, err)
	}
	if r.inode, err = r.f.id(); err != nil {
		return a.dir.failed("stat", r.hidden, err)
	}
	if err := names.sync(); err != nil {
		return a.dir.failed("fsync", "", err)
	}
	r.sealed = false
	return nil
}

// extend appends the content and makes it durable. After an error the file is broken,
// and nothing is written to its descriptor any more. The file is looked at last: what
// another program did to it before must not be acknowledged.
func (a *appender) extend(r *rolling, content []byte) error {
	r.broken, r.sealed, r.last = true, true, content
	step, err := "write", writeAll(r.f, content)
	if err == nil {
		step, err = "fsync", a.dir.syncer.synced.sync(r.f)
	}
	if err != nil {
		return a.dir.failed(step, r.hidden, err)
	}
	if err := a.check(r, r.size+int64(len(content))); err != nil {
		return err
	}
	if r.size == 0 {
		r.first = time.Now()
	}
	r.size += int64(len(content))
	r.sum = crc32.Update(r.sum, sumTable, content)
	r.broken, r.sealed, r.last = false, false, nil
	return nil
}

// due tells whether the file is full or old.
func (a *appender) due(r *rolling) bool {
	return r.size > 0 &&
		(a.roll.Bytes > 0 && r.size >= a.roll.Bytes || a.roll.Interval > 0 && time.Since(r.first) >= a.roll.Interval)
}

// publish publishes the file if it is due, or whatever its age and size.
func (a *appender) publish(ctx context.Context, whatever bool) error {
	if !a.roll.Rolls() {
		return nil
	}
	if err := a.takeTurn(ctx); err != nil {
		return fmt.Errorf("roll the file of %s: %w", a.dir.name, err)
	}
	defer a.giveTurn()
	a.dir.gate.RLock()
	defer a.dir.gate.RUnlock()
	if err := a.dir.ready(ctx); err != nil {
		return err
	}
	if err := a.inspect(); err != nil {
		return err
	}
	if r := a.file; r != nil && (whatever || a.due(r)) {
		r.sealed = true
	}
	return a.finishSealed()
}

// inspect seals the file if another program has removed or changed it.
func (a *appender) inspect() error {
	r := a.file
	if r == nil || r.sealed {
		return nil
	}
	err := a.check(r, r.size)
	if errors.Is(err, ErrDamaged) {
		r.sealed, err = true, nil
	}
	return err
}

// finishSealed repairs and publishes the file if it is sealed. A panic becomes an
// error here, because no message is to blame for it.
func (a *appender) finishSealed() (err error) {
	if a.file == nil || !a.file.sealed {
		return nil
	}
	err = errInterrupted // unless it returns
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("publish %s: panic: %v", path.Join(a.dir.name, a.file.hidden), v)
		}
		a.setErr(err)
	}()
	if err = a.finish(a.file); err == nil {
		a.file = nil
	}
	return err
}

// close publishes the rolling file, unless it may be the next owner's. If only
// the folder was moved away it is not: the lock moved along, and no next owner
// would look there for messages that were acknowledged.
func (a *appender) close() error {
	if a.file == nil {
		return nil
	}
	lost := a.dir.held()
	if lost != nil {
		if err := a.dir.locked(); err != nil {
			return a.leaveHidden(errors.Join(lost, a.dir.failed("stat", lockName, err)))
		}
	}
	a.file.sealed = true
	return errors.Join(lost, a.finishSealed())
}

// leaveHidden leaves the rolling file as it is because of err. A file that was removed
// with its folder is left to the next owner in this process: it has a descriptor.
func (a *appender) leaveHidden(err error) error {
	r, gone := a.file, false
	if r.f != nil {
		_, missing := a.found(r)
		gone = errors.Is(missing, fs.ErrNotExist)
	}
	hidden := filepath.Join(a.dir.name, r.hidden)
	switch {
	case r.size == 0:
	case gone:
		err = fmt.Errorf("%w; %s was removed: %w; its entries were acknowledged, and are written anew when this process opens the shard again", err, hidden, ErrDamaged)
		a.setErr(err)
		a.dir.orphan.Store(r)
		return err
	default:
		err = fmt.Errorf("%w; %s stays hidden in that folder, with entries that were acknowledged", err, hidden)
		a.setErr(err)
	}
	if r.f != nil {
		_ = r.f.Close() // what was promised of it is durable
	}
	return err
}

// adopt publishes what was acknowledged of a file that an earlier owner in this process
// has lost with its folder, and returns its visible name, if there is one.
func (a *appender) adopt() (final string, err error) {
	r := a.dir.orphan.Swap(nil)
	if r == nil {
		return "", nil
	}
	r.broken, r.sealed = true, true
	if err := a.finish(r); err != nil {
		if r.broken {
			a.dir.orphan.Store(r)
		} else if r.f != nil {
			_ = r.f.Close() // the folder has it under a hidden name
		}
		return "", err
	}
	return r.final, nil
}

func (a *appender) setErr(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rollErr = err
}

func (a *appender) err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rollErr
}
