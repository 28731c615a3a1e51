package backoff

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestNext(t *testing.T) {
	b := Backoff{Min: 100 * time.Millisecond, Max: time.Second}
	for _, want := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
		if got := b.Next(); got != want*time.Millisecond {
			t.Errorf("pause %v, want %v ms", got, int64(want))
		}
	}
	b.Reset()
	if got := b.Next(); got != b.Min {
		t.Errorf("the first pause after Reset is %v, want %v", got, b.Min)
	}
}

func TestJitter(t *testing.T) {
	b := Backoff{Min: time.Second, Max: time.Second, Jitter: 0.5}
	lowest, highest := time.Hour, time.Duration(0)
	for range 1000 {
		pause := b.Next()
		lowest, highest = min(lowest, pause), max(highest, pause)
	}
	if lowest < 500*time.Millisecond || highest > time.Second || highest-lowest < 400*time.Millisecond {
		t.Errorf("pauses of %v to %v, want them spread from 500 ms to 1 s", lowest, highest)
	}
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if !Sleep(t.Context(), time.Minute) || time.Since(began) != time.Minute {
			t.Errorf("it slept %v, want a minute", time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if Sleep(ctx, time.Minute) || time.Since(began) != time.Minute+time.Second {
			t.Error("it did not wake up when its context ended")
		}
	})
}
