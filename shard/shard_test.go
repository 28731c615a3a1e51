package shard_test

import (
	"math"
	"testing"
	"time"

	"async-data-processor/shard"
)

// counts are the shard counts that the tests try.
var counts = []int{1, 2, 5, 16, 50}

// TestOfGolden pins the shard of some instants. It may never change: a message
// sent again after an upgrade must reach the queue, the folder and the
// committed ids of its first try. If this test fails, the code is wrong.
func TestOfGolden(t *testing.T) {
	tests := []struct {
		instant string
		want    [5]int // for n in counts
	}{
		{"0001-01-01T00:00:00Z", [5]int{0, 0, 1, 3, 11}},
		{"0001-01-01T00:00:00+23:59", [5]int{0, 0, 1, 4, 14}},
		{"1582-10-15T12:00:00Z", [5]int{0, 0, 0, 2, 7}},
		{"1677-09-21T00:12:43.145224191Z", [5]int{0, 0, 0, 2, 8}},
		{"1969-12-31T23:59:59.999999999Z", [5]int{0, 1, 3, 11, 34}},
		{"1970-01-01T00:00:00Z", [5]int{0, 1, 3, 10, 32}},
		{"1970-01-01T00:00:00.000000001Z", [5]int{0, 0, 0, 2, 8}},
		{"2000-02-29T12:34:56.789Z", [5]int{0, 0, 1, 3, 10}},
		{"2019-10-12T08:10:54.52Z", [5]int{0, 1, 4, 13, 42}},
		{"2019-10-12T08:10:55Z", [5]int{0, 1, 3, 11, 35}},
		{"2262-04-11T23:47:16.854775808Z", [5]int{0, 1, 4, 15, 46}},
		{"2024-02-29T23:59:59.999999-08:00", [5]int{0, 1, 4, 14, 44}},
		{"9999-12-31T23:59:59.999999999Z", [5]int{0, 0, 1, 4, 12}},
		{"9999-12-31T23:59:59-23:59", [5]int{0, 1, 3, 12, 37}},
	}
	for _, tt := range tests {
		instant, err := time.Parse(time.RFC3339Nano, tt.instant)
		if err != nil {
			t.Fatal(err)
		}
		var got [5]int
		for i, n := range counts {
			got[i] = shard.Of(instant, n)
		}
		if got != tt.want {
			t.Errorf("%s of %v is %v, want %v", tt.instant, counts, got, tt.want)
		}
	}
}

// TestOfSameInstant: how an instant is written does not matter.
func TestOfSameInstant(t *testing.T) {
	now := time.Now() // has a monotonic reading
	for _, instant := range []time.Time{now, time.Unix(-1, 5), time.Unix(1<<40, 0), {}} {
		for _, n := range counts {
			want := shard.Of(instant, n)
			for _, same := range []time.Time{
				instant.Round(0), instant.UTC(), instant.Local(),
				instant.In(time.FixedZone("", 86340)), instant.In(time.FixedZone("", -86340)),
				time.Unix(instant.Unix(), int64(instant.Nanosecond())),
			} {
				if got := shard.Of(same, n); got != want {
					t.Errorf("%v is in shard %d of %d, %v in shard %d", instant, want, n, same, got)
				}
			}
		}
	}
}

// FuzzOf: every instant has a shard, and one only.
func FuzzOf(f *testing.F) {
	for _, seconds := range []int64{0, -1, 1, 1570867854, -62135596800, 253402300799, math.MinInt64, math.MaxInt64} {
		f.Add(seconds, int64(0), uint16(5), int32(0))
		f.Add(seconds, int64(999_999_999), uint16(1), int32(86340))
		f.Add(seconds, int64(-1), uint16(50), int32(-86340))
	}
	f.Fuzz(func(t *testing.T, seconds, nanos int64, n uint16, offset int32) {
		count := int(n) + 1
		instant := time.Unix(seconds, nanos)
		got := shard.Of(instant, count)
		if got < 0 || got >= count {
			t.Fatalf("%v is in shard %d of %d", instant, got, count)
		}
		elsewhere := instant.In(time.FixedZone("", int(offset)))
		if again := shard.Of(elsewhere, count); again != got {
			t.Errorf("%v is in shard %d of %d, %v in shard %d", instant, got, count, elsewhere, again)
		}
		if alone := shard.Of(instant, 1); alone != 0 {
			t.Errorf("%v is in shard %d of 1", instant, alone)
		}
	})
}

