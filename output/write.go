package output

import (
	"context"
	"errors"
	"fmt"

	"async-data-processor/message"
	"async-data-processor/output/committed"
)

// Write writes the messages of b that are in no file yet. The files are named
// after the worker, which is 1 to 64 letters, digits and hyphens. b holds at least
// one message.
//
//	files do not roll    one file, or several if the messages are more than b.Size
//	files roll           the end of the shard's file, visible only later
//
// It returns the messages that it has written, and the visible name of the last
// file relative to the output folder ("shard-0/0-2_01JD….ndjson"). Then all
// messages of b are durable: those that it did not write are in other files (see
// Window). If there is nothing to write, the name is empty.
//
// It is one attempt:
//
//   - After an error nothing of it is visible, or the error is ErrStillVisible.
//     Of a failed append, whole lines may become visible if the process dies, or
//     the shard is closed, before the file is repaired; the next owner knows them.
//   - Write may be called again with the same batch. That attempt starts afresh.
//   - A panic leaves nothing visible either, and is passed on.
//
// Just before the batch can become visible Write asks b for the right to publish
// (see message.Batch.BeginPublish). If b was abandoned it fails with ErrAbandoned.
// After another error the right may have been granted. An append has to ask
// before its first byte, so a batch whose append hangs can no longer be abandoned.
//
// Write waits for these, and looks at ctx between its steps until it has the
// right to publish. It does not interrupt a call that the disk holds up.
//
//	a message that another batch is about to publish     5 s, then committed.ErrPending
//	an append of another batch                           5 s, then ErrTurn
func (s *Shard) Write(ctx context.Context, worker string, b *message.Batch) (file string, written []message.Message, err error) {
	if !isWorkerName(worker) {
		return "", nil, fmt.Errorf("worker %q: a name is 1 to 64 letters, digits and hyphens", worker)
	}
	if len(b.Messages) == 0 {
		return "", nil, errors.New("write an empty batch")
	}
	claim, err := s.claim(ctx, b)
	if err != nil {
		return "", nil, err
	}
	defer claim.Release()
	fresh := freshOf(b.Messages, claim)
	if len(fresh) == 0 {
		return "", nil, nil
	}
	// After the claim, not before: an earlier attempt with one of these ids may
	// have left it visible, and then enter undoes that.
	if err := s.dir.enter(s.undo.finish); err != nil {
		return "", nil, err
	}
	defer s.dir.leave() // only names were looked up in the folder: nothing can be lost
	if err := s.undo.syncRemovals(); err != nil {
		return "", nil, err
	}
	if s.appender.roll.Rolls() {
		file, err = s.appender.append(ctx, worker, b, fresh, claim)
	} else {
		a := attempt{dir: s.dir, undo: s.undo}
		file, err = a.run(ctx, worker, b, fresh, claim)
	}
	if err != nil {
		return "", nil, err
	}
	return file, fresh, nil
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
		return nil, fmt.Errorf("write to %s: %w", s.dir.name, err)
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
