package output

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sys/unix"
)

// nameAt is the name of a file that was begun at a time.
func nameAt(at time.Time, n int) string {
	var id ulid.ULID
	if err := id.SetTime(ulid.Timestamp(at)); err != nil {
		panic(err)
	}
	id[15] = byte(n)
	return "0-1_" + id.String() + visibleSuffix
}

// fill makes files in shard 0 of the output folder at path.
func fill(t *testing.T, path string, files map[string]string) {
	t.Helper()
	folder := filepath.Join(path, "shard-0")
	must(t, os.MkdirAll(folder, 0o755))
	for name, text := range files {
		must(t, os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644))
	}
}

// TestRebuild: what is in the folder at a start, and what is known of it then.
func TestRebuild(t *testing.T) {
	now := time.Now()
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 4)
	long := strings.Replace(lines[2], `}`, `,"value":"`+strings.Repeat("x", 300_000)+`"}`, 1)
	name := nameAt(now.Add(-time.Minute), 1)
	for what, tt := range map[string]struct {
		files map[string]string
		want  Rebuilt
		known []string
		fresh []string
	}{
		"nothing":             {nil, Rebuilt{}, nil, lines},
		"a file":              {map[string]string{name: string(content(lines))}, Rebuilt{IDs: 4, Files: 1}, lines, nil},
		"two files":           {map[string]string{name: string(content(lines[:2])), nameAt(now, 2): string(content(lines[2:]))}, Rebuilt{IDs: 4, Files: 2}, lines, nil},
		"the same twice":      {map[string]string{name: string(content(lines[:2])), nameAt(now, 2): string(content(lines[1:]))}, Rebuilt{IDs: 4, Files: 2}, lines, nil},
		"a long line":         {map[string]string{name: string(content([]string{lines[1], long, lines[3]}))}, Rebuilt{IDs: 3, Files: 1}, lines[1:], lines[:1]},
		"from the future":     {map[string]string{nameAt(now.Add(48*time.Hour), 1): string(content(lines))}, Rebuilt{IDs: 4, Files: 1}, lines, nil},
		"the clock was ahead": {map[string]string{nameAt(now.Add(48*time.Hour), 1): string(content(lines[:1])), name: string(content(lines[1:]))}, Rebuilt{IDs: 4, Files: 2}, lines, nil},
		"from long ago":       {map[string]string{nameAt(now.Add(-9999*time.Hour), 1): string(content(lines))}, Rebuilt{IDs: 4, Files: 1}, lines, nil},
		"old, until the next": {map[string]string{name: string(content(lines[2:])), nameAt(now.Add(-9*testWindow.Age), 1): string(content(lines[:2]))}, Rebuilt{IDs: 4, Files: 2}, lines, nil},
		"too old":             {map[string]string{name: string(content(lines[2:])), nameAt(now.Add(-time.Minute-testWindow.Age-time.Millisecond), 1): string(content(lines[1:2])), nameAt(now.Add(-time.Minute-testWindow.Age-2*time.Millisecond), 1): string(content(lines[:1]))}, Rebuilt{IDs: 3, Files: 2}, lines[1:], lines[:1]},
		"just not too old":    {map[string]string{name: string(content(lines[2:])), nameAt(now.Add(-time.Minute-testWindow.Age+time.Minute), 1): string(content(lines[:2]))}, Rebuilt{IDs: 4, Files: 2}, lines, nil},
		"cut off":             {map[string]string{name: strings.TrimSuffix(string(content(lines)), "}\n")}, Rebuilt{IDs: 3, Files: 1, Damaged: 1, Example: name}, lines[:3], lines[3:]},
		"cut off: newline":    {map[string]string{name: strings.TrimSuffix(string(content(lines)), "\n")}, Rebuilt{IDs: 3, Files: 1, Damaged: 1, Example: name}, lines[:3], lines[3:]},
		"a long one cut off":  {map[string]string{name: lines[0] + "\n" + long}, Rebuilt{IDs: 1, Files: 1, Damaged: 1, Example: name}, lines[:1], lines[1:]},
		"empty":               {map[string]string{name: ""}, Rebuilt{Files: 1, Damaged: 1, Example: name}, nil, lines},
		"other content":       {map[string]string{name: "a,b\n" + lines[0] + "\n\n\x00\n"}, Rebuilt{IDs: 1, Files: 1, Damaged: 1, Example: name}, lines[:1], lines[1:]},
		"another's name":      {map[string]string{"export.ndjson": string(content(lines))}, Rebuilt{Foreign: 1, Example: "export.ndjson"}, nil, lines},
		"nearly our name":     {map[string]string{"0_1_" + strings.TrimPrefix(name, "0-1_"): string(content(lines))}, Rebuilt{Foreign: 1, Example: "0_1_" + strings.TrimPrefix(name, "0-1_")}, nil, lines},
		"no file of messages": {map[string]string{"notes.txt": "x", ".DS_Store": "x", "0-1_" + ulid.Make().String(): "x"}, Rebuilt{}, nil, lines},
	} {
		t.Run(what, func(t *testing.T) {
			path := t.TempDir()
			fill(t, path, tt.files)
			if err := os.MkdirAll(filepath.Join(path, "shard-0", nameAt(now, 9)), 0o755); err != nil { // no regular file
				t.Fatal(err)
			}
			s := openShard(t, path)
			got := s.Rebuilt()
			if got.Took <= 0 {
				t.Errorf("it took %v", got.Took)
			}
			got.Took = 0
			if got != tt.want {
				t.Errorf("rebuilt %+v, want %+v", got, tt.want)
			}
			if len(tt.known) > 0 {
				write(t, s, 0, tt.known...)
			}
			if len(tt.fresh) > 0 {
				write(t, s, len(tt.fresh), tt.fresh...)
			}
		})
	}
}

