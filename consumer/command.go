package consumer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"async-data-processor/event"
	"async-data-processor/output"
)

// Verb is what a command does to a shard.
type Verb string

const (
	// PauseShard ends the consuming. What was received is written and settled, and the
	// open file published: then nothing of the shard becomes visible until it is resumed.
	PauseShard Verb = "pause"
	// ResumeShard ends a pause.
	ResumeShard Verb = "resume"
	// ResizeShard bounds the number of workers.
	ResizeShard Verb = "resize"
	// FlushShard has incomplete batches written and the open file published now.
	FlushShard Verb = "flush"
)

// Command is what an operator wants of a shard.
type Command struct {
	// ID makes it idempotent: a shard remembers its last 32 commands, in its folder. It
	// is at most 64 letters, digits, dots, hyphens and underscores, and may be empty.
	ID   string
	Verb Verb
	// Min and Max are for ResizeShard: 1 <= Min <= Max <= 32, or both 0 for what the
	// settings say.
	Min, Max int
	// Until is when a pause ends by itself; zero for never.
	Until time.Time
	// Reason and By say why, and who wants it from where, in at most MaxCommandText
	// bytes each.
	Reason, By string
}

// MaxCommandText bounds each text of a Command, in bytes.
const MaxCommandText = 500

// maxCommandID bounds the length of an id, which is made of idBytes.
const (
	maxCommandID = 64
	idBytes      = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz.-_"
)

// Outcome is what a command has done.
type Outcome struct {
	// Before and After describe the shard: "running, 3 to 4 workers".
	Before, After string
	// Repeated tells that the command was applied before.
	Repeated bool
}

var (
	// ErrBadCommand: the command can never be applied.
	ErrBadCommand = errors.New("no such command")
	// ErrNotOwner: this process does not have the shard's folder now. Its owner takes
	// commands.
	ErrNotOwner = errors.New("this process does not own the shard now")
	// ErrSuperseded: the pause was over before it was complete.
	ErrSuperseded = errors.New("a later command, or its end, came before the pause was complete")
	// errReturned: what was to be flushed is back at the broker.
	errReturned = errors.New("what could not be written went back to the broker")
)

// Check returns ErrBadCommand, and why, unless the command can be applied.
func (c Command) Check(now time.Time) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %w", ErrBadCommand, fmt.Errorf(format, args...))
	}
	for _, text := range []string{c.Reason, c.By} {
		if len(text) > MaxCommandText || !utf8.ValidString(text) {
			return bad("a reason is at most %d bytes of UTF-8", MaxCommandText)
		}
	}
	if len(c.ID) > maxCommandID || strings.Trim(c.ID, idBytes) != "" {
		return bad("an id is at most %d letters, digits, dots, hyphens and underscores", maxCommandID)
	}
	if c.Verb != PauseShard && !c.Until.IsZero() {
		return bad("only a pause has an end")
	}
	if c.Verb != ResizeShard && (c.Min != 0 || c.Max != 0) {
		return bad("only a resize has a number of workers")
	}
	switch c.Verb {
	case PauseShard:
		if !c.Until.IsZero() && (!c.Until.After(now) || c.Until.Year() > 9999) {
			return bad("the pause ends at %s, which is not in the future", c.Until.Format(time.RFC3339))
		}
	case ResizeShard:
		if w := (workers{c.Min, c.Max}); w != (workers{}) && w.check() != nil {
			return bad("%w", w.check())
		}
	case ResumeShard, FlushShard:
	default:
		return bad("the verb is %q, want pause, resume, resize or flush", c.Verb)
	}
	return nil
}

// Command applies a command to a shard that this Set owns. When it returns nil:
//
//	pause     no file of the shard becomes visible any more until it is resumed
//	resume    the shard is consumed, or will be by its next owner
//	resize    the running workers have the new bounds
//	flush     what was received before is in visible files
//
// What it sets is durable in the shard's folder before it acts, and holds for every
// later owner of that folder. After an error it may hold, too: the same command with the
// same ID is safe. If ctx ends first, the command goes on and its outcome is not known.
//
// A shard that stops meanwhile in an orderly way, because another process is to own it,
// completes the command. ErrNotOwner is returned at once, or when the shard has ended
// otherwise.
func (s *Set) Command(ctx context.Context, n int, c Command) (Outcome, error) {
	if err := c.Check(time.Now()); err != nil {
		return Outcome{}, err
	}
	s.mu.Lock()
	sh := s.running[n]
	s.mu.Unlock()
	if sh == nil {
		return Outcome{}, ErrNotOwner
	}
	out, err := sh.command(ctx, c)
	if err != nil {
		err = fmt.Errorf("%s shard %d: %w", c.Verb, n, err)
	}
	return out, err
}

