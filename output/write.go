package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"

	"async-data-processor/message"
	"async-data-processor/output/committed"
)

// Write writes the messages of b that are in no file yet: as one file named
// after its worker, as several if they are more than b.Size, or, where files
// roll, at the end of the shard's file. It returns how many those are, and the
// name of the last file relative to the output folder
// ("shard-0/0-2_01JD….ndjson"); a rolling file is visible under it only later.
// Then the messages are durable, and so are the other ones, which an earlier
// batch or this one has written (see Window). If there is nothing left to write
// there is no file, and its name is empty. worker is 1 to 64 letters, digits and
// hyphens; b holds at least one message.
//
// It is one attempt. After an error nothing of it is visible, or the error is
// ErrStillVisible; only of an append that failed something may become visible
// later (see below). Write may be called again with the same batch, and that
// attempt starts afresh. The right to publish is asked of b at the last
// moment (see message.Batch.BeginPublish), so a writer that was held up for long
// publishes nothing that was abandoned meanwhile: it fails with ErrAbandoned. An
// attempt that failed otherwise may or may not have been granted the right. A
// panic leaves nothing visible either, and is passed on.
//
// The last moment of an append is ahead of its first byte. So a batch that the
// disk holds up in an append cannot be abandoned, and whoever finds it late has
// to wait: nobody could say whether its messages will be in the file. What a
// failed append has left there is cut off before anything else is written. If
// that does not succeed before the process dies or the shard is closed, the next
// owner publishes what whole lines of it there are, and knows them when they
// come again.
//
// A message that another Write is about to publish is waited for, unless that
// one's batch was abandoned; after 5 seconds with committed.ErrInHand. So is an
// append by another one; after 5 seconds with ErrTurn.
//
// ctx is looked at between the steps; a call that the disk holds up is not
// interrupted. Once b.BeginPublish was asked ctx no longer matters.
//
// The system calls of a Write without errors:
//
//	newfstatat(lock file's absolute path)    is the folder still ours?
//	openat(temp, O_CREAT|O_EXCL)             these four for each file
//	write(temp)                              all lines at once
//	fsync(temp)
//	close(temp)
//	newfstatat(lock file's absolute path)
//	        b.BeginPublish
//	linkat(temp, final)                      visible from here, never overwrites
//	unlinkat(temp)                           both for each file
//	fsync(folder)                            durable from here, shared with others
//	        claim.Commit                     known from here
//
// Where files roll, once there is one:
//
//	newfstatat(lock file's absolute path)    when it is this one's turn
//	        b.BeginPublish
//	write(hidden)                            all lines at once
//	fsync(hidden)                            durable from here
//	        claim.Commit                     known from here
//
// ahead of which the first batch of a file has
//
//	openat(hidden, O_CREAT|O_EXCL)
//	fsync(folder)
//	newfstatat(lock file's absolute path)
//
// and behind which the last one publishes it (see finish), which succeeds or is
// made good for later (see Unrolled): the batch is written.
func (s *Shard) Write(ctx context.Context, worker string, b *message.Batch) (file string, written int, err error) {
	if !workerName.MatchString(worker) {
		return "", 0, fmt.Errorf("worker %q: a name is 1 to 64 letters, digits and hyphens", worker)
	}
	if len(b.Messages) == 0 {
		return "", 0, errors.New("write an empty batch")
	}
	claim, err := s.claim(ctx, b)
	if err != nil {
		return "", 0, err
	}
	defer claim.Release()
	fresh := freshOf(b.Messages, claim)
	if len(fresh) == 0 {
		return "", 0, nil
	}
	// Behind the claim, not ahead of it: who had one of the ids before may have
	// left it visible, and then enter has that to undo.
	if err := s.enter(); err != nil {
		return "", 0, err
	}
	defer s.leave() // only names were looked up in the folder: nothing can be lost
	if err := s.settleHidden(); err != nil {
		return "", 0, err
	}
	if s.roll.Rolls() {
		file, err = s.append(ctx, worker, b, fresh, claim)
	} else {
		file, err = s.writeFiles(ctx, worker, b, fresh, claim)
	}
	if err != nil {
		return "", 0, err
	}
	return file, len(fresh), nil
}

// writeFiles is Write for the fresh messages of b, where files do not roll.
func (s *Shard) writeFiles(ctx context.Context, worker string, b *message.Batch, fresh []message.Message, claim *committed.Claim) (file string, err error) {
	if err := s.ready(ctx); err != nil {
		return "", err
	}
	size := b.Size
	if size < 1 {
		size = len(fresh)
	}
	var files []publication
	for messages := range slices.Chunk(fresh, size) {
		stem := worker + "_" + message.NewID()
		p := publication{temp: tempPrefix + stem + tempSuffix, final: stem + visibleSuffix}
		content := join(nil, messages)
		if err := s.spool(p.temp, content); err != nil {
			if LacksSpace(err) {
				s.want(len(content))
			}
			return "", s.discard(files, err)
		}
		files = append(files, p)
	}
	if err := s.publish(ctx, b, files); err != nil {
		return "", err
	}
	claim.Commit()
	return path.Join(s.name, files[len(files)-1].final), nil
}

