package committed

import (
	"math"
	"time"
)

// Known is what a window knows of the messages of one submission.
type Known struct {
	// Bits has a bit for each index that is committed: index i is bit i%64 of
	// Bits[i/64]. It ends with the last word that has a bit.
	Bits []uint64
	// First and Last are when the first and the last of them were committed. Until is
	// when the window may forget the first one, unless more ids follow than it holds.
	First, Last, Until time.Time
}

// Memory is how far back a window remembers.
type Memory struct {
	// Forgot tells that it has dropped ids, or that files had more than it has read. All
	// that were committed less than Since ago are known, too, then.
	Forgot bool
	Since  time.Duration
}

// Known returns which messages of a submission are committed, of those below count. The
// submission must be a ULID; of another text nothing is known.
func (w *Window) Known(submission string, count int) (k Known) {
	if len(submission) != ulidLen {
		return k
	}
	hi, lo, ok := decodeULID([]byte(submission))
	if !ok {
		return k
	}
	count = min(count, maxIndex+1)
	w.mu.Lock()
	defer w.mu.Unlock()
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	for number := range uint64(count+63) / 64 {
		asked := ^uint64(0)
		if rest := count - int(number)*64; rest < 64 {
			asked = 1<<rest - 1
		}
		var found uint64
		b := block{hi, lo, number}
		w.store.visit(b, func(r *record) {
			if r.bits&asked == 0 {
				return
			}
			first, last = min(first, r.at), max(last, r.at)
			found |= r.bits & asked
		})
		if found != 0 {
			for uint64(len(k.Bits)) <= number {
				k.Bits = append(k.Bits, 0)
			}
			k.Bits[number] = found
		}
	}
	if k.Bits != nil {
		k.First, k.Last = w.when(first), w.when(last)
		k.Until = w.clock(max(w.now(), first+w.store.age))
	}
	return k
}

// Find tells whether an id is committed, and since when.
func (w *Window) Find(k Key) (at time.Time, known bool) {
	if !k.isID() {
		return at, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.store.visit(k.block(), func(r *record) {
		if r.bits&k.bit() != 0 {
			at, known = w.when(r.at), true
		}
	})
	return at, known
}

// Memory returns how far back the window remembers.
func (w *Window) Memory() Memory {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := Memory{Forgot: w.store.forgot}
	if m.Forgot && w.store.ids > 0 {
		m.Since = w.ago(w.now(), w.store.at(w.store.first).at)
	}
	return m
}

// StoodStill tells for how long ages stood still before the last Load: the newest file
// counts as committed then, and was so much earlier.
func (w *Window) StoodStill(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loaded, w.stood = w.now(), max(0, d)
}

// ago is how long ago a commit was, also if its age stood still meanwhile. mu is held.
func (w *Window) ago(now, at int64) time.Duration {
	d := time.Duration(now-at) * time.Millisecond
	if at <= w.loaded {
		d += w.stood
	}
	return d
}

// when is the time of a commit. mu is held.
func (w *Window) when(at int64) time.Time { return w.clock(0).Add(-w.ago(0, at)) }

// clock is a moment of the window's clock on the wall clock. A moment has the same time
// for all who ask, unless the wall clock is set meanwhile. mu is held.
func (w *Window) clock(at int64) time.Time {
	now, began := time.Now(), w.began.Round(0) // without its reading of the monotonic clock
	if set := now.Round(0).Sub(began) - now.Sub(w.began); (set - w.set).Abs() > time.Second {
		w.set = set
	}
	return began.Add(w.set + time.Duration(at)*time.Millisecond)
}

// visit calls see with each record of a block.
func (s *store) visit(b block, see func(*record)) {
	n := *s.bucket(b)
	for last := s.len(); n-s.first < last; {
		last = n - s.first
		r := s.at(n)
		if r.block() == b {
			see(r)
		}
		n = r.older
	}
}
