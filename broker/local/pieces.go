package local

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"go.etcd.io/bbolt"
)

// pieceBytes is the size of the pieces of a record but its last one. bbolt keeps two
// entries or more in a page of the tree, and writes the last page of a bucket again with
// each commit, with up to four entries. Two pieces fill two pages of 4 KiB: 16 bytes of a
// header, and for each piece 16 of an element and 12 of a key.
const pieceBytes = (2*4096-16)/2 - 16 - 12

// pieceKey is the key of a piece of a record.
func pieceKey(seq uint64, piece int) []byte {
	if piece == 0 {
		return seqKey(seq)
	}
	return binary.BigEndian.AppendUint32(seqKey(seq), uint32(piece))
}

// putRecord puts a record, which bbolt uses until the commit, into the bucket of a queue.
func putRecord(b *bbolt.Bucket, seq uint64, record []byte) error {
	piece := 0
	for part := range slices.Chunk(record, pieceBytes) {
		if err := b.Put(pieceKey(seq, piece), part); err != nil {
			return err
		}
		piece++
	}
	return nil
}

// nextRecord returns the record that begins with what the cursor is at, and what comes
// after it. The cursor is at the first piece of one, unless the store is damaged; then the
// record has a wrong checksum.
func nextRecord(c *bbolt.Cursor, value []byte) (record, nextKey, nextValue []byte) {
	parts := [][]byte{value}
	for nextKey, nextValue = c.Next(); len(nextKey) > 8; nextKey, nextValue = c.Next() {
		parts = append(parts, nextValue)
	}
	return slices.Concat(parts...), nextKey, nextValue
}

// deleteRecord deletes a record, if it is there.
func deleteRecord(b *bbolt.Bucket, seq uint64) error {
	pieces, first, c := 0, seqKey(seq), b.Cursor()
	for key, _ := c.Seek(first); bytes.HasPrefix(key, first); key, _ = c.Next() {
		pieces++
	}
	var errs []error
	for i := range pieces {
		errs = append(errs, b.Delete(pieceKey(seq, i)))
	}
	return errors.Join(errs...)
}
