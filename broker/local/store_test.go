package local

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
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
			return errors.Join(add(0, 1, 3, message.MaxEnvelopeBytes), add(1, 1, 30, 20_000), add(Dead, 1, 1, message.MaxEnvelopeBytes),
				drop(0, 2), drop(1, 11), add(0, 4, 1, 300_000), add(2, 1, 5, 5))
		case "backlog": // branches of two levels; pages freed and used again
			return errors.Join(add(3, 1, 2000, 150), drop(3, 1000), add(3, 2001, 2000, 150), add(4, 1, 300, 150), drop(4, 300),
				add(Dead, 1, 100, 150), add(5, 1, 600, 10), drop(5, 400), add(6, 1, 1500, 10))
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
				err := putRecord(b, seq, record)
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
				if err := errors.Join(deleteRecord(b, seq), returns.Delete(seqKey(seq))); err != nil {
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

// eachRecord calls do for each record of a store, which bbolt reads.
func eachRecord(t testing.TB, path string, do func(queue int, seq uint64, record []byte)) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, NoFreelistSync: true, PreLoadFreelist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		take := func(queue int, b *bbolt.Bucket) error {
			c := b.Cursor()
			for key, value := c.First(); key != nil; {
				seq := binary.BigEndian.Uint64(key)
				var record []byte
				record, key, value = nextRecord(c, value)
				do(queue, seq, record)
			}
			return nil
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
}

// missing returns how many of the records are not in the store at path, and how many
// others are.
func (want contents) missing(t testing.TB, path string) (missing, more int) {
	t.Helper()
	for _, records := range want {
		missing += len(records)
	}
	eachRecord(t, path, func(queue int, seq uint64, record []byte) {
		if want[queue][seq] == string(record) {
			missing--
		} else {
			more++
		}
	})
	return missing, more
}

func checkPath(t testing.TB, path string, full bool) (*Report, error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return checkFile(context.Background(), f, full, nil)
}
