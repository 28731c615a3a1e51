package message

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"strings"
	"sync"

	"github.com/oklog/ulid/v2"
)

// NewID returns a fresh ULID (github.com/ulid/spec): 26 characters that sort by
// time. Its 80 random bits come from crypto/rand, because an id met twice
// would be taken for a duplicate.
func NewID() string {
	var id ulid.ULID
	if err := id.SetTime(ulid.Now()); err != nil {
		panic(err) // in the year 10889
	}
	_, _ = rand.Read(id[6:]) // it never fails
	return text(id)
}

// KeyedID returns the submission id for a client's Idempotency-Key: the same
// key and body give the same id, anything else gives another one. It has the
// form of a ULID, made of the first 128 bits of a SHA-256.
func KeyedID(key string, body []byte) string { return ScopedID("", key, body) }

// ScopedID is KeyedID for one scope of keys: another scope gives another id. The
// scope "" is that of KeyedID.
func ScopedID(scope, key string, body []byte) string {
	h := hashers.Get().(*hasher)
	defer hashers.Put(h)
	h.Reset()
	h.scratch = h.scratch[:0]
	if scope != "" {
		// No key is so long that its length looks like this.
		h.scratch = binary.BigEndian.AppendUint64(h.scratch, ^uint64(len(scope)))
		h.scratch = append(h.scratch, scope...)
	}
	h.scratch = binary.BigEndian.AppendUint64(h.scratch, uint64(len(key)))
	h.scratch = append(h.scratch, key...)
	h.Write(h.scratch)
	h.Write(body)
	h.scratch = h.Sum(h.scratch[:0])
	return text(ulid.ULID(h.scratch[:16]))
}

// hasher is a SHA-256, and what it reads a key from and writes its sum to.
type hasher struct {
	hash.Hash
	scratch []byte
}

var hashers = sync.Pool{New: func() any { return &hasher{Hash: sha256.New()} }}

// blockOfIDs is how many texts of ids share an allocation, and so are freed
// together.
const blockOfIDs = 16

// blocks keeps *strings.Builder, which never change what they have handed out.
var blocks = sync.Pool{New: func() any { return new(strings.Builder) }}

func text(id ulid.ULID) string {
	b := blocks.Get().(*strings.Builder)
	defer blocks.Put(b)
	if b.Cap()-b.Len() < ulid.EncodedSize {
		b.Reset()
		b.Grow(blockOfIDs * ulid.EncodedSize)
	}
	var encoded [ulid.EncodedSize]byte
	_ = id.MarshalTextTo(encoded[:]) // it fails for another length only
	b.Write(encoded[:])
	return b.String()[b.Len()-ulid.EncodedSize:]
}
