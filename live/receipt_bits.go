package live

import (
	"errors"
	"iter"
	"math/bits"
	"slices"

	"async-data-processor/broker"
)

// bitset is a set of small numbers, such as the indexes of messages. It ends with the
// last word that has a bit.
type bitset []uint64

func (b bitset) has(i int) bool { return i>>6 < len(b) && b[i>>6]&(1<<(i&63)) != 0 }

func (b *bitset) add(i int) {
	if need := i>>6 + 1; need > len(*b) {
		*b = append(*b, make([]uint64, need-len(*b))...)
	}
	(*b)[i>>6] |= 1 << (i & 63)
}

// join adds all of another set, and tells whether one of them is new.
func (b *bitset) join(o bitset) (grew bool) {
	if len(o) > len(*b) {
		*b = append(*b, make([]uint64, len(o)-len(*b))...)
	}
	for i, word := range o {
		grew = grew || word&^(*b)[i] != 0
		(*b)[i] |= word
	}
	return grew
}

// without returns those that are not in the other set.
func (b bitset) without(o bitset) bitset {
	rest := slices.Clone(b)
	for i := range min(len(rest), len(o)) {
		rest[i] &^= o[i]
	}
	return rest
}

func (b bitset) count() (n int) {
	for _, word := range b {
		n += bits.OnesCount64(word)
	}
	return n
}

// upTo is the set of all numbers below n.
func upTo(n int) bitset {
	b := make(bitset, (n+63)/64)
	for i := range b {
		b[i] = ^uint64(0)
	}
	if n%64 != 0 {
		b[len(b)-1] = 1<<(n%64) - 1
	}
	return b
}

// next returns the first number from i on that is in the set or not, as asked.
func (b bitset) next(i int, in bool) int {
	for ; i>>6 < len(b); i = (i>>6 + 1) << 6 {
		word := b[i>>6]
		if !in {
			word = ^word
		}
		if word >>= i & 63; word != 0 {
			return i + bits.TrailingZeros64(word)
		}
	}
	return i
}

// String is the set as ranges: "0-3,7".
func (b bitset) String() string {
	var text []byte
	for i := b.next(0, true); i < len(b)<<6; {
		end := min(b.next(i, false), len(b)<<6)
		text = broker.AppendRange(text, i, end-1)
		i = b.next(end, true)
	}
	return string(text)
}

var errRanges = errors.New("these are no ranges of numbers in order")

// parseBits reads what String wrote. Numbers from limit on are an error.
func parseBits(text string, limit int) (b bitset, err error) {
	if !broker.ReadRanges(text, limit, b.add) {
		return nil, errRanges
	}
	return b, nil
}

// all yields the numbers of the set, ascending.
func (b bitset) all() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := b.next(0, true); i < len(b)<<6 && yield(i); i = b.next(i+1, true) {
		}
	}
}
