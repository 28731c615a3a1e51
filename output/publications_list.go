package output

import (
	"bytes"
	"errors"
	"io"
	"path"
	"slices"
)

// listFiles bounds how many names a list keeps, 32 bytes each. The whole folder is listed
// for each so many files.
const listFiles = 50_000

// list is a look for the visible files behind a cursor, in the order of their ULIDs. It
// leaves out what was pending when it began, and what was begun later: that is told.
type list struct {
	dir          *shardDir
	after, until string
	without      []string
	limit        int

	found   []found // that were not returned, ascending
	workers workers
	most    string // of those that matter to the look that goes on
	last    bool   // there are no more
}

// startList begins a list behind the cursor. It knows all that waits in memory, but for
// what is up to the cursor: another program has put that back.
func (p *Publications) startList() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = &list{dir: p.dir, after: p.cursor, until: p.dir.ids.Next(p.dir.now()), limit: listFiles}
	for _, s := range p.pending {
		if !s.told {
			p.list.without = append(p.list.without, s.ulid)
		}
	}
	p.waiting = slices.DeleteFunc(p.waiting, func(f Published) bool { return f.ULID() > p.cursor })
	p.high, p.dropped, p.lost = p.cursor, "", 0
}

// next returns the next files, at most limit, and how many more it knows of. done tells
// that these are the last.
func (l *list) next(limit int) (files []Published, left int, done bool, err error) {
	if len(l.found) == 0 && !l.last {
		if err := l.read(); err != nil {
			return nil, 0, false, err
		}
	}
	n := min(limit, len(l.found))
	files = make([]Published, n)
	for i, f := range l.found[:n] {
		files[i].File = path.Join(l.dir.name, l.workers.name(f))
	}
	l.found = l.found[n:]
	return files, len(l.found), l.last && len(l.found) == 0, nil
}

// read lists the folder.
func (l *list) read() error {
	if err := l.dir.enter(func() error { return nil }); err != nil {
		return err
	}
	defer l.dir.leave() // only names were read
	l.found, l.workers, l.most, l.last = nil, workers{}, l.until, true
	err := l.dir.names(func(name string) {
		kind, stem := splitName(name)
		worker, ulid, _, ok := splitStem(stem)
		if kind != Visible || !ok || ulid <= l.after || ulid >= l.most || slices.Contains(l.without, ulid) {
			return
		}
		l.found = append(l.found, found{[ulidLen]byte([]byte(ulid)), l.workers.index(worker)})
		if len(l.found) > l.limit+l.limit/4 {
			l.cut()
		}
	})
	if err != nil {
		l.found, l.last = nil, false // the next look begins anew
		return l.dir.failed("list", "", err)
	}
	if l.dir.isClosed() { // then the next owner may have published some of it, not durably
		return ErrClosed
	}
	l.cut()
	if len(l.found) > 0 {
		l.after = string(l.found[len(l.found)-1].ulid[:])
	}
	return nil
}

// cut sorts what was found, and leaves to the next look what is beyond the limit.
func (l *list) cut() {
	slices.SortFunc(l.found, func(a, b found) int { return bytes.Compare(a.ulid[:], b.ulid[:]) })
	if len(l.found) > l.limit {
		l.most = string(l.found[l.limit].ulid[:])
		l.found, l.last = l.found[:l.limit], false
	}
}

// measure counts a file's lines and bytes. It uses the buffer.
func (d *shardDir) measure(f *Published, buffer []byte) error {
	if err := d.enter(func() error { return nil }); err != nil {
		return err
	}
	defer d.leave() // a file was only read
	name := path.Base(f.File)
	in, err := d.read(name)
	if err != nil {
		return d.failed("open", name, err)
	}
	defer in.Close() // as above
	lines, size := 0, int64(0)
	for {
		n, err := in.Read(buffer)
		lines += bytes.Count(buffer[:n], []byte{'\n'})
		size += int64(n)
		if errors.Is(err, io.EOF) {
			f.Lines, f.Bytes = lines, size
			return nil
		}
		if err != nil {
			return d.failed("read", name, err)
		}
	}
}
