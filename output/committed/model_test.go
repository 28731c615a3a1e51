package committed

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// windowModel is the same as a window that forgets nothing, in the simplest way.
type windowModel struct {
	known map[Key]bool
	holds map[Key]*Claim
}

// verdict is the fate of a batch: a rival holds one of its keys, or some are
// fresh.
func (m *windowModel) verdict(keys []Key) (rival bool, fresh []bool) {
	own := make(map[Key]bool)
	for _, k := range keys {
		rival = rival || m.holds[k] != nil
		fresh = append(fresh, k == noKey || !m.known[k] && !own[k])
		own[k] = true
	}
	return rival, fresh
}

// randomBatch has runs of some submissions, some of whose ids it may repeat, and
// another program's ids and none in between.
func randomBatch(rnd *rand.Rand) []Key {
	var batch []Key
	for range 1 + rnd.IntN(6) {
		submission, at, step := uint64(rnd.IntN(4)), rnd.Uint32N(300), 1+rnd.Uint32N(70)
		for range 1 + rnd.IntN(40) {
			batch = append(batch, Key{submission, submission, at})
			switch at += step; rnd.IntN(60) {
			case 0:
				batch = append(batch, noKey)
			case 1:
				batch = append(batch, Key{rnd.Uint64N(5), 0, foreignIndex})
			case 2:
				batch = append(batch, batch[rnd.IntN(len(batch))])
			case 3:
				at = rnd.Uint32N(300)
			}
		}
	}
	return batch
}

// TestWindowIsItsModel claims, commits and releases at random, with many batches
// pending that have blocks in common.
func TestWindowIsItsModel(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		w := New(1_000_000, 0, time.Hour)
		m := windowModel{make(map[Key]bool), make(map[Key]*Claim)}
		var open []*Claim
		end := func(i int, commit bool) {
			c := open[i]
			open = slices.Delete(open, i, i+1)
			for k, holder := range m.holds {
				if holder == c {
					delete(m.holds, k)
					if commit {
						m.known[k] = true
					}
				}
			}
			if commit {
				c.Commit()
			}
			c.Release() // without effect after a commit
		}
		waits := 0
		for range 100 {
			if len(open) > 0 && rnd.IntN(3) == 0 {
				end(rnd.IntN(len(open)), rnd.IntN(3) > 0)
			}
			batch := randomBatch(rnd)
			rival, fresh := m.verdict(batch)
			c := &Claim{window: w, keys: slices.Clone(batch)}
			c.gather()
			if wait := w.try(c); (wait != nil) != rival {
				t.Fatalf("seed %d: waits: %v, want %v", seed, wait != nil, rival)
			}
			if rival {
				waits++
				continue
			}
			open = append(open, c)
			count := 0
			for i, k := range batch {
				if c.IsFresh(i) != fresh[i] {
					t.Fatalf("seed %d: %v at %d is fresh: %v, want %v", seed, k, i, c.IsFresh(i), fresh[i])
				}
				if fresh[i] {
					count++
					if k.isID() {
						m.holds[k] = c
					}
				}
			}
			if c.Fresh() != count {
				t.Fatalf("seed %d: %d are fresh, want %d", seed, c.Fresh(), count)
			}
		}
		if waits == 0 {
			t.Errorf("seed %d: no two batches met", seed)
		}
		for len(open) > 0 {
			end(rnd.IntN(len(open)), true)
		}
		if len(w.pending) != 0 || w.store.ids != len(m.known) {
			t.Fatalf("seed %d: %d blocks pending, %d ids known, want none and %d", seed, len(w.pending), w.store.ids, len(m.known))
		}
	}
}

// TestLoadKeepsTheNewest: of files of any size, in which an id may stand more
// than once, the last ids are known and, but for what shares a block with them,
// no others.
func TestLoadKeepsTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for seed := range uint64(40) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			var files [][]Key // newest first
			for range 1 + rnd.IntN(5) {
				var file []Key
				for range 1 + rnd.IntN(8) {
					file = append(file, randomBatch(rnd)...)
				}
				files = append(files, file)
			}
			limit := 1 + rnd.IntN(400)
			newest := make(map[Key]bool)
			for _, file := range files {
				for _, k := range slices.Backward(file) {
					if k.isID() && len(newest) < limit {
						newest[k] = true
					}
				}
			}
			w := New(limit, 0, time.Hour)
			got := w.Load(func(yield func(time.Duration, func() []Key) bool) {
				for i, file := range files {
					if !yield(time.Duration(i)*time.Second, func() []Key { return slices.Clone(file) }) {
						return
					}
				}
			})
			for k := range newest {
				if !w.store.has(k) {
					t.Fatalf("seed %d: %v is not known", seed, k)
				}
			}
			if got != w.store.ids || got < len(newest) || got > len(newest)+63 {
				t.Fatalf("seed %d: %d ids, %d in the store, want %d and at most 63 more", seed, got, w.store.ids, len(newest))
			}
			// The oldest goes first, one by one.
			for i := range uint64(limit) {
				c, err := w.Claim(t.Context(), []Key{{1 << 40, i, 0}})
				if err != nil {
					t.Fatal(err)
				}
				c.Commit()
			}
			for k := range newest {
				if w.store.has(k) {
					t.Fatalf("seed %d: %v outlived the window", seed, k)
				}
			}
		}
	})
}
