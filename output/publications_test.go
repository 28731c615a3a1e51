package output

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"async-data-processor/message"
)

// TestRecordsEachFile: each file is recorded with its lines and bytes, however it became
// visible.
func TestRecordsEachFile(t *testing.T) {
	for name, do := range map[string]func(t *testing.T, path string, r *recorded){
		"files of a batch": func(t *testing.T, path string, r *recorded) {
			s := recordedBy(t, r, path, Roll{})
			b := newBatch(numbered("a", 12)...)
			b.Size = 5 // three files
			mustWrite(t, s, b)
			mustWrite(t, s, newBatch(numbered("b", 5)...))
		},
		"full": func(t *testing.T, path string, r *recorded) {
			s := recordedBy(t, r, path, Roll{Bytes: 1})
			mustWrite(t, s, newBatch(numbered("a", 5)...))
			mustWrite(t, s, newBatch(numbered("b", 6)...))
		},
		"flushed": func(t *testing.T, path string, r *recorded) {
			s := recordedBy(t, r, path, neverFull)
			mustWrite(t, s, newBatch(numbered("a", 5)...))
			mustWrite(t, s, newBatch(numbered("b", 6)...))
			must(t, s.Flush(t.Context()))
		},
		"closed": func(t *testing.T, path string, r *recorded) {
			s := recordedBy(t, r, path, neverFull)
			mustWrite(t, s, newBatch(numbered("a", 5)...))
			must(t, s.Close())
		},
		"left by a crash": func(t *testing.T, path string, r *recorded) {
			fill(t, path, map[string]string{".0-1_01JD8Y6G5V3X9Q2R7T4B1C0D5E.rolling": string(content(takenLines)) + "{"})
			recordedBy(t, r, path, Roll{})
			r.record()
		},
		"left by a crash, and put back": func(t *testing.T, path string, r *recorded) {
			fill(t, path, kindsOfTake[3].files)
			r.cursor = noULID
			recordedBy(t, r, path, Roll{})
			r.record()
		},
		"lost with the folder": func(t *testing.T, path string, r *recorded) {
			d := openTestDir(t, path)
			d.roll, d.Recorder = neverFull, r
			s := takeShard(t, d)
			mustWrite(t, s, newBatch(numbered("a", 5)...))
			must(t, os.RemoveAll(filepath.Join(path, "shard-0")))
			if err := s.Close(); err == nil {
				t.Error("closed a folder that is gone")
			}
			takeShard(t, d)
			r.record()
		},
		"written anew": func(t *testing.T, path string, r *recorded) {
			s := recordedBy(t, r, path, neverFull)
			mustWrite(t, s, newBatch(numbered("a", 5)...))
			must(t, os.Remove(hiddenFile(t, path)))
			must(t, s.Roll(t.Context()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path, r := memoryDir(t), newRecorded(t)
			do(t, path, r)
			if r.checkRows(path); len(r.all()) == 0 {
				t.Error("nothing is recorded")
			}
		})
	}
}

// TestNextOwnerLooks: what an owner has not recorded the next one finds behind the cursor,
// but not what was there before anything was recorded.
func TestNextOwnerLooks(t *testing.T) {
	eachRoll(t, func(t *testing.T, roll Roll) {
		path := memoryDir(t)
		s := rollingShard(t, path, roll)
		before := filepath.Base(mustWrite(t, s, newBatch(numbered("a", 5)...)))
		must(t, s.Close())

		r := newRecorded(t)
		s = recordedBy(t, r, path, roll)
		r.record() // the cursor
		r.away = true
		for i := range 10 {
			mustWrite(t, s, newBatch(numbered(fmt.Sprint(i), 5)...))
		}
		must(t, s.Flush(t.Context()))
		if n, oldest := r.files.Waiting(); n == 0 || time.Since(oldest) > time.Hour {
			t.Errorf("%d files wait, the oldest is of %v", n, oldest)
		}
		must(t, s.Close())
		if n := len(r.all()); n > 0 {
			t.Fatalf("%d files are recorded by no one", n)
		}
		r.away = false
		_ = recordedBy(t, r, path, roll)
		r.record()
		must(t, os.Remove(filepath.Join(path, "shard-0", before)))
		r.checkRows(path)
		if n, oldest := r.files.Waiting(); n > 0 || !oldest.IsZero() {
			t.Errorf("%d files wait, the oldest is of %v", n, oldest)
		}
	})
}

// TestCursorWaits: the cursor stays below a file that may become visible later. A file of
// a write that hangs is recorded when it is published.
func TestCursorWaits(t *testing.T) {
	for _, call := range []string{"write", "link", "folder fsync"} {
		for _, v := range []verdict{pass, fail} {
			t.Run(call+"/"+v.String(), func(t *testing.T) {
				path, s, r := recordedShard(t, Roll{})
				r.lazy = true
				h := holdUp(t, s, call, v, numbered("slow", 5)...)
				later := make([]<-chan error, 3)
				for i := range later {
					later[i] = startWrite(t.Context(), s, newBatch(numbered(fmt.Sprint(i), 5)...))
				}
				if call != "folder fsync" { // which they share
					for _, w := range later {
						must(t, <-w)
					}
				}
				r.record()
				if n := len(r.rows); call != "folder fsync" && n != len(later) || len(r.over) > 0 {
					t.Errorf("%d files are recorded behind the cursor, %d up to it", n, len(r.over))
				}
				h.resume()
				if err := <-h.result; (err != nil) != (v == fail) {
					t.Errorf("the write that was held up: %v", err)
				}
				if call == "folder fsync" {
					for _, w := range later {
						<-w // it may have shared the failure
					}
				}
				r.record()
				mustWrite(t, s, newBatch(numbered("last", 5)...))
				r.record()
				r.checkRows(path)
				if len(r.rows) > 0 {
					t.Errorf("the cursor %s stays below %v", r.cursor, r.rows)
				}
			})
		}
	}
}

// TestStillVisibleIsNotPassed: the cursor stays below a file of a failed write that could
// not be removed. If the shard is closed before, the next owner records it.
func TestStillVisibleIsNotPassed(t *testing.T) {
	path, s, r := recordedShard(t, Roll{})
	f := newFaulty(t, s, at(-1, pass), unix.EIO)
	f.plan = func(_ int, call string) verdict {
		if call == "folder fsync" || call == "remove" && len(f.calls) > 8 {
			return fail
		}
		return pass
	}
	writeFails(t, s, newBatch(numbered("a", 5)...), ErrStillVisible)
	writeFails(t, s, newBatch(numbered("b", 5)...), ErrStillVisible)
	_ = s.Close()
	if len(r.all()) > 0 {
		t.Errorf("recorded %v", r.all())
	}
	f.plan = at(-1, pass)
	r.check(path)
	if len(r.all()) != 1 {
		t.Errorf("recorded %v, want the file that stays visible", r.all())
	}
}

// TestTooManyWait: what does not fit in memory is found in the folder, in portions.
func TestTooManyWait(t *testing.T) {
	path, s, r := recordedShard(t, Roll{})
	r.record()
	r.away, r.limit = true, 1000
	lines := numbered(message.NewID(), maxWaiting+10)
	for chunk := range slices.Chunk(lines, 500) {
		b := newBatch(chunk...)
		b.Size = 1
		mustWrite(t, s, b)
	}
	if n, oldest := r.files.Waiting(); n != len(lines) || len(s.dir.publications.waiting) > 0 || oldest.IsZero() {
		t.Errorf("%d files wait, %d in memory, the oldest is of %v", n, len(s.dir.publications.waiting), oldest)
	}
	r.away = false
	s.dir.publications.startList()
	s.dir.publications.list.limit = 900
	mustWrite(t, s, newBatch(`{"message_id":"z"}`))
	r.checkRows(path)
	if n, _ := r.files.Waiting(); n > 0 || len(r.rows) > 0 {
		t.Errorf("%d files wait, and the cursor is below %d", n, len(r.rows))
	}
}

// TestRemovedBeforeRecorded: a file that a reader has taken away holds up nothing.
func TestRemovedBeforeRecorded(t *testing.T) {
	path, s, r := recordedShard(t, Roll{})
	r.record()
	r.away = true
	gone := mustWrite(t, s, newBatch(numbered("a", 5)...))
	mustWrite(t, s, newBatch(numbered("b", 5)...))
	must(t, s.Close())
	must(t, os.Remove(filepath.Join(path, gone)))
	r.away = false
	r.check(path)
}

// TestUnreadableIsTriedAgain: files of an earlier owner are recorded when the folder and
// they can be read, and those behind them after them.
func TestUnreadableIsTriedAgain(t *testing.T) {
	for _, call := range []string{"names", "read"} {
		t.Run(call, func(t *testing.T) {
			path, s, r := recordedShard(t, Roll{})
			r.record()
			r.away = true
			mustWrite(t, s, newBatch(numbered("a", 5)...))
			mustWrite(t, s, newBatch(numbered("b", 5)...))
			must(t, s.Close())
			r.away, r.lazy = false, true
			s = recordedBy(t, r, path, Roll{})
			f := newFaulty(t, s, func(_ int, c string) verdict {
				if c == call {
					return fail
				}
				return pass
			}, unix.EIO)
			r.files.Begin(r.cursor)
			r.begun = true
			for range 2 {
				if part, err := r.files.Next(3); part != nil || !errors.Is(err, unix.EIO) {
					t.Errorf("got %v, %v", part, err)
				}
			}
			f.plan = at(-1, pass)
			r.record()
			r.checkRows(path)
		})
	}
}

// TestCursorIsAhead: a clock that is behind, when the newest files are gone, makes no name
// that the cursor has passed.
func TestCursorIsAhead(t *testing.T) {
	path, s, r := recordedShard(t, Roll{})
	s.dir.now = func() time.Time { return time.Now().Add(time.Hour) }
	r.record()
	name := mustWrite(t, s, newBatch(numbered("a", 5)...))
	must(t, s.Close())
	must(t, os.Remove(filepath.Join(path, name)))
	delete(r.over, name)

	s = recordedBy(t, r, path, Roll{})
	r.record()
	r.away = true
	mustWrite(t, s, newBatch(numbered("b", 5)...))
	must(t, s.Close())
	r.away = false
	r.check(path)
}

// TestRemovalIsNotPassed: the cursor stays below a file of a failed write until its removal
// is durable, as a loss of power may bring it back.
func TestRemovalIsNotPassed(t *testing.T) {
	path, s, r := recordedShard(t, Roll{})
	h := holdUp(t, s, "remove", fail, numbered("a", 5)...)
	mustWrite(t, s, newBatch(numbered("b", 5)...))
	h.resume()
	if err := <-h.result; !errors.Is(err, unix.EIO) {
		t.Errorf("the write that was held up: %v", err)
	}
	if p := s.dir.publications; len(p.pending) != 1 || len(r.rows) != 1 {
		t.Errorf("pending %v, recorded behind the cursor %v; want one of each", p.pending, r.rows)
	}
	mustWrite(t, s, newBatch(numbered("c", 5)...))
	if p := s.dir.publications; len(p.pending) > 0 || len(r.rows) > 0 {
		t.Errorf("pending %v, recorded behind the cursor %v; want none", p.pending, r.rows)
	}
	r.checkRows(path)
}
