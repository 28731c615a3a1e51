package verify

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/oklog/ulid/v2"

	"async-data-processor/message"
)

// record is a message: the 16 bytes of its submission's ULID, then its index,
// its shard and the offset of a text, in that order of weight. So records that
// sort side by side tell duplicates and gaps, submissions in order of time.
//
// An id of another form has its SHA-256 for a submission, foreignIndex, and a
// text of its own.
type record struct {
	hi, lo, rest uint64
}

const (
	recordBytes = 24

	indexBits  = 14
	shardBits  = 10
	offsetBits = 64 - indexBits - shardBits // a terabyte of texts

	maxShards    = 1 << shardBits
	maxOffset    = 1<<offsetBits - 1
	foreignIndex = 1<<indexBits - 1
)

// It does not compile if an index could be taken for foreignIndex.
const _ = uint(foreignIndex - message.MaxEntries)

// recordOf returns the record of a message; ours is false for an id that has
// not the form of ours.
func recordOf(id string, shard int) (_ record, ours bool) {
	submission, index, ours := split(id)
	if !ours {
		hash := sha256.Sum256([]byte(id))
		submission, index = ulid.ULID(hash[:16]), foreignIndex
	}
	return record{
		hi:   binary.BigEndian.Uint64(submission[:8]),
		lo:   binary.BigEndian.Uint64(submission[8:]),
		rest: uint64(index)<<(shardBits+offsetBits) | uint64(shard)<<offsetBits,
	}, ours
}

// split takes an id of the form "<ULID>.<index>" apart. There is one spelling:
// what join makes of the parts is the id again.
func split(id string) (submission ulid.ULID, index int, ok bool) {
	name, digits, _ := strings.Cut(id, ".")
	index, err := strconv.Atoi(digits)
	if err != nil || index < 0 || index >= message.MaxEntries {
		return ulid.ULID{}, 0, false
	}
	submission, err = ulid.ParseStrict(name)
	if err != nil || join(submission, index) != id {
		return ulid.ULID{}, 0, false
	}
	return submission, index, true
}

func join(submission ulid.ULID, index int) string {
	id := make([]byte, ulid.EncodedSize, ulid.EncodedSize+len(".9999"))
	_ = submission.MarshalTextTo(id) // fails for a buffer of another size
	return string(strconv.AppendInt(append(id, '.'), int64(index), 10))
}

func (r record) at(offset uint64) record {
	r.rest |= offset
	return r
}

func (r record) submission() (id ulid.ULID) {
	binary.BigEndian.PutUint64(id[:8], r.hi)
	binary.BigEndian.PutUint64(id[8:], r.lo)
	return id
}

func (r record) index() int     { return int(r.rest >> (shardBits + offsetBits)) }
func (r record) shard() int     { return int(r.rest>>offsetBits) % maxShards }
func (r record) offset() uint64 { return r.rest & maxOffset }

// sibling tells whether both are of one submission.
func (r record) sibling(o record) bool { return r.hi == o.hi && r.lo == o.lo }

func compareRecords(a, b record) int {
	if c := cmp.Compare(a.hi, b.hi); c != 0 {
		return c
	}
	if c := cmp.Compare(a.lo, b.lo); c != 0 {
		return c
	}
	return cmp.Compare(a.rest, b.rest)
}

func (r record) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, r.hi)
	dst = binary.LittleEndian.AppendUint64(dst, r.lo)
	return binary.LittleEndian.AppendUint64(dst, r.rest)
}

func parseRecord(b []byte) record {
	return record{
		hi:   binary.LittleEndian.Uint64(b),
		lo:   binary.LittleEndian.Uint64(b[8:]),
		rest: binary.LittleEndian.Uint64(b[16:]),
	}
}
