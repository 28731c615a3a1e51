package output

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"async-data-processor/output/committed"
)

// maxWaiting bounds how many published files of a shard wait in memory to be recorded.
// With more, the folder is listed: it knows them all.
const maxWaiting = 4096

// Published is a file that has its visible name, durably.
type Published struct {
	// File is its path in the output folder: shard-3/3-1_01J….ndjson.
	File  string
	Lines int
	Bytes int64
}

// ULID is that in the file's name. Files of a shard sort by it, whatever their workers.
func (p Published) ULID() string { return ulidOf(p.File) }

// Recorder records the published files of shards.
type Recorder interface {
	// Opened is given the files of a shard that this process owns from now on.
	Opened(p *Publications)
	// Published tells that a shard has something new. It is called concurrently, and must
	// not block.
	Published()
}

// Part is what is to be recorded next of a shard: files in the order of their ULIDs, and
// the cursor, to be stored together.
//
// The cursor is a ULID. Each visible file up to it is recorded by then, and no file up to
// it becomes visible later. The next owner records what is behind it. So a file behind it
// may be recorded again, and the cursor may lag.
type Part struct {
	Files  []Published
	Cursor string
	// CaughtUp tells that what earlier owners have left is recorded after this part.
	CaughtUp bool
}

// Publications is the published files of a shard that are not recorded yet. Begin, Next
// and Recorded have one caller at a time.
//
//	  begin          published, settled                Next         Recorded
//	stem ──▶ pending ──────────────────▶ waiting ────────────▶ part ───────▶ recorded
//	            │ settled                   │ too many            ▲
//	            ▼                           ▼                     │ listed behind the cursor
//	         no file                     the folder ──────────────┘
//
// A stem is pending as long as its file may become visible, or may become so again. The
// cursor stays below it, and below each file that is not recorded.
type Publications struct {
	dir      *shardDir
	shard    int
	recorder Recorder
	// before is the newest file when the shard was opened, without those that it has
	// published then. Set by Dir.Shard, read-only after.
	before string

	mu      sync.Mutex // guards what follows
	pending []stem     // ascending
	waiting []Published
	dropped string // the lowest of those that waiting had no room for, empty for none
	lost    int    // how many there were
	behind  int    // how many were listed or taken, and are not recorded
	oldest  string // the lowest of the taken; empty if none are
	closed  bool

	// Only used by the reader.
	cursor string
	high   string // the highest of the recorded; the cursor at least
	list   *list  // nil if nothing is to be listed
	// taken is what the next part is made of, nil for none. part is not recorded yet.
	taken []Published
	done  bool // the list ends with what was taken
	part  *Part
}

// stem is that of a file that may become visible.
type stem struct {
	ulid string
	told bool // it was published
}

func newPublications(d *shardDir, shard int, r Recorder) *Publications {
	return &Publications{dir: d, shard: shard, recorder: r, before: noULID}
}

// Shard is the number of the shard.
func (p *Publications) Shard() int { return p.shard }

// begin returns a new stem, which is pending.
func (p *Publications) begin(worker string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := p.dir.newStem(worker)
	p.pending = append(p.pending, stem{ulid: text[len(text)-ulidLen:]})
	return text
}

// published tells that a file has its visible name, durably; lines is 0 if that is not
// known. It is called before settled.
func (d *shardDir) published(final string, lines int, bytes int64) {
	p := d.publications
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	ulid := ulidOf(final)
	if i := p.find(ulid); i >= 0 {
		p.pending[i].told = true
	}
	if p.dropped == "" && len(p.waiting) < maxWaiting {
		p.waiting = append(p.waiting, Published{path.Join(d.name, final), lines, bytes})
		return
	}
	p.drop(ulid)
}

// drop leaves it to the folder to know a file, and all that wait. mu is held.
func (p *Publications) drop(ulid string) {
	for _, f := range p.waiting {
		ulid = min(ulid, f.ULID())
	}
	p.lost += len(p.waiting) + 1
	p.waiting = nil
	if p.dropped == "" || ulid < p.dropped {
		p.dropped = ulid
	}
}

// settled tells that the file of the visible name is published durably, or can never
// become visible.
func (d *shardDir) settled(final string) {
	p := d.publications
	if p == nil {
		return
	}
	p.mu.Lock()
	if i := p.find(ulidOf(final)); i >= 0 {
		p.pending = slices.Delete(p.pending, i, i+1)
	}
	p.mu.Unlock()
	p.recorder.Published()
}

// find returns the index in pending, -1 if it is not there. mu is held.
func (p *Publications) find(ulid string) int {
	return slices.IndexFunc(p.pending, func(s stem) bool { return s.ulid == ulid })
}

