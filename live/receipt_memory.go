package live

import (
	"hash/maphash"
	"sync"
	"time"

	"async-data-processor/message"
)

// remembered is how many accepted submissions a server remembers.
const remembered = 100_000

// memory is the submissions that this process has accepted last, 56 bytes each. What it
// costs to add one is a lock and some words: it is on the way of every submission.
type memory struct {
	limit uint32
	seed  maphash.Seed

	mu     sync.Mutex // guards what follows
	next   uint32     // number of the next one, which may wrap around
	length uint32     // how many there are
	chunks [][]acceptance
	heads  []uint32 // number of the newest one of each bucket
}

// acceptance is a submission that was accepted.
type acceptance struct {
	id    [replyLen]byte
	n     uint8 // of shards; 0 if it has more than fit
	older uint32
	at    int64 // Unix time in milliseconds
	has   [knownShards]uint16
}

// knownShards is how many shards of a submission are remembered.
const knownShards = 7

const chunkSize = 1000

func newMemory(limit int) *memory {
	return &memory{limit: uint32(limit), seed: maphash.MakeSeed()}
}

func (m *memory) at(n uint32) *acceptance {
	i := n % m.limit
	return &m.chunks[i/chunkSize][i%chunkSize]
}

func (m *memory) bucket(id string) *uint32 {
	return &m.heads[maphash.String(m.seed, id)%uint64(len(m.heads))]
}

// add remembers a submission.
func (m *memory) add(id string, shards []message.ShardCount, now time.Time) {
	if len(id) != replyLen {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.heads == nil {
		m.heads = make([]uint32, m.limit+m.limit/4)
	}
	if m.length < m.limit && m.next/chunkSize == uint32(len(m.chunks)) {
		m.chunks = append(m.chunks, make([]acceptance, min(chunkSize, m.limit-m.next)))
	}
	a := m.at(m.next)
	copy(a.id[:], id)
	a.at, a.n = now.UnixMilli(), 0
	if len(shards) <= knownShards {
		for i, s := range shards {
			a.has[i] = uint16(s.Shard)
		}
		a.n = uint8(len(shards))
	}
	head := m.bucket(id)
	a.older, *head = *head, m.next
	m.next++
	m.length = min(m.length+1, m.limit)
	if m.next == 0 { // 4,294,967,296 submissions: the numbers begin anew, and with them the memory
		m.length = 0
	}
}

// find returns when a submission was first accepted, of those that are remembered, and
// which shards have its messages; nil if that is not known.
func (m *memory) find(id string) (at time.Time, shards bitset, found bool) {
	m.each(id, func(a *acceptance) {
		at, shards, found = time.UnixMilli(a.at), nil, true
		for _, s := range a.has[:a.n] {
			shards.add(int(s))
		}
	})
	return at, shards, found
}

// forgetShards forgets which shards have the messages of a submission.
func (m *memory) forgetShards(id string) {
	m.each(id, func(a *acceptance) { a.n = 0 })
}

// each calls f with what is remembered of a submission, the newest first.
func (m *memory) each(id string, f func(*acceptance)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.length == 0 {
		return
	}
	// Numbers only fall on a chain. One that does not is of a place that is used again.
	last := uint32(0)
	for n := *m.bucket(id); ; {
		back := m.next - n // how many steps ago it was added
		if back <= last || back > m.length {
			return
		}
		last = back
		a := m.at(n)
		if n = a.older; string(a.id[:]) == id {
			f(a)
		}
	}
}
