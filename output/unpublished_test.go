package output

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const leftHidden = ".7-1_01JD8Y6G5V3X9Q2R7T4B1C0D5E.rolling"

// put writes the files, with their folders; a name that ends in a slash is a folder.
func put(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		if name[len(name)-1] == '/' {
			path = filepath.Join(path, "in-it")
		}
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if path == filepath.Join(dir, name) {
			must(t, os.WriteFile(path, []byte("{}\n"), 0o644))
		}
	}
}

// TestUnpublished: a rolling file is found in every folder of a shard from the
// given number on, of an owner or of a crash, and nothing else is taken for one.
func TestUnpublished(t *testing.T) {
	path := t.TempDir()
	put(t, path,
		"shard-2/"+leftHidden, "shard-3/"+leftHidden, "shard-12/"+leftHidden, "shard-10/"+leftHidden,
		"shard-4/7-1_01JD8Y6G5V3X9Q2R7T4B1C0D5E.ndjson", "shard-4/.7-1_01JD8Y6G5V3X9Q2R7T4B1C0D5E.tmp",
		"shard-5/"+leftHidden+"/", "shard-6/.rolling", "shard-07/"+leftHidden, "other/"+leftHidden, "shard-8", "shard-9/",
	)
	for i := range 2 * namesPortion { // and after them
		put(t, path, fmt.Sprintf("shard-11/%d", i))
	}
	put(t, path, "shard-11/"+leftHidden)
	d := openTestDir(t, path)
	for from, want := range map[int][]int{0: {2, 3, 10, 11, 12}, 3: {3, 10, 11, 12}, 12: {12}, 13: nil} {
		if got, err := d.Unpublished(from); err != nil || !slices.Equal(got, want) {
			t.Errorf("from %d on: %v, %v, want %v", from, got, err, want)
		}
	}

	d.roll = neverFull
	s := takeShard(t, d)
	write(t, s, 1, numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 1)...)
	if got, err := d.Unpublished(0); err != nil || !slices.Equal(got, []int{0, 2, 3, 10, 11, 12}) {
		t.Errorf("with an owner: %v, %v, want its shard, too", got, err)
	}
	must(t, s.Close())
	if got, err := d.Unpublished(0); err != nil || !slices.Equal(got, []int{2, 3, 10, 11, 12}) {
		t.Errorf("when it is published: %v, %v", got, err)
	}
}

// TestUnpublishedBehindAFault: a folder that cannot be read is told, and the
// others are found.
func TestUnpublishedBehindAFault(t *testing.T) {
	path := t.TempDir()
	put(t, path, "shard-2/"+leftHidden, "shard-4/"+leftHidden)
	if err := os.Symlink(t.TempDir(), filepath.Join(path, "shard-3")); err != nil { // leads out of it
		t.Fatal(err)
	}
	got, err := openTestDir(t, path).Unpublished(1)
	if _, ok := errors.AsType[*fs.PathError](err); !ok || !slices.Equal(got, []int{2, 4}) {
		t.Errorf("found %v, %v, want both beside the fault", got, err)
	}
}
