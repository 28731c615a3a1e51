package committed

import (
	"iter"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestKnown holds what is known of a submission to what was committed, and to nothing
// that is only claimed.
func TestKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 150
		rnd := rand.New(rand.NewPCG(5, 6))
		w := New(100_000, 0, time.Hour)
		committed := map[int][]bool{}
		for range 300 {
			n := rnd.IntN(3)
			if committed[n] == nil {
				committed[n] = make([]bool, count+10)
			}
			var batch []Key
			var indexes []int
			for i, step := rnd.IntN(count), 1+rnd.IntN(3); i < count+10 && len(batch) < 5; i += step {
				batch, indexes = append(batch, KeyOf(id(n, i))), append(indexes, i)
			}
			c, err := w.Claim(t.Context(), batch)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := ones(w.Known(submission(n), count).Bits), trues(committed[n][:count]); got != want {
				t.Fatalf("%d are known while others are only claimed, want %d", got, want)
			}
			if rnd.IntN(4) == 0 {
				c.Release()
				continue
			}
			c.Commit()
			for _, i := range indexes {
				committed[n][i] = true
			}
			k := w.Known(submission(n), count)
			for i := range count + 10 {
				known := i/64 < len(k.Bits) && k.Bits[i/64]&(1<<(i%64)) != 0
				if known != (i < count && committed[n][i]) {
					t.Fatalf("message %d of submission %d is known: %v", i, n, known)
				}
			}
		}
		for _, other := range []string{submission(7), "", "x", submission(0) + "0", "8" + submission(0)[1:]} {
			if k := w.Known(other, count); k.Bits != nil {
				t.Errorf("%d of %q are known", ones(k.Bits), other)
			}
		}
	})
}

func ones(words []uint64) (n int) {
	for _, word := range words {
		n += bits.OnesCount64(word)
	}
	return n
}

func trues(all []bool) (n int) {
	for _, is := range all {
		if is {
			n++
		}
	}
	return n
}

// TestKnownSince: the times are those of the commits, and tell how long they are kept.
func TestKnownSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		w := New(100, 0, time.Hour)
		time.Sleep(time.Minute)
		commit(t, w, string(id(1, 0)))
		time.Sleep(time.Minute)
		commit(t, w, string(id(1, 70)))
		time.Sleep(time.Second)
		for range 3 {
			k := w.Known(submission(1), 100)
			if !k.First.Equal(began.Add(time.Minute)) || !k.Last.Equal(began.Add(2*time.Minute)) || !k.Until.Equal(k.First.Add(time.Hour)) {
				t.Errorf("after %v: %+v", time.Since(began), k)
			}
			time.Sleep(700 * time.Microsecond) // it is the same in each part of a millisecond
		}
		w.set = -time.Hour // as if the clock was wrong, and was set since
		if k := w.Known(submission(1), 100); !k.First.Equal(began.Add(time.Minute)) {
			t.Errorf("%+v after the clock was set", k)
		}
		time.Sleep(2 * time.Hour)
		if k := w.Known(submission(1), 100); time.Since(k.Until).Abs() > time.Millisecond {
			t.Errorf("%+v, want that it may be forgotten now", k)
		}
	})
}

