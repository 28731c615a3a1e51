package committed

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func claim(t testing.TB, w *Window, ids ...string) *Claim {
	t.Helper()
	c, err := w.Claim(context.Background(), keys(ids...))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// commit claims the ids and commits them; it returns those that were fresh.
func commit(t testing.TB, w *Window, ids ...string) []string {
	t.Helper()
	c := claim(t, w, ids...)
	c.Commit()
	return fresh(c, ids...)
}

// TestWindowExpires: the last ids are known, as many and as long as promised,
// and not more.
func TestWindowExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(3, 0, time.Minute)
		for i := range 4 {
			commit(t, w, string(id(i, 0)))
		}
		if got := commit(t, w, string(id(1, 0)), string(id(2, 0)), string(id(3, 0))); got != nil {
			t.Errorf("%q were forgotten among the last three", got)
		}
		if got := commit(t, w, string(id(0, 0))); got == nil {
			t.Error("the fourth but last is still known")
		}

		w = New(100, 0, time.Minute)
		commit(t, w, "a")
		time.Sleep(time.Minute)
		if got := commit(t, w, "a"); got != nil {
			t.Error("forgotten at the end of the window's time")
		}
		time.Sleep(time.Millisecond)
		if got := commit(t, w, "a"); got == nil {
			t.Error("known beyond the window's time")
		}
		// What came again was not committed again: its time had begun before.
		time.Sleep(time.Minute)
		if got := commit(t, w, "a"); got != nil {
			t.Error("forgotten at the end of the second time")
		}
	})
}

// waiting starts a claim that has to wait; its outcome comes on the channel.
func waiting(t *testing.T, w *Window, ctx context.Context, ids ...string) <-chan any {
	t.Helper()
	outcome := make(chan any, 1)
	go func() {
		c, err := w.Claim(ctx, keys(ids...))
		if err != nil {
			outcome <- err
			return
		}
		outcome <- c
	}()
	synctest.Wait()
	select {
	case got := <-outcome:
		t.Fatalf("it does not wait: %v", got)
	default:
	}
	return outcome
}

// TestRival: a claim that meets a pending id learns its outcome.
func TestRival(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(*Claim)
		want []string
	}{
		"published":           {(*Claim).Commit, []string{"c"}},
		"failed or abandoned": {(*Claim).Release, []string{"b", "c"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := New(100, 0, time.Hour)
				first := claim(t, w, "a", "b")
				outcome := waiting(t, w, t.Context(), "b", "c")
				// A claim that waits holds nothing.
				if got := commit(t, w, "c", "d"); !slices.Equal(got, []string{"c", "d"}) {
					t.Errorf("%q are fresh", got)
				}
				tt.end(first)
				second := (<-outcome).(*Claim)
				want := slices.DeleteFunc(slices.Clone(tt.want), func(id string) bool { return id == "c" })
				if got := fresh(second, "b", "c"); !slices.Equal(got, want) {
					t.Errorf("%q are fresh, want %q", got, want)
				}
			})
		})
	}
}

func TestRivalTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(100, 0, time.Hour)
		claim(t, w, "a")
		ctx, cancel := context.WithCancelCause(t.Context())
		outcome := waiting(t, w, ctx, "a")
		cause := errors.New("drain")
		cancel(cause)
		if got := <-outcome; got != cause {
			t.Errorf("got %v, want the cause", got)
		}
		start := time.Now()
		if got := <-waiting(t, w, t.Context(), "a"); got != ErrPending {
			t.Errorf("got %v, want %v", got, ErrPending)
		}
		if took := time.Since(start); took != patience {
			t.Errorf("it waited for %v", took)
		}
	})
}

// TestOverIsOver: a claim that was given up changes nothing any more.
func TestOverIsOver(t *testing.T) {
	w := New(100, 0, time.Hour)
	late := claim(t, w, "a")
	late.Release()
	next := claim(t, w, "a")
	late.Commit()
	late.Release()
	if r := w.pending[KeyOf([]byte("a")).block()]; r == nil || r.claim != next {
		t.Error("the next claim has lost its id")
	}
	next.Release()
	if got := commit(t, w, "a"); got == nil {
		t.Error("the late one has committed the id")
	}
}