func (sh *shard) command(ctx context.Context, c Command) (out Outcome, err error) {
	told := event.ShardCommand{Shard: sh.n, ID: c.ID, Verb: string(c.Verb), By: c.By, Reason: c.Reason}
	f, flushing, err := sh.decide(ctx, c, &told)
	if told.Before == "" {
		return Outcome{}, err // nothing was begun
	}
	if err == nil {
		err = sh.complete(ctx, c.Verb, f, flushing)
	}
	told.Done, told.Err = true, err
	sh.set.cfg.Events.Send(told)
	return Outcome{Before: told.Before, After: told.After, Repeated: told.Repeated}, err
}

// decide makes the command durable and has the shard act on it. A command is decided at
// a time. It fills in told, and sends it before it changes anything.
func (sh *shard) decide(ctx context.Context, c Command, told *event.ShardCommand) (Folder, *received, error) {
	select {
	case sh.deciding <- struct{}{}:
	case <-sh.ended:
		return nil, nil, ErrNotOwner
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	defer func() { <-sh.deciding }()
	sh.set.mu.Lock()
	f, before := sh.folder, sh.control
	sh.set.mu.Unlock()
	if f == nil {
		return nil, nil, ErrNotOwner
	}
	after, repeated := before.with(c, time.Now())
	told.Before, told.After, told.Repeated = before.text(sh.set.cfg), after.text(sh.set.cfg), repeated
	sh.set.cfg.Events.Send(*told)
	switch {
	case c.Verb == FlushShard:
		return f, sh.received.Swap(new(received)), nil
	case repeated:
		return f, nil, nil
	}
	content, err := after.encode()
	if err == nil {
		err = f.SetControl(ctx, content)
	}
	if err != nil {
		sh.foundLost(err)
		return nil, nil, err
	}
	sh.apply(f, after)
	return f, nil, nil
}

// complete waits until the command has its effect.
func (sh *shard) complete(ctx context.Context, v Verb, f Folder, flushing *received) error {
	switch v {
	case PauseShard:
		return sh.await(ctx, sh.hasPaused)
	case ResumeShard:
		return sh.await(ctx, func() (bool, error) { return sh.state != event.ShardPaused || sh.control.Pause != nil, nil })
	case FlushShard:
		return sh.flush(ctx, f, flushing)
	}
	return nil
}

// hasPaused tells whether the shard has come to rest. set.mu is held.
func (sh *shard) hasPaused() (bool, error) {
	if sh.control.Pause == nil {
		return false, ErrSuperseded
	}
	return sh.state == event.ShardPaused, nil
}

// await waits until done, which is called with set.mu held.
func (sh *shard) await(ctx context.Context, done func() (bool, error)) error {
	for {
		sh.set.mu.Lock()
		ok, err := done()
		turn := sh.turn
		sh.set.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-turn:
		case <-sh.ended:
			return sh.endedWith()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// endedWith returns nil if the shard has written, settled and published all that it had.
func (sh *shard) endedWith() error {
	sh.set.mu.Lock()
	defer sh.set.mu.Unlock()
	if sh.finished {
		return nil
	}
	if sh.err == nil {
		return ErrNotOwner
	}
	return fmt.Errorf("%w: it has stopped: %w", ErrNotOwner, sh.err)
}

// flushInterval is how often a flush asks for the batches that other batches hold up.
const flushInterval = 20 * time.Millisecond

// flush waits until what was received before is written and visible.
func (sh *shard) flush(ctx context.Context, f Folder, before *received) error {
	again := time.NewTicker(flushInterval)
	defer again.Stop()
	for before.unsettled.Load() > 0 {
		select {
		case sh.flushes <- struct{}{}:
		default: // it has not seen the last one yet
		}
		select {
		case <-again.C:
		case <-sh.ended:
			if before.returned.Load() {
				return errReturned
			}
			return sh.endedWith()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if before.returned.Load() {
		return errReturned
	}
	for {
		err := f.Flush(ctx)
		if !errors.Is(err, output.ErrTurn) || ctx.Err() != nil {
			if errors.Is(err, output.ErrClosed) {
				return sh.closedWith(ctx)
			}
			return err
		}
	}
}

// closedWith returns nil if the folder was closed in order, which publishes its file.
func (sh *shard) closedWith(ctx context.Context) error {
	select {
	case <-sh.ended:
		return sh.endedWith()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
