package output

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Unpublished returns the shards from number from on, ascending, that have a
// rolling file in their folder. It is their owner's, or left by a crash; then the
// next owner publishes it. A folder that cannot be read does not hide the others.
func (d *Dir) Unpublished(from int) (shards []int, err error) {
	root, err := d.root.Open(".")
	if err != nil {
		return nil, failed("open", d.path, err)
	}
	defer root.Close() // only read from, as all that follows
	var errs []error
	err = entries(root, func(e fs.DirEntry) bool {
		if n, ok := ParseShard(e.Name()); ok && n >= from {
			rolls, err := d.hasRolling(e.Name())
			if err != nil {
				errs = append(errs, err)
			}
			if rolls {
				shards = append(shards, n)
			}
		}
		return true
	})
	if err != nil {
		errs = append(errs, failed("list", d.path, err))
	}
	slices.Sort(shards)
	return shards, errors.Join(errs...)
}

// hasRolling tells whether a rolling file is in the folder. It takes no lock: what
// it sees may be gone when it returns.
func (d *Dir) hasRolling(folder string) (rolls bool, err error) {
	f, err := d.root.OpenFile(folder, unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return false, nil // removed meanwhile, or no shard's folder
	}
	if err != nil {
		return false, failed("open", filepath.Join(d.path, folder), err)
	}
	defer f.Close()
	err = entries(f, func(e fs.DirEntry) bool {
		rolls = e.Type().IsRegular() && ParseName(e.Name()) == Rolling
		return !rolls
	})
	if err != nil {
		err = failed("list", filepath.Join(d.path, folder), err)
	}
	return rolls, err
}