// claim reserves the messages of b that are not committed, until b is abandoned
// or its attempt is over.
func (s *Shard) claim(ctx context.Context, b *message.Batch) (*committed.Claim, error) {
	keys := make([]committed.Key, len(b.Messages))
	for i, m := range b.Messages {
		keys[i] = committed.KeyOf(m.RawID())
	}
	claim, err := s.window.Claim(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("write to %s: %w", s.name, err)
	}
	// The messages come again in other batches, which must not wait for a
	// writer that may never return.
	b.OnAbandon(claim.Release)
	return claim, nil
}

// freshOf returns the messages that the claim is for.
func freshOf(messages []message.Message, claim *committed.Claim) []message.Message {
	if claim.Fresh() == len(messages) {
		return messages
	}
	fresh := make([]message.Message, 0, claim.Fresh())
	for i, m := range messages {
		if claim.IsFresh(i) {
			fresh = append(fresh, m)
		}
	}
	return fresh
}

// enter admits a writer once the shard owes no undo.
func (s *Shard) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if err := s.finishUndo(); err != nil {
		return err
	}
	s.writers++
	return nil
}

// leave closes the folder behind the last writer of a closed shard.
func (s *Shard) leave() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writers--
	if !s.closed || s.writers > 0 {
		return nil
	}
	s.syncer.close()
	return s.folder.close()
}

// ready fails if there is a reason not to publish that Batch does not know of.
func (s *Shard) ready(ctx context.Context) error {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if ctx.Err() != nil {
		return fmt.Errorf("write to %s: %w", s.name, context.Cause(ctx))
	}
	return s.folder.held()
}

// want has the next owner's probe write at least this much.
func (s *Shard) want(size int) {
	for {
		known := s.wanted.Load()
		if known >= int64(size) || s.wanted.CompareAndSwap(known, int64(size)) {
			return
		}
	}
}

// spool writes the content to a new temporary file and makes it durable. After
// an error that file is worth nothing: a second fsync would report success for
// pages that the first one failed to write.
func (s *Shard) spool(temp string, content []byte) error {
	f, err := s.folder.create(temp)
	if err != nil {
		_ = s.folder.remove(temp) // it may be there all the same
		return s.failed("create", temp, err)
	}
	step, err := "write", writeAll(f, content)
	if err == nil {
		step, err = "fsync", f.Sync()
	}
	if closing := f.Close(); err == nil { // the first error tells more
		step, err = "close", closing
	}
	if err != nil {
		return s.discardTemp(temp, s.failed(step, temp, err))
	}
	return nil
}

// join appends the messages to content, every line with its newline.
func join(content []byte, messages []message.Message) []byte {
	size := 0
	for _, m := range messages {
		size += len(m.Line) + 1
	}
	content = slices.Grow(content, size)
	for _, m := range messages {
		content = append(content, m.Line...)
		content = append(content, '\n')
	}
	return content
}

func writeAll(w io.Writer, p []byte) error {
	n, err := w.Write(p)
	if err == nil && n < len(p) {
		return io.ErrShortWrite
	}
	return err
}

// publish gives the durable files their visible names, if b grants it. What
// leaves it halfway, a panic or runtime.Goexit, is undone like an error, ahead
// of the claim's release: else the messages could be in a second file.
func (s *Shard) publish(ctx context.Context, b *message.Batch, files []publication) error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	returned := false
	defer func() {
		if !returned {
			s.interrupted(files)
		}
	}()
	err := s.expose(ctx, b, files)
	returned = true
	return err
}

// expose links the files to their visible names and makes those durable.
//
// It links and unlinks where renameat2(RENAME_NOREPLACE) would be one call:
// that one is missing on NFS and outside Linux, and after a link that reported
// an error the temporary name still tells whether it happened.
func (s *Shard) expose(ctx context.Context, b *message.Batch, files []publication) error {
	names, err := s.syncer.begin()
	if err != nil {
		return s.discard(files, s.failed("open", "", err))
	}
	// The right comes last, because what has been granted can no longer be
	// abandoned.
	if err := s.ready(ctx); err != nil {
		return s.discard(files, err)
	}
	if !b.BeginPublish() {
		return s.discard(files, ErrAbandoned)
	}
	for i := range files {
		p := &files[i]
		p.tried = true
		if err := s.folder.link(p.temp, p.final); err != nil {
			return s.undo(files, s.failed("link", p.final, err))
		}
		p.linked = true
	}
	for _, p := range files {
		if err := s.folder.remove(p.temp); err != nil {
			return s.undo(files, s.failed("unlink", p.temp, err))
		}
	}
	if err := names.sync(); err != nil {
		return s.undo(files, s.failed("fsync", "", err))
	}
	return nil
}
