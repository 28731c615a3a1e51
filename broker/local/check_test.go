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
	"sync/atomic"
	"testing"

	"go.etcd.io/bbolt"
)

var shapes = []string{"empty", "small", "large", "backlog"}

// TestCheck: a good store is good, and the report has what is in it.
func TestCheck(t *testing.T) {
	for _, shape := range shapes {
		s := newTestStore(t, shape)
		if missing, more := s.records.missing(t, s.path()); missing > 0 || more > 0 {
			t.Fatalf("the test's store lacks %d records, and has %d more", missing, more)
		}
		for _, full := range []bool{false, true} {
			r, err := checkPath(t, s.path(), full)
			if err != nil {
				t.Fatalf("%s: %v", shape, err)
			}
			if r.Clean || len(r.Queues) != len(s.records) && shape != "empty" {
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

// TestCheckWords: what no page tells is found, too, and each is told in words.
func TestCheckWords(t *testing.T) {
	in := func(queue int, do func(b *bbolt.Bucket) error) func(*bbolt.Tx) error {
		return func(tx *bbolt.Tx) error {
			b, _, err := queueBuckets(tx, queue)
			return errors.Join(err, do(b))
		}
	}
	for want, change := range map[string]func(tx *bbolt.Tx) error{
		"shard 2: 1 of its 40 envelopes are missing":                                      in(2, func(b *bbolt.Bucket) error { return b.Delete(seqKey(7)) }),
		"the dead letters: 1 of its 2 envelopes cannot be read: envelope 2: its checksum": in(Dead, func(b *bbolt.Bucket) error { return b.Put(seqKey(2), b.Get(seqKey(1))) }),
		"shard 0: it has 4 envelopes, not 3":                                              in(0, func(b *bbolt.Bucket) error { return b.Put(seqKey(4), appendRecord(nil, 0, &Item{Seq: 4})) }),
		"shard 0: its last envelope has the number 3, its last number is 2":               in(0, func(b *bbolt.Bucket) error { return b.SetSequence(2) }),
		"shard 2: 40 of its 40 envelopes cannot be read: its queue is missing":            func(tx *bbolt.Tx) error { return tx.Bucket(bucketQueues).DeleteBucket(queueName(2)) },
		"shard 2: its depth is missing":                                                   func(tx *bbolt.Tx) error { return tx.Bucket(bucketDepths).Delete(queueName(2)) },
		`the list of returns has "dead", which is no queue`: func(tx *bbolt.Tx) error {
			_, err := tx.Bucket(bucketReturns).CreateBucket(bucketDead)
			return err
		},
		`it has no bucket "returns"`: func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketReturns) },
		`its layout is "3", not "2"`: func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyVersion, []byte("3")) },
		"":                           func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyClean, yes) },
	} {
		s := newTestStore(t, "small")
		db, err := bbolt.Open(s.path(), 0o600, &bbolt.Options{NoFreelistSync: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Update(change), db.Close()); err != nil {
			t.Fatal(err)
		}
		r, err := checkPath(t, s.path(), true)
		if want == "" && (err != nil || !r.Clean) || want != "" && (!errors.Is(err, ErrDamaged) || !strings.HasSuffix(err.Error(), want) &&
			!strings.Contains(err.Error(), want+" ")) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// TestCheckPages: a page at odds with the rest of the tree is damaged.
func TestCheckPages(t *testing.T) {
	whole, err := os.ReadFile(newTestStore(t, "backlog").path())
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(r *Report, file, leaf []byte){
		"it is empty":                     func(_ *Report, _, leaf []byte) { order.PutUint16(leaf[10:], 0) },
		"its length is not":               func(_ *Report, _, leaf []byte) { order.PutUint32(leaf[12:], 1) },
		"its entry 1 is not where":        func(_ *Report, _, leaf []byte) { leaf[pageHeader+elementSize+4]++ },
		"it is neither a branch nor":      func(_ *Report, _, leaf []byte) { leaf[8] = metaFlag },
		"it cannot hold 65535 entries":    func(_ *Report, _, leaf []byte) { order.PutUint16(leaf[10:], 65535) },
		"a small bucket is not as it was": func(_ *Report, file, _ []byte) { replace(file, []uint64{0, 300, 0}, []uint64{0, 300, 9}) },
		"it has two places in the tree":   func(r *Report, file, _ []byte) { replaceRoot(r, file, r.Queues[5].bucket.root) },
		"it is not one of the file's":     func(r *Report, file, _ []byte) { replaceRoot(r, file, 1<<40) },
		"its keys are out of order":       func(_ *Report, _, leaf []byte) { leaf[pageHeader+int(order.Uint16(leaf[10:]))*elementSize] = 1 },
		"it is cut off":                   func(r *Report, file, _ []byte) { replaceRoot(r, file, 0) }, // which has a page of its own
	} {
		file := bytes.Clone(whole)
		sv := survey{ctx: t.Context(), file: bytes.NewReader(file), size: int64(len(file)), goroutines: 1, report: &Report{Path: "x"}}
		var leaf []byte
		var done, total int64
		sv.progress = func(d, t int64) { done, total = d, t }
		if err := sv.check(); err != nil || done == 0 || total != 4800 { // told at once, as no time is set
			t.Fatal(err, done, total)
		}
		sv.start() // pages are visited once
		sv.tree.walk(sv.report.Queues[6].bucket, visitor{leaf: func(p *page) { leaf = file[p.offset:] }})
		change(sv.report, file, leaf)
		if err := sv.check(); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// replaceRoot gives the queue 6 another root.
func replaceRoot(r *Report, file []byte, root uint64) {
	b := r.Queues[6].bucket
	replace(file, []uint64{b.root, b.sequence}, []uint64{root, b.sequence})
}

func replace(file []byte, from, to []uint64) {
	text := func(numbers []uint64) (b []byte) {
		for _, n := range numbers {
			b = order.AppendUint64(b, n)
		}
		return b
	}
	copy(file, bytes.ReplaceAll(file, text(from), text(to)))
}

// TestShort: a file that is too short is damaged, wherever it ends.
func TestShort(t *testing.T) {
	s := newTestStore(t, "small")
	file, err := os.ReadFile(s.path())
	if err != nil {
		t.Fatal(err)
	}
	metas, err := readMetas(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	needed := int(metas[0].pages) * metas[0].pageSize
	for n := 0; n <= needed; n += 256 {
		sv := survey{ctx: t.Context(), file: bytes.NewReader(file[:n]), size: int64(n), goroutines: 1, report: &Report{Path: "x"}}
		want := fmt.Sprintf("the file lacks its last %d bytes", needed-n)
		if err := sv.check(); n == needed && err != nil || n < needed && !errors.Is(err, ErrDamaged) ||
			n >= 2*os.Getpagesize() && n < needed && !strings.Contains(err.Error(), want) {
			t.Errorf("%d of %d bytes: %v", n, needed, err)
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
				path := filepath.Join(t.TempDir(), FileName)
				sv := survey{ctx: t.Context(), file: bytes.NewReader(file), size: int64(len(file)), full: true, goroutines: 2, report: &Report{Path: path}}
				err := sv.check()
				if err == nil || i%10 == 0 {
					if err := os.WriteFile(path, file, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if i%10 == 0 {
					if r, missing, _ := salvage(t, s, filepath.Dir(path)); r != nil && r.Err() == nil && missing > 0 {
						t.Errorf("%d: %s: the salvage is silent, %d records are lost", i, how, missing)
					}
				}
				switch {
				case err == nil:
					passed++
					if n, _ := s.records.missing(t, path); n > 0 {
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
		sv := survey{ctx: t.Context(), file: brokenReader{bytes.NewReader(file), int64(from)}, size: int64(len(file)), goroutines: 2, report: &Report{Path: "x"}}
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
		sv := survey{ctx: t.Context(), file: bytes.NewReader(file), size: int64(len(file)), full: true, goroutines: 2, report: &Report{Path: "x"}}
		var good atomic.Int64
		sv.record = func(queue int, seq uint64, record []byte) {
			if s.records[queue][seq] == string(record) {
				good.Add(1)
			}
		}
		if err := sv.check(); err == nil && !sums && good.Load() != 46 {
			t.Error("the check is silent")
		} else if err != nil && !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
	})
}
