package output

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// manyFiles makes files of three messages each, in the order of their numbers.
func manyFiles(t *testing.T, path string, n int) (names []string) {
	t.Helper()
	files := make(map[string]string)
	for i := range n {
		name := nameAt(time.Now().Add(time.Duration(i-n)*time.Second), i)
		files[name] = string(content(numbered(fmt.Sprint("old ", i), 3)))
		names = append(names, name)
	}
	fill(t, path, files)
	return names
}

// successor waits for shard 0 of path, which has another owner.
type successor struct {
	read  []string // the files that it has read under the lock; read after taken
	taken chan *Shard
}

// standBy returns once the successor has said that it stands by.
func standBy(t *testing.T, path string) *successor {
	t.Helper()
	return standByIn(t, openTestDir(t, path))
}

func standByIn(t *testing.T, d *Dir) *successor {
	t.Helper()
	s := &successor{taken: make(chan *Shard)}
	d.wrap = func(f folder) folder {
		return hooked{f, func(step, name string, _ []byte) error {
			if step == "open" {
				s.read = append(s.read, name)
			}
			return nil
		}}
	}
	standing := make(chan struct{})
	go func() {
		defer close(s.taken)
		shard, err := d.Shard(t.Context(), 0, func() { close(standing) })
		if err != nil {
			t.Error(err)
			return
		}
		s.taken <- shard
	}()
	<-standing
	return s
}

func (s *successor) take(t *testing.T) *Shard {
	t.Helper()
	shard := <-s.taken
	if shard == nil {
		t.FailNow()
	}
	t.Cleanup(func() { must(t, shard.Close()) })
	return shard
}

// TestReadBeforehand: under the lock a successor reads the files that have come, and those
// that are others than it has read before.
func TestReadBeforehand(t *testing.T) {
	path := t.TempDir()
	owner := openShard(t, path)
	names := manyFiles(t, path, 50)
	next := standBy(t, path)
	first := mustWrite(t, owner, newBatch(numbered("first", 5)...))
	folder := filepath.Join(path, "shard-0")
	must(t, os.Remove(filepath.Join(folder, names[7])))
	replaced := filepath.Join(folder, names[9])
	must(t, os.Rename(replaced, filepath.Join(t.TempDir(), "elsewhere"))) // its inode is in use
	must(t, os.WriteFile(replaced, content(numbered("new 9", 3)), 0o644))
	last := mustWrite(t, owner, newBatch(numbered("last", 5)...))
	must(t, owner.Close())

	s := next.take(t)
	if want := []string{filepath.Base(last), filepath.Base(first), names[9]}; !slices.Equal(next.read, want) {
		t.Errorf("read %q under the lock, want %q", next.read, want)
	}
	if r := s.Rebuilt(); r.Files != 51 || r.Beforehand != 48 || r.IDs != 49*3+2*5 || r.Damaged != 0 {
		t.Errorf("rebuilt %+v", r)
	}
	for i := range names {
		switch i {
		case 7:
			write(t, s, 3, numbered("old 7", 3)...) // its owner may have taken it back
		case 9:
			write(t, s, 3, numbered("old 9", 3)...)
			write(t, s, 0, numbered("new 9", 3)...)
		default:
			write(t, s, 0, numbered(fmt.Sprint("old ", i), 3)...)
		}
	}
	write(t, s, 0, slices.Concat(numbered("first", 5), numbered("last", 5))...)
}

// TestReadBeforehandElsewhere: what was read of a folder is not known of the one that has
// its name now, even if the same files are in both.
func TestReadBeforehandElsewhere(t *testing.T) {
	path := t.TempDir()
	owner := openShard(t, path)
	names := manyFiles(t, path, 5)
	next := standBy(t, path)
	folder, made := filepath.Join(path, "shard-0"), filepath.Join(t.TempDir(), "made")
	must(t, os.Mkdir(made, 0o755))
	for _, name := range names[:3] {
		must(t, os.Link(filepath.Join(folder, name), filepath.Join(made, name)))
	}
	must(t, os.Rename(folder, filepath.Join(path, "away")))
	must(t, os.Rename(made, folder))

	s := next.take(t)
	if want := []string{names[2], names[1], names[0]}; !slices.Equal(next.read, want) {
		t.Errorf("read %q under the lock, want %q", next.read, want)
	}
	if r := s.Rebuilt(); r.Files != 3 || r.Beforehand != 0 || r.IDs != 9 {
		t.Errorf("rebuilt %+v", r)
	}
	write(t, s, 3, numbered("old 4", 3)...)
	writeFails(t, owner, newBatch("{}"), ErrLost)
}

