package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
)

// found returns how long the file is. It fails with fs.ErrNotExist if its name is gone,
// or is another file's.
func (a *appender) found(r *rolling) (size int64, err error) {
	at, err := a.dir.stat(r.hidden)
	if err == nil && at.inode != r.inode {
		err = fs.ErrNotExist
	}
	return at.size, err
}

// check fails with ErrDamaged unless the file has its name, and size bytes. Another
// program may have removed, replaced or truncated it.
func (a *appender) check(r *rolling, size int64) error {
	switch got, err := a.found(r); {
	case errors.Is(err, fs.ErrNotExist):
		return a.dir.failed("stat", r.hidden, fmt.Errorf("%w: it was removed or replaced", ErrDamaged))
	case err != nil:
		return a.dir.failed("stat", r.hidden, err)
	case got != size:
		return a.dir.failed("stat", r.hidden, fmt.Errorf("%w: it has %d bytes, %d were written", ErrDamaged, got, size))
	}
	return nil
}

// finish repairs a sealed file if need be, and publishes it, or removes it if
// nothing is in it. It may be called again after an error. The caller has the turn
// and holds the gate, or the gate alone.
//
// The system calls for a file that is not broken:
//
//	newfstatat(hidden)         is it still what was written?
//	close(hidden)
//	newfstatat(final)
//	linkat(hidden, final)      visible from here, never overwrites
//	fsync(folder)              durable so from here
//	unlinkat(hidden)
//	fsync(folder)
func (a *appender) finish(r *rolling) error {
	if r.f != nil && !r.broken && r.size > 0 {
		if err := a.check(r, r.size); errors.Is(err, ErrDamaged) {
			r.broken = true
		} else if err != nil {
			return err
		}
	}
	if r.f != nil && r.broken && r.size > 0 {
		if err := a.rescue(r); err != nil {
			return err
		}
	}
	if f := r.f; f != nil {
		r.f = nil
		if f.Close() != nil {
			r.broken = true
		}
	}
	if r.broken {
		if err := a.repair(r); err != nil {
			return err
		}
		r.broken = false
	}
	if r.size == 0 {
		if err := a.dir.remove(r.hidden); err != nil {
			return a.dir.failed("unlink", r.hidden, err)
		}
		a.dir.settled(r.final)
		return nil
	}
	return a.show(r)
}

// show gives the file its visible name, and then takes the hidden one away.
func (a *appender) show(r *rolling) error {
	names, err := a.dir.syncer.begin()
	if err != nil {
		return a.dir.failed("open", "", err)
	}
	if !r.shown {
		// A name that is there already may not be durable, and after a failed
		// fsync another one would not make it so.
		linked, err := a.dir.linked(r.hidden, r.final)
		if err != nil {
			return a.dir.failed("stat", r.final, err)
		}
		if linked {
			r.linked = false // even if the removal fails: better seen twice than never
			if err := a.dir.remove(r.final); err != nil {
				return a.dir.failed("unlink", r.final, err)
			}
		}
		if !r.linked { // else a reader has it, and must not see it again
			if err := a.dir.link(r.hidden, r.final); err != nil {
				return a.dir.failed("link", r.final, err)
			}
			r.linked = true
		}
		if err := names.sync(); err != nil {
			return a.dir.failed("fsync", "", err)
		}
		r.shown = true
	}
	if err := a.dir.remove(r.hidden); err != nil {
		return a.dir.failed("unlink", r.hidden, err)
	}
	a.dir.published(r.final, r.lines, r.size)
	if names.sync() != nil {
		// If the hidden name comes back with a loss of power, the next owner sees
		// what it is. Before anything else is written its removal is made durable.
		a.undo.oweSync(r.final)
		return nil
	}
	a.dir.settled(r.final)
	return nil
}