// TestMemory: a window that has dropped nothing, and was loaded from all files, has
// forgotten nothing. One that has remembers what was committed since its oldest id.
func TestMemory(t *testing.T) {
	files := func(n int, ago time.Duration) iter.Seq2[time.Duration, func() []Key] {
		return func(yield func(time.Duration, func() []Key) bool) {
			for i := range n {
				if !yield(time.Duration(i)*ago, func() []Key { return []Key{KeyOf(id(9, i))} }) {
					return
				}
			}
		}
	}
	tests := map[string]struct {
		do    func(w *Window)
		want  Memory
		count int
	}{
		"new":                 {func(*Window) {}, Memory{}, 0},
		"some are committed":  {func(w *Window) { commit(t, w, string(id(1, 0))); time.Sleep(time.Minute) }, Memory{}, 1},
		"all files are there": {func(w *Window) { w.Load(files(2, time.Minute)) }, Memory{}, 2},
		"more than fit": {func(w *Window) {
			for i := range 4 {
				commit(t, w, string(id(1, i)))
				time.Sleep(time.Minute)
			}
		}, Memory{Forgot: true, Since: 3 * time.Minute}, 3},
		"too old": {func(w *Window) {
			commit(t, w, string(id(1, 0)))
			time.Sleep(2 * time.Hour)
			commit(t, w, string(id(1, 1)))
			time.Sleep(time.Minute)
		}, Memory{Forgot: true, Since: time.Minute}, 1},
		"all are too old": {func(w *Window) {
			commit(t, w, string(id(1, 0)))
			time.Sleep(2 * time.Hour)
			claim(t, w, string(id(1, 1))).Release()
		}, Memory{Forgot: true}, 0},
		"more files than fit":    {func(w *Window) { w.Load(files(5, time.Minute)) }, Memory{Forgot: true, Since: 2 * time.Minute}, 3},
		"files that are too old": {func(w *Window) { w.Load(files(3, 50*time.Minute)) }, Memory{Forgot: true, Since: 50 * time.Minute}, 2},
		"nothing was written for a day": {func(w *Window) {
			w.Load(files(5, time.Minute))
			w.StoodStill(24 * time.Hour)
		}, Memory{Forgot: true, Since: 24*time.Hour + 2*time.Minute}, 3},
		"loaded again": {func(w *Window) {
			w.Load(files(5, time.Minute))
			w.Load(files(1, time.Minute))
		}, Memory{Forgot: true, Since: 2 * time.Minute}, 3},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := New(3, 0, time.Hour)
				tt.do(w)
				if got := w.Memory(); got != tt.want {
					t.Errorf("%+v, want %+v", got, tt.want)
				}
				if ids, _ := w.Remembered(); ids != tt.count {
					t.Errorf("%d ids, want %d", ids, tt.count)
				}
			})
		})
	}
}

// TestKnownAcrossLoad: what was loaded from files is known, as long ago as it was
// committed.
func TestKnownAcrossLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(100, 0, 24*time.Hour)
		w.Load(func(yield func(time.Duration, func() []Key) bool) {
			yield(time.Minute, func() []Key { return keys(string(id(1, 3)), string(id(1, 4))) })
		})
		w.StoodStill(time.Hour)
		time.Sleep(time.Minute)
		commit(t, w, string(id(1, 0)))
		time.Sleep(time.Minute)
		k := w.Known(submission(1), 5)
		if !slices.Equal(k.Bits, []uint64{1<<0 | 1<<3 | 1<<4}) || time.Since(k.First) != time.Hour+3*time.Minute || time.Since(k.Last) != time.Minute {
			t.Errorf("%+v", k)
		}
	})
}

// TestFind holds what is known of an id to what was committed, be it of ours or another
// program's.
func TestFind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(1000, 0, time.Hour)
		commit := func(keys ...Key) {
			t.Helper()
			c, err := w.Claim(t.Context(), keys)
			if err != nil {
				t.Fatal(err)
			}
			if _, known := w.Find(KeyOf(id(2, 99))); known {
				t.Error("what is only claimed is known")
			}
			c.Commit()
		}
		commit(KeyOf(id(1, 0)), KeyOf(id(1, 70)), KeyOf([]byte("order-1")))
		time.Sleep(time.Minute)
		commit(KeyOf(id(1, 1)), KeyOf([]byte("order-2")))
		time.Sleep(time.Second)
		for text, want := range map[string]time.Duration{
			string(id(1, 0)): 61 * time.Second, string(id(1, 70)): 61 * time.Second, "order-1": 61 * time.Second,
			string(id(1, 1)): time.Second, "order-2": time.Second,
			string(id(1, 2)): -1, string(id(1, 64)): -1, "order-3": -1, "": -1,
		} {
			if at, known := w.Find(KeyOf([]byte(text))); known != (want >= 0) || known && time.Since(at) != want {
				t.Errorf("%q: %v, %v, want %v", text, time.Since(at), known, want)
			}
		}
	})
}
