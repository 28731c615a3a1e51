package committed

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Key stands for a message id. Two ids of the form "<ULID>.<index>" have
// different keys. Another program chose any other id, whose key is the first 128
// bits of its SHA-256. Two ids with one key would lose a message, so the hash must
// be one without known collisions.
type Key struct {
	hi, lo uint64 // the submission's ULID, or the hash
	index  uint32
}

// Indexes with a meaning of their own. A submission has 10,000 entries at most;
// an id with an index that does not fit is hashed.
const (
	maxIndex = 1<<22 - 1<<6 - 1
	// foreignIndex is of ids that are hashed.
	foreignIndex = maxIndex + 1
	// noIndex is of what is no key.
	noIndex = 1<<32 - 1
)

var (
	// noKey is of a message without an id. The broker delivers none; if
	// there were, it would be better written twice than not at all.
	noKey = Key{index: noIndex}
	// duplicate marks what is not to be written.
	duplicate = Key{index: noIndex, lo: 1}
)

func (k Key) isID() bool { return k.index != noIndex }

// block is which 64 of a submission's messages this is one of; bit is which.
func (k Key) block() block { return block{k.hi, k.lo, uint64(k.index >> 6)} }

func (k Key) bit() uint64 { return 1 << (k.index & 63) }

// KeyOf returns the key of a message id; an empty one has none and is never
// taken for a duplicate.
func KeyOf(id []byte) Key {
	if len(id) == 0 {
		return noKey
	}
	if len(id) > ulidLen+1 && id[ulidLen] == '.' {
		hi, lo, isULID := decodeULID(id[:ulidLen])
		if index, ok := decodeIndex(id[ulidLen+1:]); isULID && ok {
			return Key{hi, lo, index}
		}
	}
	sum := sha256.Sum256(id)
	return Key{binary.BigEndian.Uint64(sum[:]), binary.BigEndian.Uint64(sum[8:]), foreignIndex}
}

// TimeOf returns when a ULID was made, to the millisecond; ok is false if it
// is none, written as we write them.
func TimeOf(ulid string) (at time.Time, ok bool) {
	if len(ulid) != ulidLen {
		return time.Time{}, false
	}
	hi, _, ok := decodeULID([]byte(ulid))
	return time.UnixMilli(int64(hi >> 16)), ok
}

const (
	ulidLen = 26
	// alphabet is Crockford's base 32. Lower case is not read as upper case:
	// the ids of both would be one, and one message lost.
	alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	notDigit = 0xff
)

var digits = func() (table [256]byte) {
	for i := range table {
		table[i] = notDigit
	}
	for i, c := range []byte(alphabet) {
		table[c] = byte(i)
	}
	return table
}()

// decodeULID reads 26 digits; the first has only three bits.
func decodeULID(text []byte) (hi, lo uint64, ok bool) {
	for _, c := range text {
		d := digits[c]
		if d == notDigit {
			return 0, 0, false
		}
		hi = hi<<5 | lo>>59
		lo = lo<<5 | uint64(d)
	}
	return hi, lo, text[0] <= '7'
}

// decodeIndex reads a number as we write it: without zeros in front.
func decodeIndex(text []byte) (index uint32, ok bool) {
	if len(text) == 0 || len(text) > 7 || text[0] == '0' && len(text) > 1 {
		return 0, false
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		index = 10*index + uint32(c-'0')
	}
	return index, index <= maxIndex
}
