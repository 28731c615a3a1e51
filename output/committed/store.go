package committed

import (
	"math/bits"
	"math/rand/v2"
	"slices"
	"time"
)

// store is records in the order of their commits, and an index to find them.
// It holds no pointers that a garbage collector would follow per record.
//
// Records have numbers of 32 bits, which may wrap around. They are added after the
// newest and dropped from the oldest. So a chain of the index needs no update when
// a record is dropped: it ends where it leads to a dropped one.
//
//	dropped    │ first   first+1   …   next-1 │   to come
//	       ◀───┼──── older ◀──── older ◀───── head of a bucket
type store struct {
	limit int
	keep  int   // so many of the last ids have no age
	age   int64 // milliseconds

	ids         int        // in all records
	forgot      bool       // some were dropped, or never taken
	first, next uint32     // numbers of the oldest record, and of the one to come
	base        uint32     // number of chunks[0][0]
	chunks      [][]record // chunkSize each
	spare       []record   // a chunk to use again, or nil

	// heads has for each bucket the number of its newest record. One without a
	// record has any number: what it leads to has another key.
	heads []uint32
	seed  uint64 // or a client could choose ids that share a bucket
}

// record is ids of one submission that were committed together: 40 bytes.
type record struct {
	hi, lo uint64
	bits   uint64 // the indexes, counted from the block's first
	at     int64  // of the commit: milliseconds since the window was made
	older  uint32 // number of the next record in the bucket
	number uint16 // of the block
}

func (r *record) block() block { return block{r.hi, r.lo, uint64(r.number)} }

const chunkSize = 1024

func newStore(limit, keep int, age time.Duration) store {
	return store{limit: limit, keep: keep, age: age.Milliseconds(), seed: rand.Uint64(), heads: make([]uint32, 64)}
}

// empty returns a store of the same bounds that has no record.
func (s *store) empty() store {
	e := newStore(s.limit, s.keep, 0)
	e.age = s.age
	return e
}

// at returns the record of a number.
func (s *store) at(n uint32) *record {
	i := n - s.base
	return &s.chunks[i/chunkSize][i%chunkSize]
}

func (s *store) len() uint32 { return s.next - s.first }

func (s *store) bucket(b block) *uint32 {
	h := mix(b.hi ^ mix(b.lo^b.number<<48^s.seed))
	return &s.heads[h&uint64(len(s.heads)-1)]
}

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// known returns which of a block's ids the store has, of those that are asked
// for.
func (s *store) known(b block, asked uint64) (known uint64) {
	n := *s.bucket(b)
	// Distances from the oldest only shrink on a chain; one that does not is of
	// a number that was dropped, and that has wrapped around since.
	for last := s.len(); n-s.first < last && known != asked; {
		last = n - s.first
		r := s.at(n)
		if r.block() == b {
			known |= r.bits & asked
		}
		n = r.older
	}
	return known
}

// commit adds the ids of runs; the store must have none of them. Runs of a block
// that stand side by side share a record.
func (s *store) commit(runs []run, at int64) {
	start := s.next
	for i := range runs {
		r := &runs[i]
		if r.bits == 0 {
			continue
		}
		s.ids += bits.OnesCount64(r.bits)
		if s.next != start {
			if last := s.at(s.next - 1); last.block() == r.block {
				last.bits |= r.bits
				continue
			}
		}
		s.add(record{hi: r.hi, lo: r.lo, bits: r.bits, at: at, number: uint16(r.number)})
	}
}

func (s *store) add(r record) {
	i := s.next - s.base
	if i/chunkSize == uint32(len(s.chunks)) {
		chunk := s.spare
		if s.spare = nil; chunk == nil {
			chunk = make([]record, chunkSize)
		}
		s.chunks = append(s.chunks, chunk)
	}
	if s.len() >= uint32(len(s.heads)) {
		s.heads = make([]uint32, 2*len(s.heads))
		s.index()
	}
	head := s.bucket(r.block())
	r.older, *head = *head, s.next
	s.chunks[i/chunkSize][i%chunkSize] = r
	s.next++
}

// index links all records again.
func (s *store) index() {
	for n := s.first; n != s.next; n++ {
		r := s.at(n)
		head := s.bucket(r.block())
		r.older, *head = *head, n
	}
}

// full tells whether the store has no use for a record of that age behind so many ids
// that are newer.
func (s *store) full(newer int, age int64) bool {
	return newer >= s.limit || newer >= s.keep && age > s.age
}

// expire drops the oldest records: those without which limit ids are left, and
// those that are older than age and without which keep ids are left.
func (s *store) expire(now int64) {
	for s.len() > 0 {
		r := s.at(s.first)
		n := bits.OnesCount64(r.bits)
		if !s.full(s.ids-n, now-r.at) {
			return
		}
		s.ids -= n
		s.forgot = true
		s.first++
		if s.first-s.base == chunkSize {
			s.spare = s.chunks[0]
			s.chunks = slices.Delete(s.chunks, 0, 1)
			s.base += chunkSize
		}
	}
}

// reverse makes the newest record the oldest.
func (s *store) reverse() {
	if s.len() == 0 {
		return
	}
	for i, j := s.first, s.next-1; i < j; i, j = i+1, j-1 { // before any wrap-around
		a, b := s.at(i), s.at(j)
		*a, *b = *b, *a
	}
	clear(s.heads)
	s.index()
}