// rescue writes what was acknowledged of a file that has lost its name to another one,
// and puts that in its place. The open descriptor is all that is left of the file, and
// the sum says whether that is what was written.
//
//	openat(temp, O_CREAT|O_EXCL)
//	fstat(temp)
//	pread64(descriptor), write(temp)
//	fsync(temp)
//	linkat(temp, hidden)
//	fsync(folder)              as durable as before from here
//	unlinkat(temp)
//
// The new stem is behind the old one. So the next owner knows the old file, or a copy, if
// another program puts it back (see strip).
func (a *appender) rescue(r *rolling) error {
	if _, err := a.found(r); !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			err = a.dir.failed("stat", r.hidden, err)
		}
		return err
	}
	_, stem := splitName(r.final)
	worker, _, _, _ := splitStem(stem)
	stem = a.dir.beginFile(worker)
	temp, to := tempName(stem), newRolling(stem)
	gone := to.final
	defer func() { a.dir.settled(gone) }()
	names, err := a.dir.syncer.begin()
	if err != nil {
		return a.unrescued("open", "", err)
	}
	f, err := a.dir.create(temp)
	if err != nil {
		return a.unrescued("create", temp, a.undo.discardTemp(temp, err))
	}
	at, err := f.id()
	if err != nil {
		_ = f.Close() // it is empty
		return a.unrescued("stat", temp, a.undo.discardTemp(temp, err))
	}
	sum := crc32.New(sumTable)
	n, err := io.Copy(io.MultiWriter(f, sum), io.NewSectionReader(r.f, 0, r.size))
	if err == nil && (n != r.size || sum.Sum32() != r.sum) {
		err = fmt.Errorf("%d of %d bytes are left", n, r.size)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = a.dir.link(temp, to.hidden)
	}
	if err != nil {
		_ = f.Close() // it is worth nothing
		return a.unrescued("write", temp, a.undo.discardTemp(to.hidden, a.undo.discardTemp(temp, err)))
	}
	_ = r.f.Close() // only read from
	lost := r.hidden
	gone = r.final
	r.hidden, r.final, r.inode, r.f, r.broken = to.hidden, to.final, at, f, false
	err = names.sync()
	_ = a.undo.discardTemp(temp, err) // or else it is removed later
	if err != nil {
		return a.unrescued("fsync", "", err)
	}
	a.dir.rescued(lost, r.size)
	return nil
}

// unrescued is the error of a rescue that has to be tried again.
func (a *appender) unrescued(step, name string, err error) error {
	return fmt.Errorf("%w; it cannot be written anew: %w", ErrDamaged, a.dir.failed(step, name, err))
}

// repair cuts off what is behind the last append that was known to be durable, and
// makes sure that the rest is on the disk.
//
//	openat(hidden)
//	fstat(hidden)
//	ftruncate(hidden)
//	fsync(hidden)
//	fadvise64(hidden)          what the system remembers of it may be a lie
//	pread64(hidden)            all of it
//	close(hidden)
func (a *appender) repair(r *rolling) error {
	f, err := a.dir.reopen(r.hidden)
	if r.size == 0 && errors.Is(err, fs.ErrNotExist) {
		return nil // there is nothing that could come back
	}
	if err != nil {
		return a.dir.failed("open", r.hidden, err)
	}
	defer f.Close() // what was changed is durable before
	left, err := a.takeBack(f, r)
	if err == nil && left < r.size {
		err = fmt.Errorf("%w: %d of %d bytes are left", ErrDamaged, left, r.size)
	}
	if err != nil {
		return a.dir.failed("stat", r.hidden, err)
	}
	if err := a.cut(f, r.hidden, r.size); err != nil {
		return err
	}
	f.forget()
	sum := crc32.New(sumTable)
	n, err := io.Copy(sum, io.NewSectionReader(f, 0, r.size+1))
	if err == nil && (n != r.size || sum.Sum32() != r.sum) {
		err = ErrDamaged
	}
	if err != nil {
		return a.dir.failed("read", r.hidden, err)
	}
	return nil
}

