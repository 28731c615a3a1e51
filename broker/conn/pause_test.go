package conn

import (
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// TestPauses: the wait doubles from the shortest to the longest, at random; after a
// refusal it is long at once.
func TestPauses(t *testing.T) {
	pauses := PausesUpTo(5 * time.Second)
	longest := make([]time.Duration, 20)
	for range 200 {
		a := pauses.attempts()
		for i := range longest {
			pause := a.failed(io.EOF)
			if bound := min(pauses.Max, pauses.Min<<i); pause <= 0 || pause > bound {
				t.Fatalf("%v after %d failures, want above 0 and at most %v", pause, i, bound)
			}
			longest[i] = max(longest[i], pause)
		}
	}
	for i, pause := range longest {
		if bound := min(pauses.Max, pauses.Min<<i); pause < bound/2 {
			t.Errorf("after %d failures never more than %v of %v", i, pause, bound)
		}
	}
	a := pauses.attempts()
	for i := range 100 {
		err := Refused(io.EOF)
		if i >= 4 && i%2 == 0 {
			err = RefusedAfter(4, io.EOF)
		}
		if pause := a.failed(fmt.Errorf("step: %w", err)); pause < pauses.Refused/2 || pause > pauses.Refused {
			t.Fatalf("%v after a refusal, want %v to %v", pause, pauses.Refused/2, pauses.Refused)
		}
	}
	if pause := pauses.attempts().failed(RefusedAfter(1, io.EOF)); pause > pauses.Min {
		t.Errorf("%v after the first failure that may be a refusal", pause)
	}
}

// TestFlapping: only what has lasted begins with short pauses again.
func TestFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pauses := PausesUpTo(5 * time.Second)
		a := pauses.attempts()
		for range 20 {
			began := time.Now()
			time.Sleep(pauses.Max)
			a.lasted(began)
			a.failed(io.EOF)
		}
		if a.failures != 20 {
			t.Errorf("%d failures in a row, want 20", a.failures)
		}
		began := time.Now()
		time.Sleep(pauses.Max + 1)
		a.lasted(began)
		if pause := a.failed(io.EOF); pause > pauses.Min || a.failures != 1 {
			t.Errorf("%v after %d failures, want at most %v after one", pause, a.failures, pauses.Min)
		}
	})
}
