package output

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"path"
	"time"

	"async-data-processor/message"
	"async-data-processor/output/committed"
)

// Roll says when a file that batches are appended to is published. The zero
// value has none: every batch is a file of its own.
type Roll struct {
	// Bytes is the size from which on a file is full, 0 for no limit. One has
	// at most a batch more.
	Bytes int64
	// Interval is how old a file may get since its first message, 0 for no
	// limit. Somebody has to call Shard.Roll for that.
	Interval time.Duration
}

// Rolls tells whether batches are appended to files.
func (r Roll) Rolls() bool { return r.Bytes > 0 || r.Interval > 0 }

// ErrTurn: this batch has waited for turnPatience, while others were appended.
var ErrTurn = errors.New("other batches are still being appended")

// turnPatience bounds how long a batch waits for its turn. It is long for an
// append, and short against a worker's time-out: who waits for a disk that hangs
// is to hold its batch, not to lose it.
const turnPatience = 5 * time.Second

// maxBuffer is how much memory a shard keeps from append to append.
const maxBuffer = 1 << 20

// rolling is the file of a shard that rolls. A shard has one, however many
// workers it has: files side by side would not tell its next owner which of
// their ids were committed last.
//
// Its state is what has to be done before anything else is written, in this
// order: what is broken is mended, and what is sealed is published.
type rolling struct {
	hidden, final string

	f     file      // nil if it is not open, or not trusted any more
	size  int64     // what is durable of it
	sum   uint32    // of that
	first time.Time // append

	// broken: there may be more in it than what is durable.
	broken bool
	// sealed: nothing is appended any more.
	sealed bool
	// linked: it has been given its visible name, which since then nobody but a
	// reader has taken away.
	linked bool
	// shown: it has its visible name, durably.
	shown bool
}

var sumTable = crc32.MakeTable(crc32.Castagnoli)

// append is Write for the fresh messages of b, at the end of the shard's file.
func (s *Shard) append(ctx context.Context, worker string, b *message.Batch, fresh []message.Message, claim *committed.Claim) (file string, err error) {
	if err := s.takeTurn(ctx); err != nil {
		return "", fmt.Errorf("write to %s: %w", s.name, err)
	}
	defer s.giveTurn()
	// Until the end, and not only while it publishes: the file may be the next
	// owner's as soon as the shard is closed.
	s.gate.RLock()
	defer s.gate.RUnlock()
	if err := s.ready(ctx); err != nil {
		return "", err
	}
	if err := s.finishSealed(); err != nil {
		return "", err
	}

	defer func() { // however it ends, panics and runtime.Goexit included
		if owed := s.finishSealed(); owed != nil && err != nil {
			err = fmt.Errorf("%w; %w", err, owed)
		}
	}()
	if s.file == nil {
		if err := s.begin(worker); err != nil {
			return "", err
		}
		if err := s.ready(ctx); err != nil {
			return "", err
		}
	}
	// The right comes ahead of the first byte: the file will be published, and
	// nobody can tell before it is mended how much of a failed append is in it.
	if !b.BeginPublish() {
		return "", ErrAbandoned
	}
	content := join(s.buffer[:0], fresh)
	if cap(content) <= maxBuffer {
		s.buffer = content
	}
	r := s.file
	if err := s.extend(r, content); err != nil {
		if LacksSpace(err) {
			s.want(len(content))
		}
		return "", err
	}
	// In the order of the file, and ahead of its publication: whatever becomes
	// of that, this batch is written.
	claim.Commit()
	r.sealed = s.due(r)
	return path.Join(s.name, r.final), nil
}

// takeTurn waits until nobody else is at the shard's file.
func (s *Shard) takeTurn(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	default:
	}
	expired := time.NewTimer(turnPatience)
	defer expired.Stop()
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-expired.C:
		return ErrTurn
	}
}

func (s *Shard) giveTurn() { <-s.turn }

// begin makes a new file with a durable name. One that it does not get done
// is sealed: nothing is in it, so it will be removed.
func (s *Shard) begin(worker string) error {
	stem := worker + "_" + message.NewID()
	names, err := s.syncer.begin()
	if err != nil {
		return s.failed("open", "", err)
	}
	r := &rolling{hidden: tempPrefix + stem + rollingSuffix, final: stem + visibleSuffix, sealed: true}
	s.file = r
	if r.f, err = s.folder.create(r.hidden); err != nil {
		return s.failed("create", r.hidden, err)
	}
	if err := names.sync(); err != nil {
		return s.failed("fsync", "", err)
	}
	r.sealed = false
	return nil
}

// extend appends the content and makes it durable. If it does not get that done
// the file is broken: its descriptor is worth nothing any more.
func (s *Shard) extend(r *rolling, content []byte) error {
	r.broken, r.sealed = true, true
	step, err := "write", writeAll(r.f, content)
	if err == nil {
		step, err = "fsync", r.f.Sync()
	}
	if err != nil {
		return s.failed(step, r.hidden, err)
	}
	if r.size == 0 {
		r.first = time.Now()
	}
	r.size += int64(len(content))
	r.sum = crc32.Update(r.sum, sumTable, content)
	r.broken, r.sealed = false, false
	return nil
}

// due tells whether the file is full or old.
func (s *Shard) due(r *rolling) bool {
	return r.size > 0 &&
		(s.roll.Bytes > 0 && r.size >= s.roll.Bytes || s.roll.Interval > 0 && time.Since(r.first) >= s.roll.Interval)
}

// Roll publishes the shard's file if it is full or old, or if that has failed
// before. Whoever calls it now and then decides how late a file may be.
func (s *Shard) Roll(ctx context.Context) error {
	if !s.roll.Rolls() {
		return nil
	}
	if err := s.takeTurn(ctx); err != nil {
		return fmt.Errorf("roll the file of %s: %w", s.name, err)
	}
	defer s.giveTurn()
	s.gate.RLock()
	defer s.gate.RUnlock()
	if err := s.ready(ctx); err != nil {
		return err
	}
	if r := s.file; r != nil && s.due(r) {
		r.sealed = true
	}
	return s.finishSealed()
}

// Unrolled is why a file that is to be published is not, or nil if none is
// late. Everything in it is durable, and the next owner of the folder at the
// latest publishes it; until it is published nothing else is written.
func (s *Shard) Unrolled() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unrolled
}

// finishSealed mends and publishes the file if it is sealed. A panic is an error
// like any other here: no message is to blame for it.
func (s *Shard) finishSealed() (err error) {
	if s.file == nil || !s.file.sealed {
		return nil
	}
	err = errInterrupted // unless it returns
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("publish %s: panic: %v", path.Join(s.name, s.file.hidden), v)
		}
		s.mu.Lock()
		s.unrolled = err
		s.mu.Unlock()
	}()
	if err = s.finish(s.file); err == nil {
		s.file = nil
	}
	return err
}
