package output

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestStandby(t *testing.T) {
	path := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		owner := openShard(t, path)
		d := openTestDir(t, path)
		time.AfterFunc(time.Minute, func() {
			if err := owner.Close(); err != nil {
				t.Error(err)
			}
		})
		start, waited := time.Now(), 0
		s, err := d.Shard(t.Context(), 0, func() { waited++ })
		must(t, err)
		defer s.Close()
		if took := time.Since(start); took < time.Minute || took > time.Minute+standbyInterval {
			t.Errorf("took over after %v", took)
		}
		if waited != 1 {
			t.Errorf("onStandby was called %d times", waited)
		}
		mustWrite(t, s, newBatch("{}"))
		if _, _, err := owner.Write(t.Context(), worker, newBatch("{}")); !errors.Is(err, ErrClosed) {
			t.Errorf("the former owner got error %v", err)
		}
	})
}

func TestStandbyGivesUp(t *testing.T) {
	path := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		openShard(t, path)
		d := openTestDir(t, path)
		cause := errors.New("drain")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, cause)
		defer cancel()
		start := time.Now()
		if _, err := d.Shard(ctx, 0, nil); !errors.Is(err, cause) {
			t.Errorf("got error %v, want the cause", err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("gave up after %v", took)
		}
	})
}

func TestRemovedTemps(t *testing.T) {
	const ulid = "01JD8Y6G5V3X9Q2R7T4B1C0D5E"
	ours := []string{".0-2_" + ulid + ".tmp", ".7-65535_" + ulid + ".tmp"}
	foreign := []string{
		"0-2_" + ulid + ".ndjson", "notes.txt", ".hidden", "0-2_" + ulid + ".tmp", ".0-2_" + ulid + ".tmp.bak",
		"..0-2_" + ulid + ".tmp", ".0-2_" + strings.ToLower(ulid) + ".tmp", "._" + ulid + ".tmp", ".0-2_01JD.tmp",
	}
	path := t.TempDir()
	folder := filepath.Join(path, "shard-0")
	must(t, os.MkdirAll(filepath.Join(folder, ".0-9_"+ulid+".tmp"), 0o755))
	foreign = append(foreign, ".0-9_"+ulid+".tmp")
	for _, name := range slices.Concat(ours, foreign[:len(foreign)-1]) {
		must(t, os.WriteFile(filepath.Join(folder, name), nil, 0o644))
	}
	if s := openShard(t, path); s.RemovedTemps() != len(ours) {
		t.Errorf("removed %d, want %d", s.RemovedTemps(), len(ours))
	}
	visible, other := folderNames(t, path)
	got := append(visible, other...)
	slices.Sort(got)
	slices.Sort(foreign)
	if !slices.Equal(got, foreign) {
		t.Errorf("got  %q\nwant %q", got, foreign)
	}
}

func TestShardFolderUnusable(t *testing.T) {
	for name, spoil := range map[string]func(folder string) error{
		"a plain file": func(folder string) error { return os.WriteFile(folder, nil, 0o644) },
		"leads out":    func(folder string) error { return os.Symlink("/", folder) },
		"lock is a folder": func(folder string) error {
			return os.MkdirAll(filepath.Join(folder, lockName), 0o755)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := openTestDir(t, t.TempDir())
			must(t, spoil(filepath.Join(d.path, "shard-0")))
			_, err := d.Shard(t.Context(), 0, nil)
			if err == nil || !strings.Contains(err.Error(), filepath.Join(d.path, "shard-0")) {
				t.Errorf("got error %v", err)
			}
		})
	}
}

// TestLockOfAMovedFolder: the folder is moved away between being opened and
// locked. Its lock is worth nothing, and the standby is to look again.
func TestLockOfAMovedFolder(t *testing.T) {
	path := t.TempDir()
	d := openTestDir(t, path)
	folder := filepath.Join(path, "shard-0")
	must(t, os.Mkdir(folder, 0o755))
	root, err := d.root.OpenRoot("shard-0")
	must(t, err)
	defer root.Close()
	must(t, os.Rename(folder, folder+".old"))
	if _, err := lock(root, folder); !errors.Is(err, errBusy) {
		t.Errorf("got error %v, want %v", err, errBusy)
	}
}

// TestFolderReplaced takes the folder away from under its owner.
func TestFolderReplaced(t *testing.T) {
	for name, replace := range map[string]func(data, folder string) error{
		"folder removed":      func(_, folder string) error { return os.RemoveAll(folder) },
		"folder moved":        func(_, folder string) error { return os.Rename(folder, folder+".old") },
		"output folder moved": func(data, _ string) error { return os.Rename(data, data+".old") },
		"lock removed":        func(_, folder string) error { return os.Remove(filepath.Join(folder, lockName)) },
		"replaced": func(_, folder string) error {
			return errors.Join(
				os.Rename(folder, folder+".old"),
				os.Mkdir(folder, 0o755),
				os.WriteFile(filepath.Join(folder, lockName), nil, 0o644),
			)
		},
	} {
		// Before the Write, and in its last moment before the right is asked for.
		for _, when := range []int{0, 6} {
			t.Run(name, func(t *testing.T) {
				data := filepath.Join(t.TempDir(), "data")
				s := openShard(t, data)
				newFaulty(t, s, func(i int, _ string) verdict {
					if i == when {
						if err := replace(data, filepath.Join(data, "shard-0")); err != nil {
							t.Error(err)
						}
					}
					return pass
				}, nil)
				b := newBatch("{}")
				writeFails(t, s, b, ErrLost)
				if !b.Abandon() {
					t.Error("the right to publish was taken")
				}
				matches, err := filepath.Glob(data + "*/shard-0*/*_*")
				if err != nil || len(matches) > 0 {
					t.Errorf("found %q, %v", matches, err)
				}
				// Closed and opened again, the shard works.
				must(t, s.Close())
				mustWrite(t, openShard(t, data), newBatch("{}"))
			})
		}
	}
}

// TestOutputFolderMoved: a shard of an output folder that was moved away, or
// replaced, cannot be taken, and does not count as owned. Moved back it can.
func TestOutputFolderMoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	d, err := Open(path, testWindow, Roll{})
	must(t, err)
	defer d.Close()
	busy := func() { t.Error("it stands by") }
	away := path + ".away"
	must(t, os.Rename(path, away))
	if _, err := d.Shard(t.Context(), 0, busy); !errors.Is(err, errMoved) {
		t.Errorf("moved away: %v", err)
	}
	must(t, os.Mkdir(path, 0o755))
	if _, err := d.Shard(t.Context(), 0, busy); !errors.Is(err, errMoved) {
		t.Errorf("replaced: %v", err)
	}
	must(t, errors.Join(os.Remove(path), os.Rename(away, path)))
	s, err := d.Shard(t.Context(), 0, busy)
	if err != nil {
		t.Fatalf("moved back: %v", err)
	}
	must(t, s.Close())
}
