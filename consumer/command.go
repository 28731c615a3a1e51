package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
		if !c.Until.IsZero() && (!c.Until.After(now) || c.Until.UTC().Year() > 9999) {
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
	o := order{sh: sh, cmd: c, told: event.ShardCommand{Shard: n, ID: c.ID, Verb: string(c.Verb), By: c.By, Reason: c.Reason}}
	err := o.run(ctx)
	if err != nil {
		err = fmt.Errorf("%s shard %d: %w", c.Verb, n, err)
	}
	return Outcome{Before: o.told.Before, After: o.told.After, Repeated: o.told.Repeated}, err
}

// order is a command on its way.
type order struct {
	sh   *shard
	cmd  Command
	told event.ShardCommand
	// folder is what the shard had when the command was decided. received is what a
	// flush waits for, that of earlier flushes included.
	folder   Folder
	received []*received
}

func (o *order) run(ctx context.Context) error {
	err := o.decide(ctx)
	if o.told.Before == "" {
		return err // nothing was begun
	}
	if err == nil {
		err = o.complete(ctx)
	}
	done := o.told
	done.Done, done.Err = true, err
	o.sh.set.cfg.Events.Send(done)
	return err
}

// decide makes the command durable and has the shard act on it. A command is decided at
// a time. What it does is told before.
func (o *order) decide(ctx context.Context) error {
	sh := o.sh
	select {
	case sh.deciding <- struct{}{}:
	case <-sh.ended:
		return ErrNotOwner
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-sh.deciding }()
	sh.set.mu.Lock()
	f, before := sh.folder, sh.control
	sh.set.mu.Unlock()
	if f == nil {
		return ErrNotOwner
	}
	after, repeated := before.with(o.cmd, time.Now(), sh.age.least())
	o.folder, o.told.Repeated = f, repeated
	o.told.Before, o.told.After = before.text(sh.set.cfg), after.text(sh.set.cfg)
	sh.set.cfg.Events.Send(o.told)
	switch {
	case o.cmd.Verb == FlushShard:
		o.received = sh.arrivals.cut()
		return nil
	case repeated:
		return nil
	}
	content, err := after.encode()
	if err == nil {
		err = f.SetControl(ctx, content)
	}
	if err != nil {
		o.foundLost(err)
		return err
	}
	sh.apply(f, after)
	return nil
}

// foundLost has a shard that consumes take its folder anew, if err says so. One that
// rests looks by itself.
func (o *order) foundLost(err error) {
	o.sh.set.mu.Lock()
	giveUp := o.sh.giveUp
	o.sh.set.mu.Unlock()
	if giveUp != nil && errors.Is(err, output.ErrLost) {
		giveUp(err)
	}
}

// complete waits until the command has its effect.
func (o *order) complete(ctx context.Context) error {
	sh := o.sh
	switch o.cmd.Verb {
	case PauseShard:
		return o.await(ctx, func() (bool, error) {
			if sh.control.Pause == nil {
				return false, ErrSuperseded
			}
			return sh.state == event.ShardPaused && sh.drain == nil, nil
		})
	case ResumeShard:
		return o.await(ctx, func() (bool, error) { return sh.state != event.ShardPaused || sh.control.Pause != nil, nil })
	case FlushShard:
		return o.flush(ctx)
	}
	return nil
}

// await waits until done, which is called with set.mu held.
func (o *order) await(ctx context.Context, done func() (bool, error)) error {
	for {
		o.sh.set.mu.Lock()
		ok, err := done()
		turn := o.sh.turn
		o.sh.set.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-turn:
		case <-o.sh.ended:
			return o.ended()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ended returns nil if the shard has written, settled and published all that it had.
func (o *order) ended() error {
	sh := o.sh
	sh.set.mu.Lock()
	defer sh.set.mu.Unlock()
	switch {
	case sh.finished:
		return nil
	case sh.err == nil:
		return ErrNotOwner
	}
	return fmt.Errorf("%w: it has stopped: %w", ErrNotOwner, sh.err)
}

// flushInterval is how often a flush asks for the batches that other batches hold up.
const flushInterval = 20 * time.Millisecond

// flush waits until what was received before is written and visible.
func (o *order) flush(ctx context.Context) error {
	again := time.NewTicker(flushInterval)
	defer again.Stop()
	for slices.ContainsFunc(o.received, (*received).waits) {
		select {
		case o.sh.flushes <- struct{}{}:
		default: // it has not seen the last one yet
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for {
		if slices.ContainsFunc(o.received, func(r *received) bool { return r.returned.Load() }) {
			return errReturned
		}
		err := o.folder.Flush(ctx)
		switch {
		case errors.Is(err, output.ErrTurn) && ctx.Err() == nil:
		case errors.Is(err, output.ErrClosed): // which publishes the file, if it could
			return o.await(ctx, func() (bool, error) {
				if o.sh.folder != nil { // it was lost, and taken anew
					return false, ErrNotOwner
				}
				return false, nil
			})
		default:
			return err
		}
	}
}