// TestRebuildReadsNoMore: of many files only the newest are read, as many as the
// window needs.
func TestRebuildReadsNoMore(t *testing.T) {
	path := t.TempDir()
	now := time.Now()
	files := make(map[string]string)
	for n := range 100 {
		files[nameAt(now.Add(-time.Duration(n)*time.Second), n)] = string(content(numbered(fmt.Sprint(n), 3)))
	}
	fill(t, path, files)
	d := openTestDir(t, path)
	d.window.IDs = 10
	var read []string
	d.wrap = func(f folder) folder {
		return hooked{f, func(step, name string, _ []byte) error {
			if step == "open" {
				read = append(read, name)
			}
			return nil
		}}
	}
	s := takeShard(t, d)
	want := slices.Sorted(func(yield func(string) bool) {
		for name := range files {
			if !yield(name) {
				return
			}
		}
	})
	slices.Reverse(want)
	if !slices.Equal(read, want[:4]) {
		t.Errorf("read %q, want %q", read, want[:4])
	}
	if r := s.Rebuilt(); r.IDs != 10 || r.Files != 4 {
		t.Errorf("rebuilt %+v", r)
	}
	write(t, s, 0, slices.Concat(numbered("0", 3), numbered("1", 3), numbered("2", 3))...)
	write(t, s, 3, numbered("4", 3)...)
}

// TestTimeWithoutOwner: what an owner has left is known for the window's time
// from when the next one came, however long that took. What is in a file may
// have been written until the next one was begun.
func TestTimeWithoutOwner(t *testing.T) {
	path := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openShard(t, path)
		lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 6)
		for two := range slices.Chunk(lines, 2) {
			time.Sleep(testWindow.Age / 2)
			write(t, s, 2, two...)
		}
		must(t, s.Close())
		time.Sleep(1000 * testWindow.Age)
		s = openShard(t, path)
		defer s.Close()
		write(t, s, 0, lines...)
		time.Sleep(testWindow.Age/2 + time.Millisecond)
		write(t, s, 2, lines...)
		time.Sleep(testWindow.Age / 2)
		write(t, s, 4, lines...)
	})
}

func TestNewestIsBounded(t *testing.T) {
	now := time.Now()
	n := newest{limit: 20, now: now}
	for i := range 200 {
		n.add(nameAt(now.Add(-time.Duration(i*7%200)*time.Second), 0))
		if len(n.files) > 25 {
			t.Fatalf("%d names are kept", len(n.files))
		}
	}
	n.cut()
	if len(n.files) != 20 {
		t.Errorf("%d names are left", len(n.files))
	}
	for i, f := range n.files {
		if got, want := n.name(f), nameAt(now.Add(-time.Duration(i)*time.Second), 0); got != want {
			t.Errorf("name %d is %s, want %s", i, got, want)
		}
	}
}

// TestRebuildFails: a file that cannot be read fails the start, by name; then
// nothing is held and the next start may succeed.
func TestRebuildFails(t *testing.T) {
	path := t.TempDir()
	lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 5)
	name := nameAt(time.Now(), 1)
	fill(t, path, map[string]string{name: string(content(lines))})
	d := openTestDir(t, path)
	for i, fault := range []error{unix.EIO, unix.EACCES, unix.EMFILE, unix.EIO} {
		d.wrap = func(f folder) folder {
			return hooked{f, func(step, _ string, _ []byte) error {
				if step == []string{"open", "open", "open", "read"}[i] {
					return fault
				}
				return nil
			}}
		}
		s, err := d.Shard(t.Context(), 0, nil)
		if err == nil {
			s.Close()
			t.Fatalf("the shard was taken in spite of %v", fault)
		}
		if !errors.Is(err, fault) || !strings.Contains(err.Error(), "shard-0/"+name) || !strings.Contains(err.Error(), "move it away") {
			t.Errorf("got error %v, want %v of %s", err, fault, name)
		}
	}
	cause := errors.New("drain")
	ctx, cancel := context.WithCancelCause(t.Context())
	d.wrap = func(f folder) folder {
		cancel(cause)
		return f
	}
	if _, err := d.Shard(ctx, 0, nil); !errors.Is(err, cause) {
		t.Errorf("got error %v, want the cause", err)
	}

	// A file may be taken away after it was listed.
	d.wrap = func(f folder) folder {
		return hooked{f, func(step, name string, _ []byte) error {
			if step == "open" {
				return os.Remove(filepath.Join(path, "shard-0", name))
			}
			return nil
		}}
	}
	s := takeShard(t, d)
	if r := s.Rebuilt(); r.IDs != 0 || r.Files != 0 || r.Damaged != 0 {
		t.Errorf("rebuilt %+v", r)
	}
	write(t, s, 5, lines...)
}
