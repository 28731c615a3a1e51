package publisher

import (
	"slices"

	"async-data-processor/message"
	"async-data-processor/shard"
)

// waiter is a submission that waits for its envelopes. Until it is done, the
// publisher's mu guards envelopes, outcomes and pending, and what only Start uses.
type waiter struct {
	envelopes []*envelope // nil where the outcome is known
	outcomes  []error     // of each envelope
	pending   int         // how many outcomes are not known
	counts    []message.ShardCount

	// Submit waits for done.
	done chan struct{}
	// told, if it is not nil, is called instead: see Start. unhook ends the wait for the
	// context. uses counts how often the waiter was told, and next follows it in a list.
	told   func([]message.ShardCount, error)
	unhook func() bool
	uses   uint64
	next   *waiter
	// enqueued tells that the messages are in envelopes. If the context ends before,
	// expired is the outcome.
	enqueued bool
	expired  error

	shards, ends []int32 // for sort
}

// sort returns the indexes of the messages ordered by shard, otherwise as they
// are, and for each of the n shards where its indexes end.
func (w *waiter) sort(messages []message.Message, n int) (order, ends []int32) {
	w.shards = slices.Grow(w.shards[:0], 2*len(messages))[:2*len(messages)]
	w.ends = slices.Grow(w.ends[:0], n+1)[:n+1]
	shards, order, ends := w.shards[:len(messages)], w.shards[len(messages):], w.ends
	clear(ends)
	for i := range messages {
		s := shard.Of(messages[i].Time, n)
		shards[i] = int32(s)
		ends[s+1]++
	}
	for s := range n {
		ends[s+1] += ends[s]
	}
	for i, s := range shards {
		order[ends[s]] = int32(i)
		ends[s]++ // moves from where the shard's indexes start to where they end
	}
	return order, ends[:n]
}

// add has the waiter wait for an envelope, and returns the envelope's index.
func (w *waiter) add(e *envelope) int {
	w.envelopes = append(w.envelopes, e)
	w.outcomes = append(w.outcomes, nil)
	w.pending++
	return len(w.envelopes) - 1
}

// tell gives the waiter the outcome of an envelope. The last one ends its wait. mu is held.
func (p *Publisher) tell(w *waiter, index int, outcome error) (last bool) {
	w.envelopes[index], w.outcomes[index] = nil, outcome
	w.pending--
	switch {
	case w.pending > 0:
		return false
	case w.told != nil:
		p.finish(w)
	default:
		w.done <- struct{}{}
	}
	return true
}

// reset returns the error of the submission, and prepares the waiter for
// another. No envelope may refer to it any more.
func (w *waiter) reset() (err error) {
	if slices.ContainsFunc(w.outcomes, func(err error) bool { return err != nil }) {
		err = join(w.outcomes)
	}
	clear(w.envelopes)
	clear(w.outcomes)
	w.envelopes, w.outcomes, w.pending = w.envelopes[:0], w.outcomes[:0], 0
	w.counts, w.told, w.unhook, w.next, w.enqueued, w.expired = nil, nil, nil, nil, false, nil
	return err
}