// TestManyClaims lets batches that overlap race: each id is committed once, by
// all the batches together, and no claim is stuck.
func TestManyClaims(t *testing.T) {
	const batches, ids = 200, 50
	w := New(1000, 0, time.Hour)
	var mu sync.Mutex
	written := make(map[int]int)
	var all sync.WaitGroup
	for b := range batches {
		all.Go(func() {
			var want []int
			var ks []Key
			for i := range 7 {
				n := (b*13 + i*(b%5+1)) % ids
				if b%2 == 0 { // the other way round
					n = ids - 1 - n
				}
				want, ks = append(want, n), append(ks, KeyOf(id(0, n)))
			}
			for {
				c, err := w.Claim(t.Context(), slices.Clone(ks))
				if err != nil {
					t.Error(err)
					return
				}
				if b%3 == 0 { // fails, and tries again
					b++
					c.Release()
					continue
				}
				mu.Lock()
				for i, n := range want {
					if c.IsFresh(i) {
						written[n]++
					}
				}
				mu.Unlock()
				c.Commit()
				return
			}
		})
	}
	all.Wait()
	for n := range ids {
		if written[n] != 1 {
			t.Errorf("id %d is written %d times", n, written[n])
		}
	}
	if len(w.pending) != 0 {
		t.Errorf("%d ids are still pending", len(w.pending))
	}
}

// TestLoad: the first ids are the newest, and no more are read than needed.
func TestLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := [][]string{{"e", "f"}, {"d", "d"}, {"c", "f", ""}, {"b"}, {"a"}}
		asked := 0
		w := New(4, 0, time.Minute)
		got := w.Load(func(yield func(time.Duration, func() []Key) bool) {
			for i, ids := range files {
				read := func() []Key { asked++; return keys(ids...) }
				if !yield(time.Duration(i)*10*time.Second, read) {
					return
				}
			}
		})
		if got != 4 || asked != 3 {
			t.Errorf("%d ids of %d files, want 4 of 3", got, asked)
		}
		if got := fresh(claim(t, w, "a", "b", "c", "d", "e", "f"), "a", "b", "c", "d", "e", "f"); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("%q are fresh", got)
		}
		// The oldest goes first.
		w.pending = map[block]*run{}
		commit(t, w, "g")
		if got := fresh(claim(t, w, "c", "d", "e", "f", "g"), "c", "d", "e", "f", "g"); !slices.Equal(got, []string{"c"}) {
			t.Errorf("%q are fresh", got)
		}
		// And each by its own time.
		w.pending = map[block]*run{}
		time.Sleep(51 * time.Second)
		if got := fresh(claim(t, w, "d", "e", "f"), "d", "e", "f"); !slices.Equal(got, []string{"d"}) {
			t.Errorf("%q are fresh", got)
		}
	})
}

// TestKeep: the last ids have no age, neither those that were committed nor those that
// were loaded, and what is older is read only as far as they need it.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(10, 3, time.Minute)
		asked := 0
		got := w.Load(func(yield func(time.Duration, func() []Key) bool) {
			for i, ids := range [][]string{{"f"}, {"e"}, {"c", "d"}, {"b"}, {"a"}} {
				if !yield(time.Duration(i)*time.Hour, func() []Key { asked++; return keys(ids...) }) {
					return
				}
			}
		})
		if got != 3 || asked != 3 {
			t.Errorf("%d ids of %d files, want 3 of 3", got, asked)
		}
		ids := []string{"c", "d", "e", "f"}
		if got := fresh(claim(t, w, ids...), ids...); !slices.Equal(got, ids[:1]) {
			t.Errorf("%q are fresh", got)
		}
		w.pending = map[block]*run{}
		commit(t, w, "g", "h")
		time.Sleep(time.Hour)
		ids = append(ids, "g", "h")
		if got := fresh(claim(t, w, ids...), ids...); !slices.Equal(got, ids[:3]) {
			t.Errorf("after an hour %q are fresh", got)
		}
	})
}

// TestLoadAgain: what a window has stays, behind what is loaded.
func TestLoadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(4, 0, time.Minute)
		for _, id := range []string{"a", "b", "c"} {
			commit(t, w, id)
			time.Sleep(10 * time.Second)
		}
		load := func(ids ...string) {
			t.Helper()
			got := w.Load(func(yield func(time.Duration, func() []Key) bool) {
				yield(0, func() []Key { return keys(ids...) })
			})
			if got != 4 {
				t.Errorf("%d ids", got)
			}
		}
		load("c", "d", "e")
		ids := []string{"a", "b", "c", "d", "e"}
		if got := fresh(claim(t, w, ids...), ids...); !slices.Equal(got, ids[:1]) {
			t.Errorf("%q are fresh", got)
		}
		w.pending = map[block]*run{}
		load()
		time.Sleep(41 * time.Second) // b is a minute old
		if got := fresh(claim(t, w, ids...), ids...); !slices.Equal(got, ids[:2]) {
			t.Errorf("%q are fresh", got)
		}
	})
}

func TestLoadNothing(t *testing.T) {
	w := New(1, 0, time.Hour)
	if n := w.Load(func(func(time.Duration, func() []Key) bool) {}); n != 0 {
		t.Errorf("%d ids", n)
	}
	commit(t, w, "a")
}
