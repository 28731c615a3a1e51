package output

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"time"

	"async-data-processor/message"
	"async-data-processor/output/committed"
)

// newest collects the names of the newest files. Every file has a message, so
// more files than the window has ids are never needed; it keeps up to twice as
// many names, however many the folder has.
type newest struct {
	limit int
	age   time.Duration // of what matters, compared with the newest
	now   time.Time

	// last is of the newest, but for those of a clock that was ahead: they always
	// matter, and must not make others look old.
	last    time.Time
	names   []string
	foreign int
	example string // of the foreign
}

func (n *newest) add(name string) {
	at, ok := timeOf(name)
	switch {
	case !ok:
		n.foreign, n.example = n.foreign+1, name
	case n.last.Sub(at) <= n.age:
		if at.After(n.last) && !at.After(n.now) {
			n.last = at
		}
		n.names = append(n.names, name)
		if len(n.names) >= 2*n.limit {
			n.cut()
		}
	}
}

// cut sorts the names, the newest first, and forgets those beyond the limits.
func (n *newest) cut() {
	n.names = slices.DeleteFunc(n.names, func(name string) bool {
		at, _ := timeOf(name)
		return n.last.Sub(at) > n.age
	})
	slices.SortFunc(n.names, func(a, b string) int { return strings.Compare(ulidOf(b), ulidOf(a)) })
	if len(n.names) > n.limit {
		clear(n.names[n.limit:])
		n.names = n.names[:n.limit]
	}
}

// ulidLen is the length of a ULID, which sorts by time.
const ulidLen = 26

// ulidOf returns what stands where a visible name of ours has its ULID.
func ulidOf(name string) string {
	stem := strings.TrimSuffix(name, visibleSuffix)
	return stem[max(0, len(stem)-ulidLen):]
}

// timeOf returns when the writing of a visible file began; ok is false if its
// name is not one of ours.
func timeOf(name string) (at time.Time, ok bool) {
	worker := strings.TrimSuffix(name, ulidOf(name)+visibleSuffix)
	if !strings.HasSuffix(worker, "_") || !workerName.MatchString(worker[:len(worker)-1]) {
		return time.Time{}, false
	}
	return committed.TimeOf(ulidOf(name))
}

// recall fills the window from the newest files, as many as it takes.
//
// A file that was taken away meanwhile is forgotten, as its messages will be. A
// damaged one is counted: somebody has changed it, what it lacks nobody can
// know, and a shard that stands still would mend nothing. But one that cannot
// be read fails the start, because that can be mended.
func (s *Shard) recall(ctx context.Context, files *newest) error {
	files.cut()
	s.recalled.Foreign, s.recalled.Example = files.foreign, files.example
	var failed error
	s.recalled.IDs = s.window.Load(s.committed(ctx, files, &failed))
	return failed
}

// committed yields the ids in each of the files, and when they count as
// committed; the slice is used again. It ends with the first error, which it
// leaves in failed.
func (s *Shard) committed(ctx context.Context, files *newest, failed *error) iter.Seq2[[]committed.Key, time.Time] {
	return func(yield func([]committed.Key, time.Time) bool) {
		in := bufio.NewReaderSize(nil, 64<<10)
		var keys []committed.Key
		for _, name := range files.names {
			if ctx.Err() != nil {
				*failed = fmt.Errorf("read the files of %s: %w", s.name, context.Cause(ctx))
				return
			}
			var whole bool
			var err error
			keys, whole, err = s.readIDs(name, in, keys[:0])
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				*failed = fmt.Errorf("learn which messages are written: %w; let it be read, or move it away and accept that its messages may come again",
					s.failed("read", name, err))
				return
			}
			s.recalled.Files++
			if !whole {
				s.recalled.Damaged++
				s.recalled.Example = name
			}
			at, _ := timeOf(name) // it was looked at when the name was found
			if !yield(keys, files.now.Add(-max(0, files.last.Sub(at)))) {
				return
			}
		}
	}
}

// readIDs appends the keys of a file's messages. whole is false if a line has
// no id, or if the last one is cut off; its message counts as not written.
func (s *Shard) readIDs(name string, in *bufio.Reader, keys []committed.Key) (_ []committed.Key, whole bool, err error) {
	f, err := s.folder.read(name)
	if err != nil {
		return keys, false, err
	}
	defer f.Close() // only read from: nothing of it can be lost
	in.Reset(f)
	for whole = true; ; {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return keys, whole && len(line) == 0 && len(keys) > 0, nil
		}
		// An id is short, so it is in the buffer even if its line is not.
		id := message.Message{Line: line}.RawID()
		if len(id) == 0 {
			whole = false
		}
		key := committed.KeyOf(id)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = in.ReadSlice('\n')
		}
		switch {
		case errors.Is(err, io.EOF):
			return keys, false, nil
		case err != nil:
			return keys, false, err
		case len(id) > 0:
			keys = append(keys, key)
		}
	}
}
