package output

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// recorded is a Recorder, and the state database in which it records. It forgets the rows
// that the cursor has passed, and takes no others there.
type recorded struct {
	testing.TB
	limit int // files of a part
	lazy  bool
	away  bool // the database

	mu     sync.Mutex // guards what follows
	files  *Publications
	begun  bool
	cursor string
	rows   map[string]Published
	over   map[string]Published // rows that were forgotten
}

func newRecorded(t testing.TB) *recorded {
	return &recorded{TB: t, limit: 3, rows: map[string]Published{}, over: map[string]Published{}}
}

func (r *recorded) Opened(p *Publications) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files, r.begun = p, false
}

func (r *recorded) Published() {
	if !r.lazy {
		r.record()
	}
}

// record records all that there is.
func (r *recorded) record() {
	r.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.files != nil && !r.away {
		if !r.begun {
			r.files.Begin(r.cursor)
			r.begun = true
		}
		part, err := r.files.Next(r.limit)
		if part == nil || errors.Is(err, ErrClosed) {
			return
		}
		if err != nil {
			r.Errorf("record: %v", err)
			return
		}
		r.store(part)
		r.files.Recorded()
	}
}

func (r *recorded) store(part *Part) {
	r.Helper()
	if len(part.Files) > r.limit {
		r.Errorf("a part of %d files", len(part.Files))
	}
	for _, f := range part.Files {
		if _, again := r.over[f.File]; again {
			continue
		}
		if f.ULID() <= r.cursor {
			r.Errorf("%s is recorded when the cursor %s has passed it", f.File, r.cursor)
		}
		if row, there := r.rows[f.File]; there && row != f {
			r.Errorf("recorded %+v, and then %+v", row, f)
		}
		r.rows[f.File] = f
	}
	r.cursor = max(r.cursor, part.Cursor)
	for name, f := range r.rows {
		if f.ULID() <= r.cursor {
			r.over[name] = f
			delete(r.rows, name)
		}
	}
}

// all is what was recorded.
func (r *recorded) all() map[string]Published {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := maps.Clone(r.rows)
	maps.Copy(all, r.over)
	return all
}

// check fails unless just the visible files of shard 0 are recorded once another owner has
// looked.
func (r *recorded) check(path string) {
	r.Helper()
	d := openTestDir(r, path)
	d.Recorder = r
	s, err := d.Shard(context.Background(), 0, func() { r.Error("the shard has an owner") })
	must(r, err)
	r.record()
	must(r, s.Close())
	r.checkRows(path)
}

// checkRows fails unless just the visible files of shard 0 are recorded.
func (r *recorded) checkRows(path string) {
	r.Helper()
	all := r.all()
	visible, _ := folderNames(r, path)
	for _, name := range visible {
		text, err := os.ReadFile(filepath.Join(path, "shard-0", name))
		must(r, err)
		name = "shard-0/" + name
		want := Published{name, bytes.Count(text, []byte("\n")), int64(len(text))}
		if got, there := all[name]; !there || got != want {
			r.Errorf("recorded %+v, want %+v", got, want)
		}
		delete(all, name)
	}
	if len(all) > 0 {
		r.Errorf("recorded, and not there: %q", slices.Sorted(maps.Keys(all)))
	}
}

// recordedShard opens shard 0 of a folder in memory, and what records its files.
func recordedShard(t *testing.T, roll Roll) (path string, s *Shard, r *recorded) {
	t.Helper()
	path, r = memoryDir(t), newRecorded(t)
	return path, recordedBy(t, r, path, roll), r
}

// recordedBy opens shard 0 of the output folder at path, whose files r records.
func recordedBy(t *testing.T, r *recorded, path string, roll Roll) *Shard {
	t.Helper()
	d := openTestDir(t, path)
	d.roll, d.Recorder = roll, r
	return takeShard(t, d)
}
