package output

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Open returns the output folder at dir. A missing one is made, parents
// included, and durable once Open returns. Each of its shards remembers what w
// says, and rolls its files as r says. The error of a folder that cannot be used says which, why, and what to
// do about it.
func Open(dir string, w Window, r Roll) (*Dir, error) {
	return openDir(dir, w, r, syncPath)
}

// openDir is Open with the fsync of a folder as a parameter.
func openDir(dir string, w Window, r Roll, sync func(path string) error) (_ *Dir, err error) {
	if dir == "" {
		return nil, errors.New("output folder: no path given")
	}
	if w.IDs < 1 || w.Age <= 0 {
		return nil, fmt.Errorf("output folder: a window of %d ids for %v remembers nothing", w.IDs, w.Age)
	}
	if r.Bytes < 0 || r.Interval < 0 {
		return nil, fmt.Errorf("output folder: files cannot be rolled at %d bytes and %v", r.Bytes, r.Interval)
	}
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("output folder %s: %w", dir, err)
	}
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("output folder %s: %w; move that file away or choose another folder", path, unix.ENOTDIR)
	}
	if err := makeDir(path, sync); err != nil {
		return nil, fmt.Errorf("make output folder: %w; make %s by hand or choose another folder", err, path)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open output folder: %w", err)
	}
	// Asked, not tried out with a file: on a full disk that would refuse a
	// start which has only to wait for space.
	err = unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK|unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	if err != nil {
		return nil, errors.Join(
			fmt.Errorf("output folder %s: %w; let user %d read and write it or choose another folder", path, err, os.Geteuid()),
			root.Close(),
		)
	}
	return &Dir{
		root: root, path: path, window: w, roll: r, wanted: make(map[string]*atomic.Int64),
		standby: standbyInterval, sync: sync,
	}, nil
}

// Path is the folder's absolute path.
func (d *Dir) Path() string { return d.path }

// Close lets go of the output folder. The shards taken from it stay open.
func (d *Dir) Close() error {
	return d.root.Close()
}

// makeDir makes the folder at path with the parents it lacks, and each durable
// by the fsync of the one that holds it.
func makeDir(path string, sync func(path string) error) error {
	var missing []string
	for p := path; ; p = filepath.Dir(p) {
		if _, err := os.Stat(p); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, p)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	for _, p := range missing {
		if err := sync(filepath.Dir(p)); err != nil {
			return err
		}
	}
	return nil
}

// syncPath makes the names in the folder at path durable.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