// close ends the listing of the folder, which may be the next owner's.
func (p *Publications) close() {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.recorder.Published()
}

// Begin says where the recording begins: behind the cursor that was stored last. If that
// is empty, it begins with what is published since the shard was opened, and the first
// part has the cursor for that.
func (p *Publications) Begin(cursor string) {
	if cursor == "" {
		p.cursor, p.high = p.before, p.before
		p.part = &Part{Cursor: p.cursor, CaughtUp: true}
		return
	}
	if at, ok := committed.TimeOf(cursor); ok && !isFar(at, p.dir.now()) {
		p.dir.ids.Follow(at) // its file may be gone, and the clock may be behind
	}
	p.cursor = cursor
	p.startList()
}

// Next returns what to record next, at most limit files; nil if there is nothing. It
// returns the same part until Recorded is called. It reads files whose lines were not
// counted, and leaves out those that were taken away meanwhile.
//
// It fails with ErrClosed once the shard is closed, and only the next owner can know what
// else there is. After another error it may be called again.
func (p *Publications) Next(limit int) (*Part, error) {
	if p.part != nil {
		return p.part, nil
	}
	if p.taken == nil {
		if err := p.take(limit); err != nil || p.taken == nil {
			return nil, err
		}
	}
	files := make([]Published, 0, len(p.taken))
	var buffer []byte
	for i := range p.taken {
		f := &p.taken[i]
		if f.Lines == 0 {
			if buffer == nil {
				buffer = make([]byte, 64<<10)
			}
			err := p.dir.measure(f, buffer)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
		}
		files = append(files, *f)
	}
	p.part = &Part{Files: files, Cursor: p.reached(), CaughtUp: p.done}
	return p.part, nil
}

// take takes files of the list, or else of those that wait. Nothing is taken if there is
// nothing.
func (p *Publications) take(limit int) error {
	p.mu.Lock()
	lost := p.dropped != ""
	p.mu.Unlock()
	if lost && p.list == nil {
		p.startList()
	}
	if p.list != nil {
		files, left, done, err := p.list.next(limit)
		if err != nil {
			return err
		}
		p.hold(files, left)
		if p.done = done; done {
			p.list = nil
		}
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	slices.SortFunc(p.waiting, func(a, b Published) int { return strings.Compare(a.ULID(), b.ULID()) })
	n := min(limit, len(p.waiting))
	switch {
	case n > 0:
		p.taken, p.done = slices.Clone(p.waiting[:n]), false
		p.waiting = slices.Delete(p.waiting, 0, n)
		p.behind, p.oldest = n, p.taken[0].ULID()
	case p.closed:
		return ErrClosed
	}
	return nil
}

// hold takes files of the list, of which there are left more.
func (p *Publications) hold(files []Published, left int) {
	p.taken = files
	p.mu.Lock()
	defer p.mu.Unlock()
	p.behind, p.oldest = len(files)+left, ""
	if len(files) > 0 {
		p.oldest = files[0].ULID()
	}
}

// reached returns the cursor for when what was taken is recorded.
func (p *Publications) reached() string {
	bound := p.bound()
	reached := p.cursor
	for _, f := range p.taken {
		if u := f.ULID(); bound == "" || u < bound {
			reached = max(reached, u)
		}
	}
	if bound == "" || p.high < bound {
		reached = max(reached, p.high)
	}
	return reached
}

// bound returns the lowest of what is not known to be recorded with what was taken; empty
// if there is nothing.
func (p *Publications) bound() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	bound := p.dropped
	lower := func(ulid string) {
		if bound == "" || ulid < bound {
			bound = ulid
		}
	}
	if len(p.pending) > 0 {
		lower(p.pending[0].ulid)
	}
	for _, f := range p.waiting {
		lower(f.ULID())
	}
	return bound
}

// Recorded tells that the part that Next has returned is stored.
func (p *Publications) Recorded() {
	for _, f := range p.taken {
		p.high = max(p.high, f.ULID())
	}
	p.cursor = p.part.Cursor
	p.part = nil
	p.mu.Lock()
	defer p.mu.Unlock()
	p.behind, p.oldest = p.behind-len(p.taken), ""
	p.taken = nil
}

// Waiting returns how many published files are not recorded, as far as that is known, and
// when the oldest of them was begun; zero if there is none. It may be called concurrently.
func (p *Publications) Waiting() (files int, oldest time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := p.oldest
	if first == "" || p.dropped != "" && p.dropped < first {
		first = p.dropped
	}
	for _, f := range p.waiting {
		if u := f.ULID(); first == "" || u < first {
			first = u
		}
	}
	oldest, _ = committed.TimeOf(first)
	return len(p.waiting) + p.lost + p.behind, oldest
}
