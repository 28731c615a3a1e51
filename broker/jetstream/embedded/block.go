package embedded

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/minio/highwayhash"
)

// The format of a block file, which belongs to the server (its filestore.go,
// writeMsgRecordLocked): records one after the other,
//
//	length(4) sequence(8) time(8) subject length(2) subject [header length(4) header] body hash(8)
//
// little-endian. The top bit of the length marks a header, the two top bits of
// the sequence an erased message and a tombstone: the record of a removal.
const (
	recordHead    = 22
	recordHash    = 8
	recordMinimum = recordHead + recordHash
	recordMaximum = 32 << 20 // the server takes longer ones for damaged

	headerBit    = 1 << 31
	erasedBit    = 1 << 63
	tombstoneBit = 1 << 62
)

// record is one record of a block.
type record struct {
	sequence uint64
	subject  []byte // refers to the block
	// gone marks a tombstone, which tells that the message with this sequence
	// was removed, or an erased message.
	gone bool
}

// block is a block file.
type block struct {
	index uint64
	path  string
	size  int64
}

// blocksIn lists the block files of a folder in the order they were written.
func blocksIn(dir string) ([]block, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	var blocks []block
	for _, e := range entries {
		number, ok := strings.CutSuffix(e.Name(), blockSuffix)
		index, err := strconv.ParseUint(number, 10, 32)
		if !ok || err != nil {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, block{index, filepath.Join(dir, e.Name()), info.Size()})
	}
	slices.SortFunc(blocks, func(a, b block) int { return int(int64(a.index) - int64(b.index)) })
	return blocks, nil
}

// blockReader reads the records of a stream's blocks. It keeps its buffer from
// block to block, some megabytes at most.
type blockReader struct {
	stream string
	buf    []byte
	hash   *highwayhash.Digest64
	sum    [recordHash]byte
}

// load reads a block and prepares for its records, whose hashes depend on the
// names of stream and block.
func (r *blockReader) load(b block) error {
	hash, err := hashFor(fmt.Sprintf("%s-%d", r.stream, b.index))
	if err != nil {
		return err
	}
	r.hash = hash
	f, err := os.Open(b.path)
	if err != nil {
		return err
	}
	defer f.Close() // only read from
	r.buf = slices.Grow(r.buf[:0], int(b.size))[:b.size]
	n, err := f.ReadAt(r.buf, 0)
	r.buf = r.buf[:n]
	if int64(n) < b.size {
		return fmt.Errorf("read %s: %w", b.path, err)
	}
	return nil
}

// at returns the record at an offset and its length; 0 if there is none that
// is whole and fits its hash.
func (r *blockReader) at(offset int) (record, int) {
	rest := r.buf[offset:]
	if len(rest) < recordMinimum {
		return record{}, 0
	}
	length := binary.LittleEndian.Uint32(rest)
	subject := int(binary.LittleEndian.Uint16(rest[20:]))
	header := 0
	if length&headerBit != 0 {
		length &^= headerBit
		header = 4
	}
	if length > recordMaximum || int(length) > len(rest) || int(length) < recordMinimum+subject+header {
		return record{}, 0
	}
	rest = rest[:length]
	name := rest[recordHead : recordHead+subject]
	r.hash.Reset()
	_, _ = r.hash.Write(rest[4:20])
	_, _ = r.hash.Write(name)
	_, _ = r.hash.Write(rest[recordHead+subject+header : length-recordHash])
	if !bytes.Equal(r.hash.Sum(r.sum[:0]), rest[length-recordHash:]) {
		return record{}, 0
	}
	if header > 0 && !headerFits(rest[recordHead+subject:length-recordHash]) {
		return record{}, 0
	}
	sequence := binary.LittleEndian.Uint64(rest[4:])
	gone := sequence&(erasedBit|tombstoneBit) != 0
	return record{sequence &^ (erasedBit | tombstoneBit), name, gone}, int(length)
}

// headerFits judges the one field of a record that its hash does not cover: a
// wrong length of the header would move the border to the body. A header ends
// with an empty line.
func headerFits(rest []byte) bool {
	length := uint64(binary.LittleEndian.Uint32(rest))
	rest = rest[4:]
	if length > uint64(len(rest)) {
		return false
	}
	end := bytes.Index(rest, []byte("\r\n\r\n"))
	return end < 0 || uint64(end+4) == length
}

// walk visits the loaded records up to the first bad one and returns its
// offset, the length of the block if there is none.
func (r *blockReader) walk(visit func(record)) int {
	offset := 0
	for offset < len(r.buf) {
		rec, n := r.at(offset)
		if n == 0 {
			break
		}
		visit(rec)
		offset += n
	}
	return offset
}

// next finds the first good record behind a bad one, or returns -1. Bytes that
// pass for the head of a record are rare in text, and none passes the hash.
func (r *blockReader) next(bad int) int {
	for offset := bad + 1; offset+recordMinimum <= len(r.buf); offset++ {
		if _, n := r.at(offset); n > 0 {
			return offset
		}
	}
	return -1
}

// salvage writes the good records of the loaded block to a file, synced.
func (r *blockReader) salvage(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			err = f.Sync()
		}
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	for offset := 0; offset >= 0 && offset < len(r.buf); {
		if _, n := r.at(offset); n > 0 {
			if _, err := f.Write(r.buf[offset : offset+n]); err != nil {
				return err
			}
			offset += n
			continue
		}
		offset = r.next(offset)
	}
	return nil
}

// hashFor is the server's hash of what has the given name.
func hashFor(name string) (*highwayhash.Digest64, error) {
	key := sha256.Sum256([]byte(name))
	return highwayhash.NewDigest64(key[:])
}
