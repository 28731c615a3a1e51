package output

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"
)

// TestSharedFsync: callers that need the folder's fsync while another is running
// share the next one, and its failure.
func TestSharedFsync(t *testing.T) {
	for name, tt := range map[string]struct {
		second verdict
		failed int
	}{
		"durable":                {pass, 0},
		"failed":                 {fail, 4},
		"failed, has happened":   {happened, 4},
		"panicked":               {panicBefore, 4},
		"panicked, has happened": {panicAfter, 4},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s := openShard(t, path)
				defer s.Close()
				resume := make(chan struct{})
				var syncs atomic.Int32
				f := newFaulty(t, s, func(_ int, call string) verdict {
					if call == "folder fsync" {
						switch syncs.Add(1) {
						case 1:
							<-resume
						case 2:
							return tt.second
						}
					}
					return pass
				}, unix.EIO)
				lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 5)
				errs := make([]error, len(lines))
				var wg sync.WaitGroup
				for i, line := range lines {
					wg.Go(func() {
						errs[i] = guarded(func() error {
							_, _, err := s.Write(t.Context(), worker, newBatch(line))
							return err
						})
					})
					synctest.Wait()
				}
				if visible, _ := folderNames(t, path); len(visible) != len(lines) {
					t.Errorf("%d are linked, want %d", len(visible), len(lines))
				}
				if err := errors.Join(errs...); err != nil {
					t.Errorf("ended already: %v", err)
				}
				close(resume)
				wg.Wait()
				written := len(lines) - tt.failed
				for i, err := range errs {
					if (err == nil) != (i < written) {
						t.Errorf("write %d: %v, want %d to fail", i, err, tt.failed)
					}
				}
				if tt.failed == 0 && syncs.Load() != 2 {
					t.Errorf("%d fsyncs, want 2: %q", syncs.Load(), f.calls)
				}
				checkOnce(t, path, lines[:written]...)
				for i, line := range lines {
					write(t, s, min(i/written, 1), line) // one more if it failed
				}
				checkOnce(t, path, lines...)
				if got := strings.Count(strings.Join(f.calls, ","), "open"); got != 1+min(tt.failed, 1) {
					t.Errorf("the folder was opened %d times: %q", got, f.calls)
				}
			})
		})
	}
}

// TestOpenedTwiceAtOnce: of two callers that open the folder at once one closes it.
func TestOpenedTwiceAtOnce(t *testing.T) {
	s := openShard(t, t.TempDir())
	var y syncer
	both := make(chan struct{}, 2)
	f := newFaulty(t, s, func(_ int, call string) verdict {
		if call == "open" {
			both <- struct{}{}
			for len(both) < cap(both) {
				runtime.Gosched()
			}
		}
		return pass
	}, nil)
	y.folder = f
	var wg sync.WaitGroup
	got := make([]*opened, 2)
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], err = y.begin(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got[0] != got[1] || !slices.Contains(f.calls, "folder close") {
		t.Errorf("%q", f.calls)
	}
	must(t, errors.Join(got[0].sync(), got[1].sync()))
	y.close()
	y.close()
}
