package shard

import (
	"slices"

	"async-data-processor/message"
)

// waiter is a submission that waits for its envelopes. Its parts and outcomes
// are guarded by the lock of the lanes until it is done waiting.
type waiter struct {
	parts    []*filling // its envelopes, nil once landed
	outcomes []error    // of each part
	aloft    int        // how many parts have not landed
	landed   chan struct{}

	shards, ends []int32 // for sort
}

// sort returns the indexes of the messages ordered by shard, otherwise as they
// are, and for each of the n shards the end of its part.
func (w *waiter) sort(messages []message.Message, n int) (order, ends []int32) {
	w.shards = slices.Grow(w.shards[:0], 2*len(messages))[:2*len(messages)]
	w.ends = slices.Grow(w.ends[:0], n+1)[:n+1]
	shards, order, ends := w.shards[:len(messages)], w.shards[len(messages):], w.ends
	clear(ends)
	for i := range messages {
		s := Of(messages[i].Time, n)
		shards[i] = int32(s)
		ends[s+1]++
	}
	for s := range n {
		ends[s+1] += ends[s]
	}
	for i, s := range shards {
		order[ends[s]] = int32(i)
		ends[s]++ // from the start of its part, in the end to that of the next
	}
	return order, ends[:n]
}

// board adds an envelope, and returns which part it is.
func (w *waiter) board(f *filling) (part int) {
	w.parts = append(w.parts, f)
	w.outcomes = append(w.outcomes, nil)
	w.aloft++
	return len(w.parts) - 1
}

// hear ends the wait for a part; the last one sends to landed.
func (w *waiter) hear(part int, outcome error) {
	w.parts[part], w.outcomes[part] = nil, outcome
	w.aloft--
	if w.aloft == 0 {
		w.landed <- struct{}{}
	}
}

// end returns the outcomes, none if all are nil, and makes the waiter as new.
// Nobody knows it any more.
func (w *waiter) end() (outcomes []error) {
	if slices.ContainsFunc(w.outcomes, func(err error) bool { return err != nil }) {
		outcomes = slices.Clone(w.outcomes)
	}
	clear(w.parts)
	clear(w.outcomes)
	w.parts, w.outcomes, w.aloft = w.parts[:0], w.outcomes[:0], 0
	return outcomes
}
