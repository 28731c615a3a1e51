package verify

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/oklog/ulid/v2"
)

func TestRecord(t *testing.T) {
	if size := unsafe.Sizeof(record{}); size != recordBytes {
		t.Errorf("a record has %d bytes, want %d", size, recordBytes)
	}
	for _, index := range []string{"0", "9", "9999"} {
		r, ours := recordOf(s1+"."+index, maxShards-1)
		r = r.at(maxOffset)
		if got := join(r.submission(), r.index()); !ours || got != s1+"."+index {
			t.Errorf("%s.%s came out as %s", s1, index, got)
		}
		if r.shard() != maxShards-1 || r.offset() != maxOffset {
			t.Errorf("shard %d, offset %d", r.shard(), r.offset())
		}
		if back := parseRecord(r.append(nil)); back != r {
			t.Errorf("%+v came back as %+v", r, back)
		}
	}
	for _, id := range []string{
		"", ".", s1, s1 + ".", s1 + ".10000", s1 + ".01", s1 + ".+1", s1 + ".-1", s1 + ".1.1", s1 + ".1 ",
		s1[1:] + ".1", strings.ToLower(s1) + ".1", "8" + s1[1:] + ".1", "U" + s1[1:] + ".1", "." + s1,
	} {
		if r, ours := recordOf(id, 0); ours || r.index() != foreignIndex {
			t.Errorf("%q is taken for an id of ours", id)
		}
	}
}

// FuzzSplit: an id of ours has one spelling.
func FuzzSplit(f *testing.F) {
	f.Add(s1 + ".0")
	f.Add(strings.ToLower(s1) + ".10")
	f.Fuzz(func(t *testing.T, id string) {
		if submission, index, ok := split(id); ok && join(submission, index) != id {
			t.Errorf("%q is %v and %d", id, submission, index)
		}
	})
}

// TestSorted adds from several goroutines and reads back from many runs.
func TestSorted(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	want := make([]record, 5000)
	for i := range want {
		want[i] = record{rng.Uint64N(9), rng.Uint64N(9), rng.Uint64N(99)}
	}
	for _, limit := range []int{1, 999, 1000, 5000, 5001} {
		l, err := newLedger(t.TempDir(), limit)
		must(t, err)
		t.Cleanup(l.close)
		adding := make(chan error)
		for part := range slices.Chunk(want, 1250) {
			go func() { adding <- l.add(part) }()
		}
		for range 4 {
			must(t, <-adding)
		}
		var got []record
		for r, err := range l.sorted() {
			must(t, err)
			got = append(got, r)
		}
		sorted := slices.SortedFunc(slices.Values(want), compareRecords)
		if !slices.Equal(got, sorted) {
			t.Errorf("runs of %d: %d records, not the %d that were added in order", limit, len(got), len(want))
		}
		for range l.sorted() { // a reader that stops early
			break
		}
	}
}

// TestLedgerErrors closes the temporary files, unknown to the ledger.
func TestLedgerErrors(t *testing.T) {
	broken := func(limit int, fill bool) *ledger {
		l, err := newLedger(t.TempDir(), limit)
		must(t, err)
		at, err := l.file("f")
		must(t, err)
		if fill {
			r, _ := recordOf(s1+".0", 0)
			must(t, l.add([]record{r.at(at), r.at(at), r.at(at)}))
		}
		l.close()
		return l
	}
	if err := broken(10, true).compare(t.Context(), newTally()); err == nil {
		t.Error("texts were lost without an error")
	}
	l := broken(2, true)
	l.texts.out.Reset(new(strings.Builder))
	if err := l.compare(t.Context(), newTally()); err == nil {
		t.Error("records were lost without an error")
	}
	l.spill.out.Reset(new(strings.Builder)) // written, it seems, but not to be read
	if err := l.compare(t.Context(), newTally()); err == nil {
		t.Error("records were lost without an error")
	}
	l = broken(10, true)
	l.texts.out.Reset(new(strings.Builder))
	if err := l.compare(t.Context(), newTally()); err == nil {
		t.Error("paths were lost without an error")
	}

	l = broken(10, false)
	var err error
	for range 10 { // more than its buffer
		if _, err = l.file(strings.Repeat("a", 100<<10)); err != nil {
			break
		}
	}
	if err == nil {
		t.Error("a path was lost without an error")
	}
	if _, err := l.foreign(0, "x"); err == nil {
		t.Error("an id was lost without an error")
	}
	l.texts.size = maxOffset + 1
	if _, err := l.file("f"); err == nil {
		t.Error("an offset was cut without an error")
	}
	if got := join(ulid.ULID{}, 1); got != "00000000000000000000000000.1" {
		t.Errorf("got %s", got)
	}
}
