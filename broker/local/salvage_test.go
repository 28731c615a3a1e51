package local

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// salvage salvages what is left of a store in dir, and looks whether that is as it was
// and the new one is whole. It returns how many records the new one lacks, and how many
// more it has.
func salvage(t *testing.T, s *testStore, dir string) (r *Report, missing, more int) {
	t.Helper()
	before, to := snapshot(t, dir), filepath.Join(t.TempDir(), "new")
	r, err := Salvage(t.Context(), dir, to, nil)
	if !maps.Equal(before, snapshot(t, dir)) {
		t.Error("the old store changed")
	}
	if err != nil {
		if _, err := os.Stat(to); !errors.Is(err, ErrDamaged) && !errors.Is(err, fs.ErrNotExist) {
			t.Error("there is a new store:", err)
		}
		if !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
		return nil, 0, 0
	}
	copied, err := Check(t.Context(), to, nil)
	if err != nil {
		t.Error("the new store:", err)
	}
	for n, q := range copied.Queues {
		old := r.Queues[n]
		for seq, count := range q.Returns {
			if old.Returns[seq] != count {
				t.Errorf("%s: envelope %d came back %d times, want %d", QueueText(n), seq, count, old.Returns[seq])
			}
		}
		if q.Sequence != max(old.Sequence, old.Last) {
			t.Errorf("%s: the last number is %d, want %d", QueueText(n), q.Sequence, old.Sequence)
		}
	}
	missing, more = s.records.missing(t, filepath.Join(to, FileName))
	return r, missing, more
}

// snapshot returns all that is in a folder.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var text []byte
		if !d.IsDir() {
			text, err = os.ReadFile(path)
		}
		found[path] = fmt.Sprint(info.Mode(), info.ModTime(), string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestSalvage: with some leaves zeroed, all that is on other pages is copied.
func TestSalvage(t *testing.T) {
	for _, shape := range shapes[1:] {
		s := newTestStore(t, shape)
		if err := os.WriteFile(filepath.Join(s.dir, lockName), []byte("4242\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, missing, more := salvage(t, s, s.dir); r.Err() != nil || missing > 0 || more > 0 {
			t.Fatalf("%s, undamaged: %v, %d envelopes are missing, %d too many", shape, r.Err(), missing, more)
		}
		f, err := os.OpenFile(s.path(), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		sv, err := newSurvey(t.Context(), f, false, 1, nil)
		if err != nil || !sv.start() {
			t.Fatal(err)
		}
		lost, leaves := 0, 0
		for n, q := range sv.report.Queues {
			if q.bucket.root == 0 {
				continue // inline, on a page with others
			}
			sv.tree.walk(q.bucket, visitor{wrong: func(err error) { t.Error(err) }, leaf: func(p *page) {
				if leaves++; leaves%3 != 1 {
					return
				}
				lost += len(p.keys)
				for _, key := range p.keys {
					delete(s.records[n], binary.BigEndian.Uint64(key))
				}
				if _, err := f.WriteAt(make([]byte, 64), p.offset); err != nil {
					t.Error(err)
				}
			}})
		}
		r, missing, more := salvage(t, s, s.dir)
		if missing > 0 || more > 0 || lost == 0 || !errors.Is(r.Err(), ErrDamaged) {
			t.Errorf("%s, %d envelopes zeroed: %d more are missing, %d too many; %v", shape, lost, missing, more, r.Err())
		}
	}
}

// TestSalvageOlder: if the newest state has no root, the one before is copied.
func TestSalvageOlder(t *testing.T) {
	s := newTestStore(t, "small")
	f, err := os.OpenFile(s.path(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	metas, err := readMetas(f)
	if err != nil || len(metas) != 2 {
		t.Fatal(metas, err)
	}
	if _, err := f.WriteAt(make([]byte, 64), int64(metas[0].root.root)*int64(metas[0].pageSize)); err != nil {
		t.Fatal(err)
	}
	delete(s.records, 1023) // by the last transaction
	r, missing, more := salvage(t, s, s.dir)
	if missing > 0 || more > 0 || !strings.Contains(r.Err().Error(), "this is the one before") {
		t.Errorf("%d envelopes are missing, %d too many; %v", missing, more, r.Err())
	}
	if q := r.Queues[0]; q.Want != -1 {
		t.Errorf("%d envelopes are expected, which nothing tells any more", q.Want)
	}
}

// TestInUse: a store that a process has is refused, with the number of the process.
func TestInUse(t *testing.T) {
	s := newTestStore(t, "small")
	lock, err := lockStore(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	_, checked := Check(t.Context(), s.dir, nil)
	_, salvaged := Salvage(t.Context(), s.dir, filepath.Join(s.dir, "new"), nil)
	for _, err := range []error{checked, salvaged} {
		if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
			t.Error(err)
		}
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Check(t.Context(), s.dir, nil); err != nil {
		t.Error(err)
	}
}

// TestStopped: the end of its context ends a look at a store, and what is copied of one
// is no store then.
func TestStopped(t *testing.T) {
	s := newTestStore(t, "backlog")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	to := filepath.Join(t.TempDir(), "new")
	_, checked := Check(ctx, s.dir, nil)
	_, salvaged := Salvage(ctx, s.dir, to, nil)
	file, err := OpenFile(s.dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, recovered := file.Recover(ctx)
	for _, err := range []error{checked, salvaged, recovered} {
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(to, FileName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a new store: %v", err)
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
}
