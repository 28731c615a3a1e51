package output

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"async-data-processor/output/committed"
)

// newest collects the newest of our files. Every file has a message, so no more
// of them than the window has ids are ever needed, and it keeps at most a
// quarter more: 32 bytes each, however many the folder has.
//
// A name tells when a file was begun. Until when its messages were committed the
// name of the next one tells, as a rolling file is published before another is
// begun. So the newest of those that are too old still matters.
type newest struct {
	limit int
	age   time.Duration // of what matters, compared with the newest
	now   time.Time

	// last is of the newest, but for those of a clock that was ahead: they always
	// matter, and must not make others look old.
	last    time.Time
	files   []found
	old     found             // the newest of those that are too old
	workers []string          // whose files they are
	indexes map[string]uint32 // of workers

	foreign int
	example string // of the foreign
}

// found is the name of a file.
type found struct {
	ulid   [ulidLen]byte
	worker uint32 // index of workers
}

// ulidLen is the length of a ULID, which sorts by time.
const ulidLen = 26

// at is when the writing of the file began.
func (f *found) at() time.Time {
	at, _ := committed.TimeOf(string(f.ulid[:])) // it is one, or it was not added
	return at
}

// until is when the last message of files[i] counts as committed: when the next
// file was begun. Where files roll that is the latest it can have been; others are
// written side by side, and one may have been published a little later.
func (n *newest) until(i int) time.Time {
	if i == 0 {
		return n.now
	}
	return n.now.Add(-max(0, n.last.Sub(n.files[i-1].at())))
}

func (n *newest) name(f found) string {
	return n.workers[f.worker] + "_" + string(f.ulid[:]) + visibleSuffix
}

// add takes the name of a visible file.
func (n *newest) add(name string) {
	stem := strings.TrimSuffix(name, visibleSuffix)
	ulid := stem[max(0, len(stem)-ulidLen):]
	worker, named := strings.CutSuffix(strings.TrimSuffix(stem, ulid), "_")
	at, timed := committed.TimeOf(ulid)
	if !named || !timed || !workerName.MatchString(worker) {
		n.foreign, n.example = n.foreign+1, name
		return
	}
	f := found{[ulidLen]byte([]byte(ulid)), n.index(worker)}
	if n.last.Sub(at) > n.age {
		n.outdate(f)
		return
	}
	if at.After(n.last) && !at.After(n.now) {
		n.last = at
	}
	n.files = append(n.files, f)
	if len(n.files) > n.limit+n.limit/4 {
		n.cut()
	}
}

func (n *newest) index(worker string) uint32 {
	i, ok := n.indexes[worker]
	if !ok {
		if n.indexes == nil {
			n.indexes = make(map[string]uint32)
		}
		i = uint32(len(n.workers))
		worker = strings.Clone(worker) // not the whole name
		n.workers, n.indexes[worker] = append(n.workers, worker), i
	}
	return i
}

// outdate takes a file that is too old.
func (n *newest) outdate(f found) {
	if bytes.Compare(f.ulid[:], n.old.ulid[:]) > 0 {
		n.old = f
	}
}

// finish is the last cut: behind it nothing is added.
func (n *newest) finish() {
	n.cut()
	if n.old != (found{}) && len(n.files) < n.limit {
		n.files = append(n.files, n.old)
	}
}

// cut sorts the files, the newest first, and forgets those beyond the limits.
func (n *newest) cut() {
	n.files = slices.DeleteFunc(n.files, func(f found) bool {
		old := n.last.Sub(f.at()) > n.age
		if old {
			n.outdate(f)
		}
		return old
	})
	slices.SortFunc(n.files, func(a, b found) int { return bytes.Compare(b.ulid[:], a.ulid[:]) })
	n.files = n.files[:min(len(n.files), n.limit)]
}
