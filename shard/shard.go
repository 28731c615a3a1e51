// Package shard decides which shard a message belongs to.
package shard

import (
	"math/bits"
	"time"
)

// Of returns the shard of an instant, 0 to n-1. It depends on the instant and n
// only, and is the same in every version: files of a shard stay in its folder. n
// must be positive.
//
// Timestamps are far from uniform: whole seconds, whole milliseconds, steps of a
// sensor's period. So their seconds and nanoseconds are mixed first, and the
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
