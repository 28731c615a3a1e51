package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"async-data-processor/output"
)

const (
	// portion is how many names of a folder are read at a time: it may hold
	// millions.
	portion = 256
	// stampSlack is how much older than its making a file may look: the clocks
	// of file systems are coarse, some tick once a second.
	stampSlack = time.Second
)

// job is a visible file to be read.
type job struct {
	shard int
	path  string
}

// walk looks at every name and reads every visible file, and puts the messages
// into ids. One goroutine lists, the others read:
//
//	list ── jobs ──▶ readers ──▶ ids
//	  └──────────────────┴─────▶ tally
func (v *verifier) walk(ctx context.Context, ids *ledger) (*tally, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	jobs := make(chan []job)
	tallies := make([]*tally, v.readers) // each its reader's, until all are done
	var readers sync.WaitGroup
	for i := range tallies {
		tallies[i] = newTally()
		readers.Go(func() {
			r := newReader(v, ids, tallies[i])
			for files := range jobs {
				for _, f := range files {
					if err := r.judge(ctx, f); err != nil {
						cancel(err)
						break
					}
				}
			}
		})
	}
	t := newTally()
	v.list(t, func(files []job) (more bool) {
		select {
		case jobs <- files:
			return true
		case <-ctx.Done():
			return false
		}
	})
	close(jobs)
	readers.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for _, of := range tallies {
		t.merge(of)
	}
	return t, nil
}

// list judges the names in the output folder and the shards', and yields the
// visible files until it is told to stop.
func (v *verifier) list(t *tally, yield func([]job) bool) {
	var shards []int
	v.readDir(t, none, ".", func(entries []fs.DirEntry) bool {
		for _, e := range entries {
			n, ok := output.ParseShard(e.Name())
			switch {
			case ok && n < maxShards && e.IsDir():
				shards = append(shards, n)
				t.of(n) // an empty one is reported, too
			case !strings.HasPrefix(e.Name(), output.ShardPrefix) && e.IsDir():
				t.found(none, Finding{Class: Skipped, File: e.Name(), Detail: "not a shard's folder, not looked at"})
			default:
				t.found(none, Finding{Class: Foreign, File: e.Name(), Detail: "only folders of shards belong here"})
			}
		}
		return true
	})
	slices.Sort(shards)
	for _, n := range shards {
		if !v.listShard(t, n, yield) {
			return
		}
	}
}

func (v *verifier) listShard(t *tally, n int, yield func([]job) bool) (more bool) {
	folder := output.ShardName(n)
	owned := sync.OnceValues(func() (bool, error) { return v.owned(folder) })
	return v.readDir(t, n, folder, func(entries []fs.DirEntry) bool {
		files := make([]job, 0, len(entries))
		for _, e := range entries {
			name := path.Join(folder, e.Name())
			kind := output.ParseName(e.Name())
			switch {
			case kind == output.Foreign:
				t.found(n, Finding{Class: Foreign, File: name, Detail: "not a name that the program gives"})
			case !e.Type().IsRegular():
				t.found(n, Finding{Class: Foreign, File: name, Detail: "not a regular file"})
			case kind == output.Visible:
				files = append(files, job{n, name})
			case kind == output.Temporary:
				v.judgeHidden(t, n, name, "removes", owned)
			case kind == output.Rolling:
				v.judgeHidden(t, n, name, "publishes", owned)
			}
		}
		return yield(files)
	})
}

// judgeHidden tells a file that is being written from one that a crash left; fate
// is what the next owner does with that. An owner removes and publishes such files
// before it writes, so hidden files in its folder are its own. The look at the file
// comes after the look at the lock: a file of a former owner may be gone by then.
func (v *verifier) judgeHidden(t *tally, shard int, name, fate string, owned func() (bool, error)) {
	inUse, err := owned()
	if err != nil {
		t.found(shard, unreadable(name, fmt.Errorf("whether a process writes it: %w", err)))
		return
	}
	switch info, err := fs.Lstat(v.folder, name); {
	case errors.Is(err, fs.ErrNotExist): // published or removed
	case err != nil:
		t.found(shard, unreadable(name, err))
	case inUse:
		t.found(shard, Finding{Class: InProgress, File: name, Detail: "a process owns the folder and may be writing it"})
	case info.ModTime().After(v.started.Add(-stampSlack)):
		t.found(shard, Finding{Class: InProgress, File: name, Detail: "younger than this run"})
	default:
		t.found(shard, Finding{Class: Leftover, File: name, Detail: "left by a crash; the next owner of the folder " + fate + " it"})
	}
}

// readDir yields the folder's entries in portions until it is told to stop. An
// error of the folder ends it alone: it becomes a finding, and there is more.
func (v *verifier) readDir(t *tally, shard int, name string, yield func([]fs.DirEntry) bool) (more bool) {
	f, err := v.folder.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		t.found(shard, Finding{Class: Vanished, File: name, Detail: "moved away after it was listed"})
		return true
	}
	if err != nil {
		t.found(shard, unreadable(name, err))
		return true
	}
	defer f.Close() // only read from: nothing of it can be lost
	for {
		entries, err := f.(fs.ReadDirFile).ReadDir(portion)
		if len(entries) > 0 && !yield(entries) {
			return false
		}
		if err == io.EOF {
			return true
		}
		if err != nil {
			t.found(shard, unreadable(name, err))
			return true
		}
	}
}

// unreadable is the finding for an error of reading name.
func unreadable(name string, err error) Finding {
	if e, ok := err.(*fs.PathError); ok { // itself, not below a noun that would go with it
		err = fmt.Errorf("%s: %w", e.Op, e.Err)
	}
	return Finding{Class: Unreadable, File: name, Detail: err.Error()}
}