func newPreread(t *testing.T, path string, ids int) *preread {
	t.Helper()
	d := openTestDir(t, path)
	d.window.IDs = ids
	p := &preread{dir: d, name: "shard-0", window: d.legacy("shard-0").window}
	t.Cleanup(p.close)
	return p
}

// TestUnreadableBeforehand: a file that cannot be read is left to the owner.
func TestUnreadableBeforehand(t *testing.T) {
	path := t.TempDir()
	names := manyFiles(t, path, 3)
	p := newPreread(t, path, 100)
	for _, step := range []string{"open", "read"} {
		if !p.open() {
			t.Fatal("the folder cannot be opened")
		}
		p.folder = hooked{p.folder, func(is, name string, _ []byte) error {
			if is == step && name == names[1] {
				return errors.New("input/output error")
			}
			return nil
		}}
		if p.step(t.Context(), time.Now().Add(time.Minute)) {
			t.Error("there is more to read")
		}
		if _, ok := p.find(p.folder, names[1]); ok || len(p.files) != 2 {
			t.Errorf("%s: %d files are known", step, len(p.files))
		}
		p.close()
		p.due = time.Time{}
	}
}

// TestStandbyIsCheap: a standby keeps no more than the window needs, looks for new files
// now and then, and reads no file twice. In a folder that does not change it reads nothing.
func TestStandbyIsCheap(t *testing.T) {
	path := t.TempDir()
	manyFiles(t, path, 100)
	synctest.Test(t, func(t *testing.T) {
		p := newPreread(t, path, 10)
		read := 0
		if !p.open() {
			t.Fatal("the folder cannot be opened")
		}
		p.folder = hooked{p.folder, func(step, _ string, _ []byte) error {
			if step == "open" {
				read++
			}
			return nil
		}}
		steps := func(each func(n int)) {
			for n := range 300 { // a minute
				each(n)
				if p.step(t.Context(), time.Now().Add(standbyInterval)) {
					t.Error("there is more to read")
				}
				time.Sleep(standbyInterval)
			}
		}
		steps(func(int) {})
		if read != 4 || len(p.files) != 4 || p.look != 1 {
			t.Errorf("%d files read, %d known in %d looks", read, len(p.files), p.look)
		}
		read = 0
		steps(func(n int) {
			fill(t, path, map[string]string{nameAt(time.Now().Add(time.Hour), n): string(content(numbered(fmt.Sprint("new ", n), 3)))})
			if len(p.files) > 8 {
				t.Errorf("%d files are known", len(p.files))
			}
		})
		if most := uint64(1 + time.Minute/rereadMin); p.look > most+1 || p.look < 3 || read > int(most)*4 {
			t.Errorf("%d files read in %d looks", read, p.look)
		}
	})
}

// TestStepsOfALook: a look stops in time for the next try to get the lock, and goes on
// where it was.
func TestStepsOfALook(t *testing.T) {
	path := t.TempDir()
	names := manyFiles(t, path, 5)
	slices.Reverse(names)
	synctest.Test(t, func(t *testing.T) {
		p := newPreread(t, path, 100)
		var opened []string
		if !p.open() {
			t.Fatal("the folder cannot be opened")
		}
		p.folder = hooked{p.folder, func(step, name string, _ []byte) error {
			if step == "open" {
				opened = append(opened, name)
				time.Sleep(standbyInterval)
			}
			return nil
		}}
		for n := range names {
			if more := p.step(t.Context(), time.Now().Add(standbyInterval)); !more && n < len(names)-1 {
				t.Errorf("it ends after %q", opened)
			}
			if !slices.Equal(opened, names[:n+1]) {
				t.Errorf("read %q, want %q", opened, names[:n+1])
			}
		}
		if p.step(t.Context(), time.Now().Add(standbyInterval)); len(opened) != 5 || len(p.files) != 5 {
			t.Errorf("read %q, %d files are known", opened, len(p.files))
		}
	})
}

// TestSought: an owner learns that another process waits, if that could write the shard.
func TestSought(t *testing.T) {
	path := t.TempDir()
	owner := openShard(t, path)
	for _, able := range []bool{false, true} {
		if owner.Sought() && !able {
			t.Error("the first call says that another process waits")
		}
		d := openTestDir(t, path)
		d.Seeks = func() bool { return able }
		next := standByIn(t, d)
		if owner.Sought() != able {
			t.Errorf("a standby that could write is %v, and is not seen so", able)
		}
		if owner.Sought() {
			t.Error("it is told twice")
		}
		if !able {
			must(t, owner.Close())
			owner = next.take(t)
			owner.Sought()
			continue
		}
		must(t, owner.Close())
		next.take(t)
	}
}
