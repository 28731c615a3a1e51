package message

import (
	"errors"
	"slices"
	"sync/atomic"
)

// Cause says why a batch left its batcher.
type Cause uint8

const (
	// Full: the batch reached its size.
	Full Cause = iota
	// Lingered: its first message had waited for the linger.
	Lingered
	// Flushed: the drain sent it off.
	Flushed
)

func (c Cause) String() string {
	switch c {
	case Full:
		return "full"
	case Lingered:
		return "lingered"
	default:
		return "flushed"
	}
}

// Batch is the messages that one worker writes together. It may span
// deliveries, and remembers them so that it can settle them.
//
// A batch is filled by one goroutine and then handed over; only Commit, Abandon
// and OnAbandon may be called by two goroutines at once.
type Batch struct {
	Messages []Message
	Cause    Cause
	// Size is the most messages of one file, 0 for no limit. A batch with more
	// is several full ones that waited together: as many files, or appended at
	// once where files roll.
	Size int

	parts []part
	right atomic.Uint32
	// abandoned is what OnAbandon was given last.
	abandoned atomic.Pointer[func()]
}

// part is a run of the batch's messages that came in one delivery.
type part struct {
	delivery *Delivery
	messages int
}

// Who has the right to decide what becomes of a batch.
const (
	rightFree uint32 = iota
	rightWriter
	rightSupervisor
)

// Add appends messages of d. It may keep the slice, which nobody changes any
// more: a batch whose messages came in one run copies none of them.
func (b *Batch) Add(d *Delivery, messages ...Message) {
	switch {
	case b.Messages == nil:
		b.Messages = slices.Clip(messages)
	case cap(b.Messages)-len(b.Messages) < len(messages):
		// Doubled, where append alone would grow a large one by a quarter.
		b.Messages = slices.Grow(b.Messages, max(len(b.Messages), len(messages)))
		fallthrough
	default:
		b.Messages = append(b.Messages, messages...)
	}
	if last := len(b.parts) - 1; last >= 0 && b.parts[last].delivery == d {
		b.parts[last].messages += len(messages)
		return
	}
	b.parts = append(b.parts, part{d, len(messages)})
}

// Batches is how many batches it counts for.
func (b *Batch) Batches() int {
	if b.Size < 1 {
		return 1
	}
	return max(1, (len(b.Messages)+b.Size-1)/b.Size)
}

// Commit asks for the right to make the batch visible, as its writer. It is
// granted until Abandon has been, and once granted stays granted, so that a
// writer may try again.
func (b *Batch) Commit() bool {
	return b.right.CompareAndSwap(rightFree, rightWriter) || b.right.Load() == rightWriter
}

// Abandon asks for the right to give up on the batch's writer and return its
// messages. It is granted once, and only if Commit has not been.
func (b *Batch) Abandon() bool {
	if !b.right.CompareAndSwap(rightFree, rightSupervisor) {
		return false
	}
	if f := b.abandoned.Load(); f != nil {
		(*f)()
	}
	return true
}

// OnAbandon has f called when Abandon is granted, before it returns, or now if
// it has been: from then on nothing that the batch's writer does is visible. f
// takes the place of an earlier one; it may be called twice and must not block.
func (b *Batch) OnAbandon(f func()) {
	// Either Abandon finds f, or this finds that Abandon was granted.
	b.abandoned.Store(&f)
	if b.right.Load() == rightSupervisor {
		f()
	}
}

// Halves splits a batch of at least two messages into two that take its place:
// only they are settled, and each has rights of its own. Nobody writes the
// batch any more.
func (b *Batch) Halves() (first, second *Batch) {
	first, second = &Batch{Cause: b.Cause, Size: b.Size}, &Batch{Cause: b.Cause, Size: b.Size}
	rest, room := b.Messages, len(b.Messages)/2
	for _, p := range b.parts {
		own := rest[:p.messages]
		rest = rest[p.messages:]
		n := min(room, len(own))
		room -= n
		if n > 0 {
			first.Add(p.delivery, own[:n]...)
		}
		if n < len(own) {
			second.Add(p.delivery, own[n:]...)
		}
	}
	return first, second
}

// Settle resolves the batch's messages with the outcome, each in its delivery;
// DeadLetter is for all of them, with its reason. The error joins those of the
// deliveries that it settled.
func (b *Batch) Settle(o Outcome) error {
	var errs []error
	rest := b.Messages
	for _, p := range b.parts {
		own := rest[:p.messages]
		rest = rest[p.messages:]
		if o.Kind == DeadLetter {
			o.Dead = deadOf(own, o.Reason)
		}
		if err := p.delivery.Resolve(p.messages, o); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func deadOf(messages []Message, reason string) []Dead {
	dead := make([]Dead, len(messages))
	for i, m := range messages {
		dead[i] = Dead{Line: m.Line, Reason: reason}
	}
	return dead
}
