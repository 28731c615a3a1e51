package committed

import (
	"math/bits"
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"
)

// model is the same as a store, in the simplest way.
type model struct {
	limit int
	keep  int
	age   int64
	has   map[Key]bool
	queue []group // oldest first
}

// group is the ids of one record.
type group struct {
	keys []Key
	at   int64
}

func (m *model) commit(keys []Key, at int64) {
	var last *group
	for _, k := range keys {
		m.has[k] = true
		if last != nil {
			if last.keys[0].block() == k.block() {
				last.keys = append(last.keys, k)
				continue
			}
		}
		m.queue = append(m.queue, group{[]Key{k}, at})
		last = &m.queue[len(m.queue)-1]
	}
}

func (m *model) expire(now int64) {
	for len(m.queue) > 0 {
		oldest := m.queue[0]
		left := len(m.has) - len(oldest.keys)
		if left < m.limit && (left < m.keep || now-oldest.at <= m.age) {
			return
		}
		for _, k := range oldest.keys {
			delete(m.has, k)
		}
		m.queue = m.queue[1:]
	}
}

func (m *model) reverse() {
	for i, j := 0, len(m.queue)-1; i < j; i, j = i+1, j-1 {
		m.queue[i], m.queue[j] = m.queue[j], m.queue[i]
	}
}

// commitKeys commits keys as a claim of them does.
func (s *store) commitKeys(keys []Key, at int64) {
	c := Claim{keys: keys}
	c.gather()
	s.commit(c.runs, at)
}

func (s *store) has(k Key) bool { return s.known(k.block(), k.bit()) != 0 }

// compare does the same to a store and to its model, as the bytes say, and
// fails if they differ.
func compare(t *testing.T, limit, keep int, age time.Duration, start uint32, program []byte) {
	t.Helper()
	s := newStore(limit, keep, age)
	s.base, s.first, s.next = start, start, start
	m := &model{limit: limit, keep: keep, age: age.Milliseconds(), has: make(map[Key]bool)}
	now := int64(1_000_000)
	universe := make([]Key, 0, 512)
	for i := range 512 {
		universe = append(universe, Key{uint64(i % 7), uint64(i % 3), uint32(i) * 5})
	}
	for len(program) >= 4 {
		op, a, b, c := program[0], int(program[1]), int(program[2]), program[3]
		program = program[4:]
		switch op % 8 {
		case 0: // time goes by, now and then a lot of it
			now += int64(a)
			if b == 0 {
				now += age.Milliseconds()
			}
		case 1:
			// The store leaves no number behind at the wrap-around of a reversal,
			// which it never does but at the start.
			if s.next > s.first && start == 0 && c == 0 {
				s.reverse()
				m.reverse()
			}
		default:
			var batch []Key
			taken := make(map[Key]bool)
			for i := range 1 + int(c%12) {
				k := universe[(a*2+i*(1+b%9))%len(universe)]
				if !m.has[k] && !taken[k] {
					batch, taken[k] = append(batch, k), true
				}
			}
			s.commitKeys(batch, now)
			m.commit(batch, now)
		}
		s.expire(now)
		m.expire(now)
		check(t, &s, m, universe)
	}
}

func check(t *testing.T, s *store, m *model, universe []Key) {
	t.Helper()
	for _, k := range universe {
		if got := s.has(k); got != m.has[k] {
			t.Fatalf("has %v: %v, want %v", k, got, m.has[k])
		}
	}
	sum := 0
	for n := s.first; n != s.next; n++ {
		sum += bits.OnesCount64(s.at(n).bits)
	}
	if s.ids != len(m.has) || sum != s.ids {
		t.Fatalf("%d ids, and %d in the records, want %d", s.ids, sum, len(m.has))
	}
	if int(s.len()) != len(m.queue) || int(s.len()) > s.limit {
		t.Fatalf("%d records, want %d and at most %d", s.len(), len(m.queue), s.limit)
	}
}

func FuzzStore(f *testing.F) {
	f.Add(uint16(20), uint16(0), uint16(50), uint32(0), []byte("2abc3def0g_h4ijk5lmn1__\x006opq"))
	f.Add(uint16(1), uint16(2), uint16(0), uint32(1<<32-3), []byte("2abc3def0g_h4ijk5lmn6opq"))
	f.Fuzz(func(t *testing.T, limit, keep, age uint16, start uint32, program []byte) {
		if len(program) > 4000 {
			program = program[:4000]
		}
		compare(t, 1+int(limit), int(keep), time.Duration(age)*time.Millisecond, start, program)
	})
}

