package message

import (
	"errors"
	"slices"
	"sync"
)

// Cause says why a batch left its batcher.
type Cause uint8

const (
	// Full: the batch reached its size.
	Full Cause = iota
	// Lingered: its first message had waited for the linger.
	Lingered
	// Flushed: the drain sent it off, or a command.
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
// One goroutine fills a batch and then hands it over. Of its methods only
// BeginPublish, Abandon and OnAbandon may be called concurrently. They settle
// whether the writer or its supervisor decides what becomes of it; the first wins:
//
//	          BeginPublish ──▶ publishing   the writer makes it visible, and may
//	         ╱                              try again; Abandon is refused
//	undecided
//	         ╲
//	          Abandon ───────▶ abandoned    the messages go back to the broker;
//	                                        BeginPublish is refused
type Batch struct {
	Messages []Message
	Cause    Cause
	// Size is the most messages of one file, 0 for no limit. A batch with more
	// is several full ones that waited together: as many files, or appended at
	// once where files roll.
	Size int

	parts []part

	mu        sync.Mutex // guards what follows
	decision  decision
	onAbandon func() // nil if there is nothing to call
}

// part is a run of the batch's messages that came in one delivery.
type part struct {
	delivery *Delivery
	messages int
}

// decision is what becomes of a batch.
type decision uint8

const (
	undecided decision = iota
	publishing
	abandoned
)

// Add appends messages of d. It may keep the slice, which must not change any
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

// Each calls visit with each delivery that messages of the batch came in, and their
// number. It may be called until the batch is settled.
func (b *Batch) Each(visit func(d *Delivery, messages int)) {
	for _, p := range b.parts {
		visit(p.delivery, p.messages)
	}
}

// Batches is how many batches it counts for.
func (b *Batch) Batches() int {
	if b.Size < 1 {
		return 1
	}
	return max(1, (len(b.Messages)+b.Size-1)/b.Size)
}

// BeginPublish asks for the right to make the batch visible, as its writer. It is
// granted until Abandon has been. Once granted it stays granted, so that a writer
// may try again.
func (b *Batch) BeginPublish() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.decision == undecided {
		b.decision = publishing
	}
	return b.decision == publishing
}

// Abandon asks for the right to give up the batch's writer and to return its
// messages. It is granted once, and only if BeginPublish has not been.
func (b *Batch) Abandon() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.decision != undecided {
		return false
	}
	b.decision = abandoned
	if b.onAbandon != nil {
		b.onAbandon()
	}
	return true
}

// OnAbandon has f called when Abandon is granted, before Abandon returns; at once
// if it was granted before. From then on nothing that the batch's writer does is
// visible. f takes the place of an earlier one. It must not block, nor use the
// batch.
func (b *Batch) OnAbandon(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.onAbandon = f
	if b.decision == abandoned {
		f()
	}
}

// Split makes two batches of one that has at least two messages. They take its
// place: only they are settled, and each is decided for itself.
func (b *Batch) Split() (first, second *Batch) {
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
