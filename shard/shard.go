// Package shard decides which shard a message belongs to, and splits a
// submission into the envelopes that carry it there.
package shard

import (
	"math/bits"
	"time"

	"async-data-processor/message"
)

// Of returns the shard of an instant, 0 to n-1. It is a pure function of the
// instant and n, the same in every version: files of a shard stay in its
// folder. n must be positive.
//
// Timestamps are far from uniform (whole seconds, whole milliseconds, steps of
// a sensor's period), so their seconds and nanoseconds are mixed first, and the
// mix is scaled to n by its high bits (Lemire, "Fast Random Integer Generation
// in an Interval", 2019). time.Time.UnixNano would overflow outside 1678..2262.
func Of(t time.Time, n int) int {
	mixed := mix(mix(uint64(t.Unix())) + uint64(t.Nanosecond()))
	high, _ := bits.Mul64(mixed, uint64(n))
	return int(high)
}

// mix is the output function of SplitMix64 (Steele, Lea, Flood, "Fast
// splittable pseudorandom number generators", 2014): every input bit moves
// every output bit.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Split sorts the submission's messages into envelopes for n shards, within a
// shard in the order sent. A shard's messages share one envelope unless that
// would exceed message.MaxEnvelopeBytes.
func Split(s message.Submission, n int) []message.Envelope {
	// Counting first lets every body be allocated once, at its size.
	shards := make([]int, len(s.Messages))
	size := make([]int, n)
	for i, m := range s.Messages {
		shards[i] = Of(m.Time, n)
		size[shards[i]] += len(m.Line) + 1
	}
	var (
		open   = make([]message.Envelope, n)
		closed = make([]message.Envelope, 0, n)
	)
	for i, m := range s.Messages {
		e := &open[shards[i]]
		need := len(m.Line) + 1
		if e.Count > 0 && len(e.Body)+need > message.MaxEnvelopeBytes {
			closed = append(closed, *e)
			*e = message.Envelope{}
		}
		if e.Count == 0 {
			rest := min(size[shards[i]], message.MaxEnvelopeBytes)
			*e = message.Envelope{ID: message.NewID(), Shard: shards[i], Body: make([]byte, 0, rest)}
		}
		size[shards[i]] -= need
		e.Body = append(append(e.Body, m.Line...), '\n')
		e.Count++
	}
	for _, e := range open {
		if e.Count > 0 {
			closed = append(closed, e)
		}
	}
	return closed
}