// steps are how far apart the timestamps of different clients are.
var steps = []time.Duration{
	time.Nanosecond, time.Microsecond, time.Millisecond, 10 * time.Millisecond,
	time.Second, time.Minute, time.Hour, 24 * time.Hour,
}

// uneven tells how unevenly of spreads instants that are a step apart: the
// chi-squared statistic in standard deviations from what chance would give. It
// is infinite if a shard is out of range.
func uneven(of func(time.Time, int) int, start time.Time, step time.Duration, n int) float64 {
	const instants = 10_000
	hits := make([]float64, n)
	for i := range instants {
		s := of(start.Add(time.Duration(i)*step), n)
		if s < 0 || s >= n {
			return math.Inf(1)
		}
		hits[s]++
	}
	want, chi2 := instants/float64(n), 0.0
	for _, h := range hits {
		chi2 += (h - want) * (h - want) / want
	}
	freedom := float64(n - 1)
	return (chi2 - freedom) / math.Sqrt(2*freedom)
}

// tooUneven is a bound that chance breaks about once in a million.
const tooUneven = 6

func TestOfIsUniform(t *testing.T) {
	for _, year := range []int{1, 1500, 1969, 2024, 9900} {
		start := time.Date(year, 12, 31, 0, 0, 0, 0, time.UTC)
		for _, step := range steps {
			for _, n := range []int{2, 5, 16, 50} {
				if got := uneven(shard.Of, start, step, n); got > tooUneven {
					t.Errorf("%d shards, every %v from %d on: %.1f standard deviations", n, step, year, got)
				}
			}
		}
	}
}

// TestUniformityHasTeeth shows that the tests above would catch the ways to
// shard that suggest themselves.
func TestUniformityHasTeeth(t *testing.T) {
	naive := map[string]func(time.Time, int) int{
		"UnixNano % n":         func(t time.Time, n int) int { return int(t.UnixNano() % int64(n)) },
		"uint64(UnixNano) % n": func(t time.Time, n int) int { return int(uint64(t.UnixNano()) % uint64(n)) },
		"Unix % n":             func(t time.Time, n int) int { return int(t.Unix() % int64(n)) },
		"Nanosecond % n":       func(t time.Time, n int) int { return t.Nanosecond() % n },
	}
	for name, of := range naive {
		caught := 0
		for _, year := range []int{1500, 2024} {
			start := time.Date(year, 12, 31, 0, 0, 0, 0, time.UTC)
			for _, step := range steps {
				if uneven(of, start, step, 5) > tooUneven {
					caught++
				}
			}
		}
		if caught == 0 {
			t.Errorf("%s passes as uniform", name)
		}
	}

	// What each does wrong, by name: whole seconds all in one shard, and dates
	// before 1678, or only before 1970, in no shard at all.
	day := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	if of := naive["uint64(UnixNano) % n"]; uneven(of, day, time.Second, 5) <= tooUneven {
		t.Error("whole seconds are spread by the remainder of nanoseconds")
	}
	for _, year := range []int{1500, 1677, 1969} {
		old := time.Date(year, 1, 1, 0, 0, 0, 1, time.UTC)
		if got := shard.Of(old, 5); got < 0 || got >= 5 {
			t.Errorf("%v is in shard %d of 5", old, got)
		}
	}
	if got := naive["UnixNano % n"](time.Date(1969, 1, 1, 0, 0, 0, 1, time.UTC), 5); got >= 0 {
		t.Errorf("the remainder of a negative number is %d", got)
	}
}

func TestOfAllocates(t *testing.T) {
	now := time.Now()
	if n := testing.AllocsPerRun(100, func() { shard.Of(now, 5) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func BenchmarkOf(b *testing.B) {
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		shard.Of(now, 5)
	}
}
