package committed

import (
	"math/bits"
	"slices"
)

// block is which 64 of a submission's messages: ids are looked up and kept by
// the block, as those of a submission stand side by side in a batch.
type block struct{ hi, lo, number uint64 }

// run is ids of one block that stand side by side in a batch.
type run struct {
	block
	bits     uint64 // its ids; once it is claimed, those that are the claim's to write
	from, to int    // where it is in the batch

	claim *Claim
	next  *run // the next pending one of the block; guarded by the window's lock
}

// follows tells whether the key at i goes on with the run.
func (r *run) follows(i int, k Key) bool {
	return r.to == i && k.isID() && r.block == k.block()
}

// gather finds the runs of the batch, and counts what has no id as fresh.
func (c *Claim) gather() {
	runs := 0
	for i, k := range c.keys {
		if !k.isID() {
			c.fresh++
		} else if i == 0 || !c.keys[i-1].isID() || k.block() != c.keys[i-1].block() {
			runs++
		}
	}
	if c.runs = c.few[:0]; runs > len(c.few) {
		c.runs = make([]run, 0, runs)
	}
	for i, k := range c.keys {
		if !k.isID() {
			continue
		}
		if n := len(c.runs); n > 0 && c.runs[n-1].follows(i, k) {
			c.runs[n-1].bits |= k.bit()
			c.runs[n-1].to++
			continue
		}
		c.runs = append(c.runs, run{block: k.block(), bits: k.bit(), from: i, to: i + 1, claim: c})
	}
}

// cutRun takes the last run off the keys; one of no ids if the last has none.
func cutRun(keys []Key) (r run, rest []Key) {
	last := len(keys) - 1
	if !keys[last].isID() {
		return run{}, keys[:last]
	}
	r.block = keys[last].block()
	for ; last >= 0 && keys[last].isID() && keys[last].block() == r.block; last-- {
		r.bits |= keys[last].bit()
	}
	return r, keys[:last+1]
}

// Packed is ids of one block: up to 64 of them in 32 bytes.
type Packed struct {
	hi, lo, bits uint64
	number       uint16 // of the block
}

// Pack returns the keys in less memory. A key that stands beside others of its block
// loses its place among them.
func Pack(keys []Key) (packed []Packed) {
	for _, k := range keys {
		if !k.isID() {
			continue
		}
		p := Packed{k.hi, k.lo, k.bit(), uint16(k.block().number)}
		if n := len(packed); n > 0 && packed[n-1].block() == p.block() {
			packed[n-1].bits |= p.bits
		} else {
			packed = append(packed, p)
		}
	}
	return slices.Clone(packed) // without what append has left
}

// Unpack appends what was packed to keys.
func Unpack(packed []Packed, keys []Key) []Key {
	for _, p := range packed {
		for rest := p.bits; rest != 0; rest &= rest - 1 {
			keys = append(keys, Key{p.hi, p.lo, uint32(p.number)<<6 | uint32(bits.TrailingZeros64(rest))})
		}
	}
	return keys
}

func (p Packed) block() block { return block{p.hi, p.lo, uint64(p.number)} }
