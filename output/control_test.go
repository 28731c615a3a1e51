package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func checkControl(t *testing.T, s *Shard, want []byte) {
	t.Helper()
	got, err := s.Control()
	if err != nil || !bytes.Equal(got, want) || (got == nil) != (want == nil) {
		t.Errorf("the control file is %q, %v; want %q", got, err, want)
	}
}

// TestControl: a control file is replaced as a whole, moves with the folder, and is
// neither a message nor swept.
func TestControl(t *testing.T) {
	path := t.TempDir()
	s := openShard(t, path)
	checkControl(t, s, nil)
	for _, c := range [][]byte{[]byte(`{"v":1}`), {}, bytes.Repeat([]byte("x"), MaxControl)} {
		must(t, s.SetControl(t.Context(), c))
		checkControl(t, s, c)
	}
	last := []byte(`{"v":1,"pause":{}}`)
	must(t, s.SetControl(t.Context(), last))
	if err := s.SetControl(t.Context(), make([]byte, MaxControl+1)); !errors.Is(err, ErrLarge) {
		t.Errorf("a control file that is too large: %v", err)
	}
	must(t, s.Held())
	must(t, s.Close())
	if err := s.SetControl(t.Context(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed shard takes a control file: %v", err)
	}
	must(t, os.Rename(filepath.Join(path, "shard-0"), filepath.Join(path, "moved")))
	must(t, os.Rename(filepath.Join(path, "moved"), filepath.Join(path, "shard-0")))
	s = openShard(t, path)
	defer s.Close()
	checkControl(t, s, last)
	if got := s.Rebuilt(); got.Foreign > 0 || got.Damaged > 0 || s.RemovedTemps() > 0 {
		t.Errorf("found %+v, removed %d", got, s.RemovedTemps())
	}
}

// TestControlOfAnother: what another program has put there is told, and never waited for.
func TestControlOfAnother(t *testing.T) {
	path := t.TempDir()
	s := openShard(t, path)
	defer s.Close()
	name := filepath.Join(path, "shard-0", controlName)
	must(t, os.WriteFile(name, make([]byte, MaxControl+1), 0o644))
	if _, err := s.Control(); !errors.Is(err, ErrLarge) {
		t.Errorf("a file that is too large: %v", err)
	}
	must(t, os.Remove(name))
	must(t, unix.Mkfifo(name, 0o644))
	checkControl(t, s, []byte{}) // it has nothing, which is no control file
	must(t, os.Remove(name))
	must(t, os.Mkdir(name, 0o755))
	if c, err := s.Control(); err == nil {
		t.Errorf("a folder passed for a control file of %d bytes", len(c))
	}
	must(t, os.Remove(name))
}

// TestControlAtEveryCall lets every call of SetControl fail, with and without having
// done its work, and the process die there. The control file is the old one or the new
// one; after success it is the new one, also after a loss of power.
func TestControlAtEveryCall(t *testing.T) {
	before, after := []byte("before"), []byte("after, and longer")
	calls := 1
	for i := 0; i < calls; i++ {
		for _, v := range []verdict{pass, fail, happened, torn, short, crashBefore, crashAfter} {
			t.Run(fmt.Sprintf("%d/%s", i, v), func(t *testing.T) {
				path := t.TempDir()
				s := openShard(t, path)
				must(t, s.SetControl(t.Context(), before))
				disk := newFaulty(t, s, at(i, v), unix.EIO)
				err := s.SetControl(t.Context(), after)
				if v == pass {
					calls = len(disk.calls)
				}
				for bits := range uint64(64) {
					d := *disk.disk
					lost := newModelDisk()
					for name, n := range d.durable {
						lost.durable[name] = &modelFile{written: bytes.Clone(n.written), synced: bytes.Clone(n.synced)}
					}
					for _, c := range d.pending {
						if c.file != nil {
							c.file = &modelFile{written: bytes.Clone(c.file.written), synced: bytes.Clone(c.file.synced)}
						}
						lost.pending = append(lost.pending, c)
					}
					lost.losePower(bits)
					got := lost.live[controlName]
					switch {
					case got == nil:
						t.Fatal("a loss of power leaves no control file")
					case !bytes.Equal(got.written, after) && (err == nil || !bytes.Equal(got.written, before)):
						t.Fatalf("after %v a loss of power leaves %q", err, got.written)
					}
				}
				disk.plan, disk.crashed = at(-1, pass), false
				if !bytes.Equal(must1(s.Control()), before) || err == nil {
					checkControl(t, s, after)
				}
				must(t, s.Close())
				s = openShard(t, path)
				defer s.Close()
				if _, other := folderNames(t, path); len(other) > 1 {
					t.Errorf("the next owner leaves %q", other)
				}
				must(t, s.SetControl(t.Context(), after))
				checkControl(t, s, after)
			})
		}
	}
	if calls < 8 {
		t.Errorf("SetControl has %d calls", calls)
	}
}

func must1(content []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return content
}

// TestFlush: the open file is published at once, and the next one goes on.
func TestFlush(t *testing.T) {
	path := t.TempDir()
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 12)
	s := rollingShard(t, path, neverFull)
	must(t, s.Flush(t.Context()))
	write(t, s, 5, lines[:5]...)
	must(t, s.Roll(t.Context()))
	checkOnce(t, path)
	must(t, s.Flush(t.Context()))
	checkOnce(t, path, lines[:5]...)
	write(t, s, 7, lines[5:]...)
	must(t, s.Flush(t.Context()))
	checkOnce(t, path, lines...)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Flush(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a flush without time: %v", err)
	}
	must(t, s.Close())
	if err := s.Flush(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("a flush of a closed shard: %v", err)
	}
}
