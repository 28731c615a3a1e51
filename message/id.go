package message

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"strconv"
	"strings"
	"sync"
	"time"

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

// TimeOf returns when a ULID was made, to a millisecond; false if id is none.
func TimeOf(id string) (at time.Time, ok bool) {
	parsed, err := ulid.ParseStrict(id)
	if err != nil {
		return time.Time{}, false
	}
	return parsed.Timestamp(), true
}

// Sequence makes ULIDs that sort in the order in which they were made, whatever the
// clock does: while it is behind, the time of the last one stands still. The zero value
// has made none. Its methods may be called concurrently.
type Sequence struct {
	mu      sync.Mutex // guards what follows
	ms      uint64     // the time of the last one
	entropy *ulid.MonotonicEntropy
}

// Next returns the next ULID.
func (s *Sequence) Next(now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entropy == nil {
		s.entropy = ulid.Monotonic(rand.Reader, 0)
	}
	s.ms = max(s.ms, uint64(max(0, now.UnixMilli())))
	id, err := ulid.New(s.ms, s.entropy)
	if err != nil { // that millisecond is used up
		s.ms++
		id = ulid.MustNew(s.ms, s.entropy) // it panics in the year 10889
	}
	return text(id)
}

// Follow makes all that come next sort behind a ULID that was made at the time.
func (s *Sequence) Follow(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ms = max(s.ms, uint64(max(0, at.UnixMilli()))+1)
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

// countBits is how many bits at the end of a submission's id are the number of its
// messages: three characters of Crockford's base 32.
const countBits = 15

// CountOf returns how many messages a submission has, by its id or by that of one of
// its messages. It is false for an id that no server of ours has given.
func CountOf(id string) (messages int, ok bool) {
	submission, index, isMessage := strings.Cut(id, ".")
	parsed, err := ulid.ParseStrict(submission)
	if err != nil || parsed.String() != submission {
		return 0, false
	}
	messages = int(binary.BigEndian.Uint16(parsed[14:])) & (1<<countBits - 1)
	if isMessage {
		if n, err := strconv.Atoi(index); err != nil || n < 0 || n >= messages || strconv.Itoa(n) != index {
			return 0, false
		}
	}
	return messages, messages > 0 && messages <= MaxEntries
}

// WithCount puts the number of a submission's messages into its id, which must be a
// ULID.
func WithCount(id string, messages int) string {
	parsed := ulid.MustParseStrict(id)
	last := binary.BigEndian.Uint16(parsed[14:])
	binary.BigEndian.PutUint16(parsed[14:], last&^(1<<countBits-1)|uint16(messages))
	return text(parsed)
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
