package output

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"strings"
)

// errDamaged: what was durable of a rolling file is not on the disk any more.
var errDamaged = errors.New("what was written to it is no longer there")

// finish takes a file that is sealed to its end: mended if need be, and
// published, or removed if nothing is in it. It may be called again after an
// error. The caller has the turn and holds the gate, or the gate alone.
//
// The system calls for a file that is not broken:
//
//	close(hidden)
//	newfstatat(final)
//	linkat(hidden, final)      visible from here, never overwrites
//	fsync(folder)              durable so from here
//	unlinkat(hidden)
//	fsync(folder)
func (s *Shard) finish(r *rolling) error {
	if f := r.f; f != nil {
		r.f = nil
		if f.Close() != nil {
			r.broken = true
		}
	}
	if r.broken {
		if err := s.mend(r); err != nil {
			return err
		}
		r.broken = false
	}
	if r.size == 0 {
		if err := s.folder.remove(r.hidden); err != nil {
			return s.failed("unlink", r.hidden, err)
		}
		return nil
	}
	return s.show(r)
}

// show gives the file its visible name, and then takes the hidden one away.
func (s *Shard) show(r *rolling) error {
	names, err := s.syncer.begin()
	if err != nil {
		return s.failed("open", "", err)
	}
	if !r.shown {
		// A name that is there already is of an attempt that nobody knows to be
		// durable, and after a failed fsync another one would not make it so.
		linked, err := s.folder.linked(r.hidden, r.final)
		if err != nil {
			return s.failed("stat", r.final, err)
		}
		if linked {
			r.linked = false // whatever comes of it: better seen twice than never
			if err := s.folder.remove(r.final); err != nil {
				return s.failed("unlink", r.final, err)
			}
		}
		if !r.linked { // else a reader has it, and must not see it again
			if err := s.folder.link(r.hidden, r.final); err != nil {
				return s.failed("link", r.final, err)
			}
			r.linked = true
		}
		if err := names.sync(); err != nil {
			return s.failed("fsync", "", err)
		}
		r.shown = true
	}
	if err := s.folder.remove(r.hidden); err != nil {
		return s.failed("unlink", r.hidden, err)
	}
	if names.sync() != nil {
		// Should the hidden name come back with a loss of power, the next owner
		// sees what it is; but before anything else is written it is settled.
		s.mu.Lock()
		s.hidden++
		s.mu.Unlock()
	}
	return nil
}

// mend cuts off what is behind the last append that was known to be durable, and
// makes sure that the rest is on the disk.
//
//	openat(hidden)
//	ftruncate(hidden)
//	fsync(hidden)
//	fadvise64(hidden)          what the system remembers of it may be a lie
//	pread64(hidden)            all of it
//	close(hidden)
func (s *Shard) mend(r *rolling) error {
	f, err := s.folder.reopen(r.hidden)
	if err != nil {
		return s.failed("open", r.hidden, err)
	}
	defer f.Close() // what was changed is durable before
	if err := s.cut(f, r.hidden, r.size); err != nil {
		return err
	}
	f.forget()
	sum := crc32.New(sumTable)
	n, err := io.Copy(sum, io.NewSectionReader(f, 0, r.size+1))
	if err == nil && (n != r.size || sum.Sum32() != r.sum) {
		err = errDamaged
	}
	if err != nil {
		return s.failed("read", r.hidden, err)
	}
	return nil
}

// cut shortens the file to the size, durably.
func (s *Shard) cut(f reopened, name string, size int64) error {
	if err := f.Truncate(size); err != nil {
		return s.failed("truncate", name, err)
	}
	if err := f.Sync(); err != nil {
		return s.failed("fsync", name, err)
	}
	return nil
}

// adopt publishes the rolling file of an earlier owner, as far as it has whole
// lines, and tells its visible name, if it has not been visible before.
func (s *Shard) adopt(ctx context.Context, hidden string) (added string, err error) {
	stem := strings.TrimSuffix(strings.TrimPrefix(hidden, tempPrefix), rollingSuffix)
	r := &rolling{hidden: hidden, final: stem + visibleSuffix}
	linked, err := s.folder.linked(r.hidden, r.final)
	if err != nil {
		return "", s.failed("stat", r.final, err)
	}
	if linked { // it was complete
		r.linked = true
		return "", s.show(r)
	}
	if r.size, err = s.trim(ctx, hidden); err != nil {
		return "", err
	}
	if err := s.finish(r); err != nil || r.size == 0 {
		return "", err
	}
	s.recalled.Adopted++
	return r.final, nil
}

// trim cuts off what is behind the last whole line, durably, and returns what is
// left.
// What the system remembers of the file may have been written by an owner whose
// fsync has failed, so it is read from the disk.
func (s *Shard) trim(ctx context.Context, hidden string) (size int64, err error) {
	f, err := s.folder.reopen(hidden)
	if err != nil {
		return 0, s.failed("open", hidden, err)
	}
	defer f.Close() // what was changed is durable before
	if err := f.Sync(); err != nil {
		return 0, s.failed("fsync", hidden, err)
	}
	f.forget()
	all, err := f.Size()
	if err != nil {
		return 0, s.failed("stat", hidden, err)
	}
	if size, err = wholeLines(ctx, f, all); err != nil {
		return 0, s.failed("read", hidden, err)
	}
	if size < all {
		err = s.cut(f, hidden, size)
		s.recalled.Cut += all - size
	}
	return size, err
}

// wholeLines returns where the last whole line ends, of those ahead of the first
// zero. No line of ours has a zero byte: after a loss of power one stands for
// what an append had not made durable, and what is behind it was not either. Once
// ctx is done it fails with its cause: a file may be large, and the disk slow.
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
