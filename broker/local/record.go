package local

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"time"

	"async-data-processor/broker"
)

// The format of a record is
//
//	sum        4 bytes, CRC-32C of the queue, the sequence number and all that follows
//	version    1 byte
//	flags      1 byte
//	count      uvarint
//	id         uvarint length, bytes
//	attributes the same, only with withAttributes: the text of broker.EncodeAttributes
//	shard      varint      ─┐
//	reason     as the id    ├ only with isDead
//	time       8 bytes, ns ─┘
//	body       the rest
//
// The sum covers the place, so that a record proves where it belongs: bbolt has no
// checksum of its pages.
const (
	recordVersion = 1

	isForeign      = 1 << 0
	withAttributes = 1 << 1
	isDead         = 1 << 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errSum     = errors.New("its checksum does not match")
	errVersion = errors.New("it has the format of a later version")
	errRecord  = errors.New("it is not a record")
)

// appendRecord appends the item as a record of the queue.
func appendRecord(b []byte, queue int, it *Item) []byte {
	start := len(b)
	e, flags := &it.Envelope, byte(0)
	if e.Foreign {
		flags |= isForeign
	}
	if len(e.Attributes) > 0 {
		flags |= withAttributes
	}
	if queue == Dead {
		flags |= isDead
	}
	b = append(b, 0, 0, 0, 0, recordVersion, flags)
	b = binary.AppendUvarint(b, uint64(e.Count))
	b = appendText(b, e.ID)
	if flags&withAttributes != 0 {
		b = appendText(b, broker.EncodeAttributes(e.Attributes))
	}
	if queue == Dead {
		b = binary.AppendVarint(b, int64(e.Shard))
		b = appendText(b, it.Reason)
		b = binary.BigEndian.AppendUint64(b, uint64(it.Time.UnixNano()))
	}
	b = append(b, e.Body...)
	binary.LittleEndian.PutUint32(b[start:], sum(queue, it.Seq, b[start+4:]))
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// sum is the checksum of a record without its sum.
func sum(queue int, seq uint64, rest []byte) uint32 {
	var place [16]byte
	binary.BigEndian.PutUint64(place[:8], uint64(int64(queue)))
	binary.BigEndian.PutUint64(place[8:], seq)
	return crc32.Update(crc32.Checksum(place[:], castagnoli), castagnoli, rest)
}

// checkRecord tells whether the record at a place of a queue is what was written
// there.
func checkRecord(queue int, seq uint64, record []byte) error {
	if len(record) < 6 || binary.LittleEndian.Uint32(record) != sum(queue, seq, record[4:]) {
		return errSum
	}
	return nil
}

// parseRecord reads what appendRecord has written. The item's body is a part of the
// record.
func parseRecord(queue int, seq uint64, record []byte) (Item, error) {
	it := Item{Seq: seq}
	if err := checkRecord(queue, seq, record); err != nil {
		return it, err
	}
	if record[4] != recordVersion {
		return it, errVersion
	}
	flags, r := record[5], reader{rest: record[6:]}
	e := &it.Envelope
	e.Shard, e.Foreign = queue, flags&isForeign != 0
	e.Count = int(min(r.uvarint(), math.MaxInt32))
	e.ID = r.text()
	if flags&withAttributes != 0 {
		e.Attributes = broker.DecodeAttributes(r.text())
	}
	if flags&isDead != 0 {
		e.Shard = int(r.varint())
		it.Reason = r.text()
		if t := r.next(8); t != nil {
			it.Time = time.Unix(0, int64(binary.BigEndian.Uint64(t))).UTC()
		}
	}
	if r.failed {
		return it, errRecord
	}
	e.Body = r.rest
	return it, nil
}

// reader takes the fields off a record. After a failure it yields nothing.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) next(n uint64) []byte {
	if r.failed || uint64(len(r.rest)) < n {
		r.failed = true
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) text() string { return string(r.next(r.uvarint())) }

func (r *reader) uvarint() uint64 {
	n, size := binary.Uvarint(r.rest)
	r.next(uint64(max(size, 0)))
	r.failed = r.failed || size <= 0
	return n
}

func (r *reader) varint() int64 {
	n, size := binary.Varint(r.rest)
	r.next(uint64(max(size, 0)))
	r.failed = r.failed || size <= 0
	return n
}