// takeBack cuts off the last append if it went where something was cut off before, as
// it would stand behind half a line. It returns how long the file is then.
func (a *appender) takeBack(f reopened, r *rolling) (left int64, err error) {
	left, err = f.Size()
	at := left - int64(len(r.last))
	if err != nil || len(r.last) == 0 || at < 0 || at >= r.size {
		return left, err
	}
	there := make([]byte, len(r.last))
	if _, err := f.ReadAt(there, at); err != nil || !bytes.Equal(there, r.last) {
		return left, err
	}
	return at, a.cut(f, r.hidden, at)
}

// cut shortens the file to the size, durably.
func (a *appender) cut(f reopened, name string, size int64) error {
	if err := f.Truncate(size); err != nil {
		return a.dir.failed("truncate", name, err)
	}
	if err := f.Sync(); err != nil {
		return a.dir.failed("fsync", name, err)
	}
	return nil
}

// recoverRolling publishes the rolling file of an earlier owner, as far as it has whole
// lines that are in none of the later files, and tells how many bytes behind those it has
// cut off. It returns the visible name; there is none if the file was visible before, or
// has no such line.
func (a *appender) recoverRolling(ctx context.Context, stem string, later []string) (final string, cut int64, err error) {
	r := newRolling(stem)
	linked, err := a.dir.linked(r.hidden, r.final)
	if err != nil {
		return "", 0, a.dir.failed("stat", r.final, err)
	}
	if linked { // it was complete
		r.linked = true
		return "", 0, a.show(r)
	}
	if r.size, cut, err = a.trim(ctx, r.hidden); err != nil {
		return "", cut, err
	}
	if r.size > 0 && len(later) > 0 {
		final, done, err := stripper{a}.strip(ctx, r, later)
		if err != nil || done {
			return final, cut, err
		}
	}
	if err := a.finish(r); err != nil || r.size == 0 {
		return "", cut, err
	}
	return r.final, cut, nil
}

// trim cuts off what is behind the last whole line, durably. It returns how much
// is left, and how much is cut off. It reads the file from the disk: what the
// system remembers may come from an owner whose fsync has failed.
func (a *appender) trim(ctx context.Context, hidden string) (size, cut int64, err error) {
	f, err := a.dir.reopen(hidden)
	if err != nil {
		return 0, 0, a.dir.failed("open", hidden, err)
	}
	defer f.Close() // what was changed is durable before
	if err := f.Sync(); err != nil {
		return 0, 0, a.dir.failed("fsync", hidden, err)
	}
	f.forget()
	all, err := f.Size()
	if err != nil {
		return 0, 0, a.dir.failed("stat", hidden, err)
	}
	if size, err = wholeLines(ctx, f, all); err != nil {
		return 0, 0, a.dir.failed("read", hidden, err)
	}
	if size < all {
		err = a.cut(f, hidden, size)
	}
	return size, all - size, err
}

// wholeLines returns where the last whole line before the first zero byte ends. A
// line of ours has no zero byte. After a loss of power, zeros stand for what an
// append had not made durable, and what is behind them was not durable either. It
// fails with ctx's cause once ctx is done: a file may be large, and the disk slow.
func wholeLines(ctx context.Context, f io.ReaderAt, size int64) (end int64, err error) {
	block := make([]byte, 256<<10)
	for at := int64(0); at < size; at += int64(len(block)) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		block = block[:min(size-at, int64(len(block)))]
		if n, err := f.ReadAt(block, at); err != nil && (n < len(block) || !errors.Is(err, io.EOF)) {
			return 0, err
		}
		zero := bytes.IndexByte(block, 0)
		if zero < 0 {
			zero = len(block)
		}
		if i := bytes.LastIndexByte(block[:zero], '\n'); i >= 0 {
			end = at + int64(i) + 1
		}
		if zero < len(block) {
			break
		}
	}
	return end, nil
}