// TestStoreIsItsModel runs long random programs, over the wrap-around of the
// record numbers as well, and over many chunks.
func TestStoreIsItsModel(t *testing.T) {
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		program := make([]byte, 4000)
		for i := range program {
			program[i] = byte(rnd.Uint32())
		}
		start := [...]uint32{0, 1<<32 - 500, rnd.Uint32()}[seed%3]
		compare(t, 1+rnd.IntN(300), rnd.IntN(100), time.Duration(rnd.IntN(2000))*time.Millisecond, start, program)
	}
}

// TestStoreReusesChunks goes through many more records than the limit, and
// more than the chunks of the start can hold.
func TestStoreReusesChunks(t *testing.T) {
	const limit = 3000
	s := newStore(limit, 0, time.Hour)
	var batch [1]Key
	for i := range uint64(50_000) {
		batch[0] = Key{i, i, 0}
		s.commitKeys(batch[:], int64(i/1000))
		s.expire(int64(i / 1000))
		if i >= limit && (!s.has(Key{i - limit + 1, i - limit + 1, 0}) || s.has(Key{i - limit, i - limit, 0})) {
			t.Fatalf("after %d ids the last %d are not what is known", i+1, limit)
		}
	}
	if len(s.chunks) > limit/chunkSize+2 || len(s.heads) != 4096 {
		t.Errorf("%d chunks, %d heads", len(s.chunks), len(s.heads))
	}
	var one [1]run
	if n := testing.AllocsPerRun(10_000, func() {
		one[0].hi++
		one[0].bits = 1
		s.commit(one[:], 50)
		s.expire(50)
	}); n != 0 {
		t.Errorf("%v allocations per id in a full window", n)
	}
}

// size is the memory of a store, in bytes.
func (s *store) size() int {
	chunks := len(s.chunks)
	if s.spare != nil {
		chunks++
	}
	return int(unsafe.Sizeof(*s)) + chunks*chunkSize*int(unsafe.Sizeof(record{})) + 4*len(s.heads) + 24*cap(s.chunks)
}

// TestBytesPerID holds the window to the memory that New states, for ids
// that were committed in batches of five and of a rolling file.
func TestBytesPerID(t *testing.T) {
	const defaultIDs = 200_000
	for _, tt := range []struct {
		ids, entries, shards, batch int
		most                        float64
	}{
		{defaultIDs, 1, 1, 5, 46},
		{defaultIDs, 7, 1, 5, 18},
		{defaultIDs, 7, 5, 5, 40},
		{defaultIDs, 1000, 1, 5, 11},
		{defaultIDs, 1000, 5, 5, 16},
		{1 << 18, 1, 1, 5, 49}, // the worst: the index has just doubled
		{defaultIDs, 1, 1, 4096, 46},
		{defaultIDs, 100, 5, 4096, 5.5},
		{defaultIDs, 1000, 1, 4096, 1.5},
	} {
		s := newStore(tt.ids, 0, time.Hour)
		rnd := rand.New(rand.NewPCG(1, 1))
		var batch []Key
		for submitted := uint64(0); s.ids < tt.ids; submitted++ {
			for i := range tt.entries {
				if tt.shards > 1 && rnd.IntN(tt.shards) > 0 {
					continue // of another shard
				}
				if batch = append(batch, Key{submitted, submitted, uint32(i)}); len(batch) == tt.batch {
					s.commitKeys(batch, 0)
					s.expire(0)
					batch = batch[:0]
				}
			}
		}
		got := float64(s.size()) / float64(s.ids)
		t.Logf("%4d entries over %d shards, batches of %d: %.1f bytes per id of %d, %.2f MB",
			tt.entries, tt.shards, tt.batch, got, s.ids, float64(s.size())/1e6)
		if got > tt.most {
			t.Errorf("%d entries, batches of %d: %.1f bytes per id, want at most %.1f", tt.entries, tt.batch, got, tt.most)
		}
	}
}
