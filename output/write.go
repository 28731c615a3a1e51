package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"async-data-processor/message"
	"async-data-processor/output/committed"
)

// Write publishes the messages of b that are in no file yet as one file named
// after its worker. It returns how many those are, and the file's name relative
// to the output folder ("shard-0/0-2_01JD….ndjson"). Then the file and its name
// are durable, and so are the files of the other messages, which an earlier
// batch or this one has written (see Window). If there is nothing left to write
// there is no file, and its name is empty. worker is 1 to 64 letters, digits
// and hyphens; b holds at least one message.
//
// It is one attempt. After an error nothing of it is visible, or the error is
// ErrStillVisible; Write may be called again with the same batch, and that
// attempt starts afresh. The right to publish is asked of b at the last moment
// (see message.Batch.Commit), so a writer that was held up for long publishes
// nothing that was abandoned meanwhile: it fails with ErrAbandoned. An attempt
// that failed otherwise may or may not have been granted the right. A panic
// leaves nothing visible either, and is passed on.
//
// A message that another Write is about to publish is waited for, unless that
// one's batch was abandoned; after 5 seconds with committed.ErrInHand.
//
// ctx is looked at between the steps; a call that the disk holds up is not
// interrupted. Once the file is linked ctx no longer matters.
//
// The system calls of a Write without errors:
//
//	newfstatat(lock file's absolute path)    is the folder still ours?
//	openat(temp, O_CREAT|O_EXCL)
//	write(temp)                              all lines at once
//	fsync(temp)
//	close(temp)
//	openat(folder)
//	newfstatat(lock file's absolute path)
//	        b.Commit
//	linkat(temp, final)                      visible from here, never overwrites
//	unlinkat(temp)
//	fsync(folder)                            durable from here
//	close(folder)
//	        claim.Commit                     known from here
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
	defer s.leave()
	if err := s.settleHidden(); err != nil {
		return "", 0, err
	}
	if err := s.ready(ctx); err != nil {
		return "", 0, err
	}

	stem := worker + "_" + message.NewID()
	p := publication{temp: tempPrefix + stem + tempSuffix, final: stem + visibleSuffix}
	content := join(fresh)
	if err := s.spool(p.temp, content); err != nil {
		if LacksSpace(err) {
			s.want(len(content))
		}
		return "", 0, err
	}
	if err := s.publish(ctx, b, p); err != nil {
		return "", 0, err
	}
	claim.Commit()
	return path.Join(s.name, p.final), len(fresh), nil
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
func (s *Shard) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writers--
	if s.closed && s.writers == 0 {
		_ = s.folder.close() // only names were looked up in it: nothing can be lost
	}
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
		return s.discard(temp, s.failed(step, temp, err))
	}
	return nil
}

// join is the content of a file: every line with its newline.
func join(messages []message.Message) []byte {
	size := 0
	for _, m := range messages {
		size += len(m.Line) + 1
	}
	content := make([]byte, 0, size)
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

// publish gives the durable file p.temp its visible name, if b grants it. What
// leaves it halfway, a panic or runtime.Goexit, is undone like an error, ahead
// of the claim's release: else the messages could be in a second file.
func (s *Shard) publish(ctx context.Context, b *message.Batch, p publication) error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	returned := false
	defer func() {
		if !returned {
			s.interrupted(p)
		}
	}()
	err := s.expose(ctx, b, &p)
	returned = true
	return err
}

// expose links p.temp to its visible name and makes that durable.
//
// It links and unlinks where renameat2(RENAME_NOREPLACE) would be one call:
// that one is missing on NFS and outside Linux, and after a link that reported
// an error the temporary name still tells whether it happened.
func (s *Shard) expose(ctx context.Context, b *message.Batch, p *publication) error {
	// Opened before the link: a failed write-back is reported to descriptors
	// that were open then, and to one opened later only if no other saw it.
	h, err := s.folder.open()
	if err != nil {
		return s.discard(p.temp, s.failed("open", "", err))
	}
	defer h.Close() // only read from: nothing of it can be lost

	// The right comes last, because what has been granted can no longer be
	// abandoned.
	if err := s.ready(ctx); err != nil {
		return s.discard(p.temp, err)
	}
	if !b.Commit() {
		return s.discard(p.temp, ErrAbandoned)
	}
	if err := s.folder.link(p.temp, p.final); err != nil {
		return s.undo(*p, s.failed("link", p.final, err))
	}
	p.linked = true
	if err := s.folder.remove(p.temp); err != nil {
		return s.undo(*p, s.failed("unlink", p.temp, err))
	}
	if err := h.Sync(); err != nil {
		return s.undo(*p, s.failed("fsync", "", err))
	}
	return nil
}
