package local

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/bbolt"

	"async-data-processor/message"
)

// contents is what a test's store holds: records by queue and sequence number.
type contents map[int]map[uint64]string

// testStore is a store that a test wrote as the engine would, and what it holds.
type testStore struct {
	dir     string
	records contents
	returns map[int]map[uint64]int
	depths  map[int]int
}

// newTestStore makes stores of some shapes.
func newTestStore(t testing.TB, shape string) *testStore {
	s := &testStore{t.TempDir(), contents{}, map[int]map[uint64]int{}, map[int]int{}}
	rng := rand.New(rand.NewPCG(1, 2))
	err := createFile(s.dir, func(db *bbolt.DB) error {
		add := func(queue, from, n, size int) error { return s.add(db, rng, queue, from, n, size) }
		drop := func(queue, n int) error { return s.drop(db, rng, queue, n) }
		switch shape {
		case "empty":
			return nil
		case "small": // some buckets inline, some not
			return errors.Join(add(0, 1, 3, 10), add(1, 1, 0, 0), add(2, 1, 40, 100), add(Dead, 1, 2, 50), add(1023, 7, 1, 10))
		case "large": // pages with overflow
			return errors.Join(add(0, 1, 5, message.MaxEnvelopeBytes), add(1, 1, 30, 20_000), add(Dead, 1, 3, message.MaxEnvelopeBytes),
				drop(0, 2), drop(1, 11), add(0, 6, 1, 300_000), add(2, 1, 5, 5))
		case "backlog": // branches of two levels; pages freed and used again
			return errors.Join(add(3, 1, 6000, 150), drop(3, 3000), add(3, 6001, 6000, 150), add(4, 1, 1000, 150), drop(4, 1000),
				add(Dead, 1, 200, 150), add(5, 1, 2000, 10), drop(5, 1800), add(6, 1, 12000, 10))
		}
		return errors.New("no such shape")
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *testStore) path() string { return filepath.Join(s.dir, FileName) }

// update runs a transaction that ends with the depth of the queue.
func (s *testStore) update(db *bbolt.DB, queue int, do func(b, returns *bbolt.Bucket) error) error {
	return db.Update(func(tx *bbolt.Tx) error {
		b, returns, err := queueBuckets(tx, queue)
		if err == nil {
			err = do(b, returns)
		}
		return errors.Join(err, tx.Bucket(bucketDepths).Put(queueName(queue), binary.AppendUvarint(nil, uint64(s.depths[queue]))))
	})
}

// add adds records, up to a thousand in a transaction.
func (s *testStore) add(db *bbolt.DB, rng *rand.Rand, queue, from, n, size int) error {
	if s.records[queue] == nil {
		s.records[queue], s.returns[queue] = map[uint64]string{}, map[uint64]int{}
	}
	for first := from; first == from || first < from+n; first += 1000 {
		end := min(first+1000, from+n)
		s.depths[queue] += end - first
		err := s.update(db, queue, func(b, returns *bbolt.Bucket) error {
			b.FillPercent = bbolt.DefaultFillPercent
			for seq := uint64(first); seq < uint64(end); seq++ {
				body := make([]byte, size)
				for i := range body {
					body[i] = byte(rng.Uint32())
				}
				it := Item{Seq: seq, Envelope: message.Envelope{ID: fmt.Sprint(queue, "-", seq), Shard: queue, Count: 1, Body: body}}
				record := appendRecord(nil, queue, &it)
				s.records[queue][seq] = string(record)
				err := b.Put(seqKey(seq), record)
				if seq%7 == 0 && returns != nil {
					s.returns[queue][seq] = 2
					err = errors.Join(err, returns.Put(seqKey(seq), []byte{2}))
				}
				if err = errors.Join(err, b.SetSequence(seq)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// drop settles n records at random, in transactions of up to a hundred.
func (s *testStore) drop(db *bbolt.DB, rng *rand.Rand, queue, n int) error {
	seqs := make([]uint64, 0, len(s.records[queue]))
	for seq := range uint64(1 << 16) {
		if _, ok := s.records[queue][seq]; ok {
			seqs = append(seqs, seq)
		}
	}
	rng.Shuffle(len(seqs), func(i, j int) { seqs[i], seqs[j] = seqs[j], seqs[i] })
	for n > 0 {
		some := seqs[:min(n, 100)]
		seqs, n = seqs[len(some):], n-len(some)
		s.depths[queue] -= len(some)
		err := s.update(db, queue, func(b, returns *bbolt.Bucket) error {
			for _, seq := range some {
				delete(s.records[queue], seq)
				delete(s.returns[queue], seq)
				if err := errors.Join(b.Delete(seqKey(seq)), returns.Delete(seqKey(seq))); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// readStore reads a store's records through bbolt.
func readStore(t testing.TB, path string) contents {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, NoFreelistSync: true, PreLoadFreelist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	found := contents{}
	err = db.View(func(tx *bbolt.Tx) error {
		take := func(queue int, b *bbolt.Bucket) error {
			found[queue] = map[uint64]string{}
			return b.ForEach(func(k, v []byte) error {
				found[queue][binary.BigEndian.Uint64(k)] = string(v)
				return nil
			})
		}
		queues := tx.Bucket(bucketQueues)
		return errors.Join(take(Dead, tx.Bucket(bucketDead)), queues.ForEachBucket(func(k []byte) error {
			n, err := queueNumber(string(k))
			return errors.Join(err, take(n, queues.Bucket(k)))
		}))
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// missing returns how many records of want are not in got.
func (want contents) missing(got contents) (n int) {
	for queue, records := range want {
		for seq, record := range records {
			if got[queue][seq] != record {
				n++
			}
		}
	}
	return n
}

func checkPath(t testing.TB, path string, full bool) (*Report, error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return checkFile(f, full, nil)
}

var shapes = []string{"empty", "small", "large", "backlog"}

// TestCheck: a good store is good, and the report has what is in it.
func TestCheck(t *testing.T) {
	for _, shape := range shapes {
		s := newTestStore(t, shape)
		if s.records.missing(readStore(t, s.path())) > 0 {
			t.Fatal("the test's store lacks records")
		}
		for _, full := range []bool{false, true} {
			r, err := checkPath(t, s.path(), full)
			if err != nil {
				t.Fatalf("%s: %v", shape, err)
			}
			if r.Clean || r.Live <= 0 || len(r.Queues) != len(s.records) && shape != "empty" {
				t.Errorf("%s: got %+v", shape, r)
			}
			for n, want := range s.records {
				q := r.Queues[n]
				first, last := ^uint64(0), uint64(0)
				for seq := range want {
					first, last = min(first, seq), max(last, seq)
				}
				if q == nil || q.Depth != len(want) || q.Want != len(want) || len(want) > 0 && (q.First != first || q.Last != last || q.Sequence < last) ||
					n != Dead && !maps.Equal(q.Returns, s.returns[n]) {
					t.Errorf("%s: %s: got %+v, want %d of %d to %d", shape, QueueText(n), q, len(want), first, last)
				}
			}
		}
	}
}

// TestCheckHistory: the check never refuses what bbolt writes.
func TestCheckHistory(t *testing.T) {
	s := newTestStore(t, "small")
	db, err := bbolt.Open(s.path(), 0o600, &bbolt.Options{NoFreelistSync: true, NoSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const seed = 5
	rng := rand.New(rand.NewPCG(seed, seed))
	next := map[int]int{0: 100, 1: 100, 2: 100}
	for i := range 300 {
		queue, n := rng.IntN(3), rng.IntN(60)
		if rng.IntN(2) == 0 {
			err = s.add(db, rng, queue, next[queue], n, []int{5, 150, 1000, 30_000}[rng.IntN(4)])
			next[queue] += n
		} else {
			err = s.drop(db, rng, queue, min(n, len(s.records[queue])))
		}
		if err != nil {
			t.Fatal(err)
		}
		if r, err := checkPath(t, s.path(), true); err != nil || r.Queues[queue].Depth != len(s.records[queue]) {
			t.Fatalf("transaction %d: %v", i, err)
		}
	}
}

// damage is a change of a file; it returns nil if it changed nothing.
func damage(rng *rand.Rand, file []byte) (string, []byte) {
	file = bytes.Clone(file)
	size := os.Getpagesize()
	pages := len(file) / size
	page := func(n int) []byte { return file[n*size : (n+1)*size] }
	a, b := rng.IntN(pages), rng.IntN(pages)
	switch kind := rng.IntN(6); kind {
	case 0:
		n := rng.IntN(len(file))
		if rng.IntN(2) == 0 {
			n = a * size
		}
		return fmt.Sprintf("cut off at %d", n), file[:n]
	case 1:
		n := rng.IntN(len(file))
		file[n] ^= 1 << rng.IntN(8)
		return fmt.Sprintf("a bit of byte %d flipped", n), file
	case 2: // where the headers and the elements are
		n := a*size + rng.IntN(64)
		file[n] ^= 1 << rng.IntN(8)
		return fmt.Sprintf("a bit of byte %d flipped", n), file
	case 3:
		clear(page(a))
		return fmt.Sprintf("page %d zeroed", a), file
	case 4:
		x, y := bytes.Clone(page(a)), bytes.Clone(page(b))
		copy(page(a), y)
		copy(page(b), x)
		return fmt.Sprintf("pages %d and %d swapped", a, b), file
	default: // a page with the number of another, as if a write had gone astray
		copy(page(a), page(b))
		binary.LittleEndian.PutUint64(page(a), uint64(a))
		return fmt.Sprintf("page %d overwritten with page %d", a, b), file
	}
}

// TestDamages: whatever happens to a file, the check names it, or all that the store
// held can be read through bbolt.
func TestDamages(t *testing.T) {
	const each = 250
	for seed, shape := range shapes {
		t.Run(shape, func(t *testing.T) {
			t.Parallel()
			s := newTestStore(t, shape)
			whole, err := os.ReadFile(s.path())
			if err != nil {
				t.Fatal(err)
			}
			rng := rand.New(rand.NewPCG(uint64(seed), 12))
			passed := 0
			for i := range each {
				how, file := damage(rng, whole)
				path := filepath.Join(t.TempDir(), "queue.db")
				if err := os.WriteFile(path, file, 0o600); err != nil {
					t.Fatal(err)
				}
				_, err := checkPath(t, path, true)
				if i%10 == 0 {
					if r, got := salvage(t, filepath.Dir(path)); r != nil && r.Err() == nil && s.records.missing(got) > 0 {
						t.Errorf("%d: %s: the salvage is silent, %d records are lost", i, how, s.records.missing(got))
					}
				}
				switch {
				case err == nil:
					passed++
					if n := s.records.missing(readStore(t, path)); n > 0 {
						t.Errorf("%d: %s: the check is silent, %d records are lost", i, how, n)
					}
				case !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path):
					t.Errorf("%d: %s: %v", i, how, err)
				}
				os.Remove(path)
			}
			t.Logf("%d of %d damages were harmless", passed, each)
		})
	}
}

// brokenReader fails for a part of the file.
type brokenReader struct {
	io.ReaderAt
	from int64
}

var errBroken = errors.New("input/output error")

func (r brokenReader) ReadAt(b []byte, offset int64) (int, error) {
	if offset+int64(len(b)) > r.from {
		return 0, errBroken
	}
	return r.ReaderAt.ReadAt(b, offset)
}

// TestReadError: an error of reading is not damage, whatever else is wrong.
func TestReadError(t *testing.T) {
	s := newTestStore(t, "backlog")
	file, err := os.ReadFile(s.path())
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []int{0, 4096, len(file) / 2} {
		sv := survey{file: brokenReader{bytes.NewReader(file), int64(from)}, size: int64(len(file)), goroutines: 2, report: &Report{Path: "x"}}
		if err := sv.check(); !errors.Is(err, errBroken) || errors.Is(err, ErrDamaged) {
			t.Errorf("from byte %d: %v", from, err)
		}
	}
}

// FuzzCheck: no bytes make the check panic, and what it passes is whole. With new
// sums of the meta pages, the bytes get further.
func FuzzCheck(f *testing.F) {
	s := newTestStore(f, "small")
	whole, err := os.ReadFile(s.path())
	if err != nil {
		f.Fatal(err)
	}
	pages := uint32(len(whole) / os.Getpagesize())
	for page := range pages {
		f.Add(page*uint32(os.Getpagesize()), []byte{byte(page), 0, 0, 0, 0, 0, 0, 0, 2, 0, 255, 0, 9}, true)
	}
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, sums bool) {
		file := bytes.Clone(whole)
		copy(file[int(at)%len(file):], patch)
		for page := 0; sums && page < 2; page++ {
			m := file[page*os.Getpagesize()+pageHeader:][:metaSize]
			h := fnv.New64a()
			h.Write(m[:metaSize-8])
			order.PutUint64(m[metaSize-8:], h.Sum64())
		}
		sv := survey{file: bytes.NewReader(file), size: int64(len(file)), full: true, goroutines: 2, report: &Report{Path: "x"}}
		got := contents{}
		var mu sync.Mutex
		sv.record = func(queue int, seq uint64, record []byte) {
			mu.Lock()
			defer mu.Unlock()
			if got[queue] == nil {
				got[queue] = map[uint64]string{}
			}
			got[queue][seq] = string(record)
		}
		if err := sv.check(); err == nil && !sums && s.records.missing(got) > 0 {
			t.Error("the check is silent")
		} else if err != nil && !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
	})
}
