package output

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"async-data-processor/output/committed"
)

// newest collects the newest of our files. Every file has a message, so no more
// files than the window has ids are needed. It keeps at most a quarter more, 32
// bytes each, however many the folder has.
//
// Names sort in the order of writing. The name of a file tells when it was begun. The
// name of the next one tells when its last messages were committed at the latest: a
// rolling file is published before another is begun.
type newest struct {
	limit int
	now   time.Time

	// last is when the newest file was begun. Names from a clock that was ahead do
	// not count: they must not make others look old.
	last    time.Time
	highest time.Time // of all names
	files   []found
	lowest  [ulidLen]byte // of those that matter; zero for none yet
	workers workers

	foreign int
	example string // of the foreign
}

// workers is the names of the workers in names of files, each once.
type workers struct {
	names   []string
	indexes map[string]uint32 // of names
}

// found is the name of a file.
type found struct {
	ulid   [ulidLen]byte
	worker uint32 // its index
}

// at is when the writing of the file began.
func (f *found) at() time.Time {
	at, _ := committed.TimeOf(string(f.ulid[:])) // it is one, or it was not added
	return at
}

// ago is how long ago the last message of files[i] counts as committed: since the next
// file was begun. A rolling file cannot have a later message. Files of a batch are
// written side by side, so one may have been published a little later.
func (n *newest) ago(i int) time.Duration {
	if i == 0 {
		return 0
	}
	return max(0, n.last.Sub(n.files[i-1].at()))
}

func (n *newest) name(f found) string { return n.workers.name(f) }

func (w *workers) name(f found) string {
	return visibleName(w.names[f.worker] + "_" + string(f.ulid[:]))
}

// add takes the name of a visible file.
func (n *newest) add(name string) {
	_, stem := splitName(name)
	worker, ulid, at, ok := splitStem(stem)
	if !ok || isFar(at, n.now) {
		n.foreign, n.example = n.foreign+1, name
		return
	}
	n.reach(at)
	if at.After(n.last) && !at.After(n.now) {
		n.last = at
	}
	if ulid < string(n.lowest[:]) {
		return
	}
	n.files = append(n.files, found{[ulidLen]byte([]byte(ulid)), n.workers.index(worker)})
	if len(n.files) > n.limit+n.limit/4 {
		n.cut()
	}
}

// reach raises highest to the time, unless no name of ours was made then.
func (n *newest) reach(at time.Time) {
	if at.After(n.highest) && !isFar(at, n.now) {
		n.highest = at
	}
}

func (w *workers) index(worker string) uint32 {
	i, ok := w.indexes[worker]
	if !ok {
		if w.indexes == nil {
			w.indexes = make(map[string]uint32)
		}
		i = uint32(len(w.names))
		worker = strings.Clone(worker) // not the whole name
		w.names, w.indexes[worker] = append(w.names, worker), i
	}
	return i
}

// top is the ULID of the newest file, or noULID.
func (n *newest) top() string {
	top := noULID
	for _, f := range n.files {
		top = max(top, string(f.ulid[:]))
	}
	return top
}

// cut sorts the files, the newest first, and forgets those beyond the limit.
func (n *newest) cut() {
	slices.SortFunc(n.files, func(a, b found) int { return bytes.Compare(b.ulid[:], a.ulid[:]) })
	if len(n.files) >= n.limit {
		n.files = n.files[:n.limit]
		n.lowest = n.files[n.limit-1].ulid
	}
}
