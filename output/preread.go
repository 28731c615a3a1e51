package output

import (
	"bufio"
	"context"
	"maps"
	"os"
	"time"

	"async-data-processor/output/committed"
)

const (
	// rereadMin and rereadMax bound the pause between two looks of a standby for new
	// files. rereadShare is the pause in relation to what the last look took: a
	// standby of a busy shard uses two percent of a core, of an idle one next to nothing.
	rereadMin   = 3 * time.Second
	rereadMax   = 30 * time.Second
	rereadShare = 50
	// prereadPatience is how long the first look may take before the process tells that
	// it stands by. Its owner keeps the shard until then, and goes on writing.
	prereadPatience = 10 * time.Second
)

// preread is the ids in a shard's visible files, read while another process owns the
// folder. Its owner may still remove or replace a file, so what was read of it counts
// only if the next owner finds the same file. One goroutine uses it.
//
// It keeps at most twice the ids of the window: 32 bytes for each 64 ids of a submission
// that stand side by side, and for each other id.
type preread struct {
	dir    *Dir
	name   string
	window *committed.Window

	// root is open for as long as anything of it is kept. So no other folder can get its
	// inode number.
	root    *os.Root
	folder  folder // the same, without a lock
	files   map[string]readFile
	look    uint64    // the number of the look
	changed time.Time // when the folder's names were changed, at the last look

	// The look that goes on.
	todo *newest // nil if none does
	next int     // of todo.files
	ids  int     // in the files before that
	took time.Duration
	due  time.Time // the next look
}

// readFile is what was read of a file.
type readFile struct {
	status
	ids   []committed.Packed
	count int
	whole bool
	look  uint64 // that has seen it last
}

// step reads files until a time. It returns whether more are to be read now. What cannot
// be read is left to the owner, who fails.
func (p *preread) step(ctx context.Context, until time.Time) (more bool) {
	began := time.Now()
	if p.todo == nil {
		if began.Before(p.due) {
			return false
		}
		p.took = 0
		p.list()
	}
	if p.todo != nil {
		more = p.read(ctx, until)
	}
	p.took += time.Since(began)
	if !more {
		p.todo = nil
		p.due = time.Now().Add(min(max(rereadMin, rereadShare*p.took), rereadMax))
	}
	return more
}

// list begins a look, if names have changed since the last one.
func (p *preread) list() {
	if !p.open() {
		return
	}
	info, err := p.root.Stat(".")
	if err != nil || info.ModTime().Equal(p.changed) {
		return
	}
	files := &newest{limit: p.dir.window.IDs, now: p.dir.now()}
	err = p.folder.names(func(name string) {
		if kind, _ := splitName(name); kind == Visible {
			files.add(name)
		}
	})
	if err != nil {
		return
	}
	files.cut()
	p.todo, p.next, p.ids, p.changed = files, 0, 0, info.ModTime()
	p.look++
}

// open opens the folder. It forgets what was read of another one.
func (p *preread) open() bool {
	found, err := p.dir.root.Stat(p.name)
	if err != nil {
		return false
	}
	if p.root != nil {
		if ours, err := p.root.Stat("."); err == nil && os.SameFile(ours, found) {
			return true
		}
		p.close()
	}
	root, err := p.dir.root.OpenRoot(p.name)
	if err != nil {
		return false
	}
	dir, err := root.Open(".")
	if err != nil {
		_ = root.Close() // nothing was written
		return false
	}
	p.root, p.folder, p.files = root, &disk{root: root, dir: dir}, make(map[string]readFile)
	return true
}

// read goes on with a look. It returns false when that is over.
func (p *preread) read(ctx context.Context, until time.Time) (more bool) {
	in := bufio.NewReaderSize(nil, 64<<10)
	var keys []committed.Key
	for ; p.next < len(p.todo.files); p.next++ {
		if ctx.Err() != nil || !time.Now().Before(until) {
			return true
		}
		if p.window.Full(p.ids, p.todo.ago(p.next)) {
			break
		}
		name := p.todo.name(p.todo.files[p.next])
		f, known := p.files[name]
		if !known {
			var ok bool
			if f, keys, ok = p.readFile(name, in, keys); !ok {
				continue
			}
		}
		f.look = p.look
		p.files[name] = f
		p.ids += f.count
	}
	maps.DeleteFunc(p.files, func(_ string, f readFile) bool { return f.look != p.look })
	return false
}

// readFile reads a file. It uses the slice.
func (p *preread) readFile(name string, in *bufio.Reader, keys []committed.Key) (f readFile, _ []committed.Key, ok bool) {
	var err error
	if f.status, err = p.folder.stat(name); err != nil {
		return f, keys, false
	}
	if keys, f.whole, err = readIDs(p.folder, name, in, keys[:0], p.dir.window.IDs); err != nil {
		return f, keys, false
	}
	last := keys[max(0, len(keys)-p.dir.window.IDs):]
	f.ids, f.count = committed.Pack(last), len(last)
	return f, keys, true
}

// match forgets everything unless f, whose lock this process has by now, is the folder
// that was read.
func (p *preread) match(f folder) {
	if p == nil || p.root == nil {
		return
	}
	ours, err := p.folder.stat(".")
	if err == nil {
		var found status
		if found, err = f.stat("."); err == nil && found.inode == ours.inode {
			return
		}
	}
	p.files = nil
}

// find returns what was read of the file that has the name in f.
func (p *preread) find(f folder, name string) (readFile, bool) {
	if p == nil {
		return readFile{}, false
	}
	r, ok := p.files[name]
	if !ok {
		return readFile{}, false
	}
	found, err := f.stat(name)
	return r, err == nil && found == r.status
}

// close forgets everything.
func (p *preread) close() {
	if p == nil || p.root == nil {
		return
	}
	_ = p.folder.close() // only read from
	p.root, p.folder, p.files, p.todo, p.changed = nil, nil, nil, nil, time.Time{}
}
