package durable

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// TestWatermark: it is low below the mark. The lack ends with an eighth more, and
// only with Clear.
func TestWatermark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWatermark("/data", 800<<20)
		var free int64
		w.free = func(string) (int64, error) { return free << 20, nil }
		for i, step := range []struct {
			free int64
			low  bool
		}{{801, false}, {800, false}, {799, true}, {800, true}, {899, true}, {900, false}, {850, false}, {799, true}} {
			free = step.free
			time.Sleep(2 * maxAge)
			low := w.Look()
			if (low != nil) != step.low {
				t.Fatalf("step %d, %d MiB free: %v", i, free, low)
			}
			if low == nil {
				w.Clear()
			}
			if err := w.Check(); (err != nil) != step.low {
				t.Errorf("step %d, %d MiB free: Check says %v", i, free, err)
			}
		}
		free = 1000
		if err := w.Low(); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("Low: %v", err)
		}
		if err := w.Check(); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "/data is full: 799 MiB are free, 800 MiB have to be") {
			t.Errorf("Check ended the lack by itself, or says %v", err)
		}
	})
}

// TestCheckLooksSeldom: many calls of Check at a time cost one look, and Check
// finds a lack by itself.
func TestCheckLooksSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWatermark("/data", 8)
		looks, free := 0, int64(8)
		w.free = func(string) (int64, error) { looks++; return free, nil }
		for range 100 {
			if err := w.Check(); err != nil {
				t.Fatal(err)
			}
		}
		if looks != 1 {
			t.Errorf("%d looks at a time", looks)
		}
		free = 7
		time.Sleep(2 * maxAge)
		if err := w.Check(); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("Check: %v", err)
		}
	})
}

// TestOff: without a mark nothing is too little, and the disk is not asked.
func TestOff(t *testing.T) {
	w := NewWatermark(filepath.Join(t.TempDir(), "gone"), 0)
	if err := w.Check(); err != nil {
		t.Error(err)
	}
}

// TestDiskGone: a disk that cannot be asked is not written to.
func TestDiskGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	if err := NewWatermark(dir, 1).Check(); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "the folder "+dir+" is gone") {
		t.Errorf("got %v", err)
	}
}
