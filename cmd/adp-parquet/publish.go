package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/parquet-go/parquet-go"
	"golang.org/x/sys/unix"

	"async-data-processor/durable"
)

// publish makes the result in the folder, whole and durable, under the file's name. If it
// is there, it has to be of the same file. The system calls expected:
//
//	open, flock  .<stem>.parquet.tmp
//	write, fsync
//	renameat2    <stem>.parquet, RENAME_NOREPLACE
//	fsync        the folder
func (in *input) publish(ctx context.Context, dir string) (*result, error) {
	dir, err := durable.Folder("folder of the result", dir, 0o755)
	if err != nil {
		return nil, err
	}
	made, err := in.make(ctx, filepath.Join(dir, "."+in.stem+suffix+".tmp"), filepath.Join(dir, in.stem+suffix))
	if err != nil {
		return nil, err
	}
	// A run that was killed may have left the name of a result without this.
	if err := durable.SyncDir(dir); err != nil {
		return nil, errors.Join(err, made.Close())
	}
	return made, nil
}

// make returns the result that has the final name, or else writes it to temp and gives it
// that name.
func (in *input) make(ctx context.Context, temp, final string) (_ *result, err error) {
	f, err := claim(ctx, temp)
	if err != nil {
		return nil, err
	}
	made, err := in.find(ctx, final)
	if errors.Is(err, fs.ErrNotExist) {
		if made, err = in.convert(ctx, f); err == nil {
			err = f.Sync()
		}
		if err == nil {
			err = rename(temp, final)
		}
		if err == nil {
			made.File = f
			return made, nil
		}
		if errors.Is(err, fs.ErrExist) { // made by a program that claims nothing
			made, err = in.find(ctx, final)
		}
	}
	if wrong := errors.Join(os.Remove(temp), f.Close()); err == nil {
		err = wrong
	}
	if err != nil {
		return nil, err
	}
	return made, nil
}

// find opens the result of an earlier run. It fails with fs.ErrNotExist if there is
// none, and for ever if what has the name is the result of something else.
func (in *input) find(ctx context.Context, final string) (_ *result, err error) {
	f, err := os.Open(final)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	file, err := parquet.OpenFile(f, info.Size(), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, never(fmt.Errorf("%s is there and is no Parquet file: %w", final, err))
	}
	identity, err := in.identity(ctx)
	if err != nil {
		return nil, err
	}
	if found, _ := file.Lookup(identityKey); found != identity {
		return nil, never(fmt.Errorf("%s is there and was made of something else than %s", final, in.file))
	}
	return &result{File: f, size: info.Size(), rows: file.NumRows(), identity: identity}, nil
}

// scratch makes the result in a file without a name, for the store alone.
func (in *input) scratch(ctx context.Context) (*result, error) {
	f, err := os.CreateTemp("", "adp-parquet-*")
	if err != nil {
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	err = os.Remove(f.Name())
	var made *result
	if err == nil {
		made, err = in.convert(ctx, f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	made.File = f
	return made, nil
}

// claimInterval is how often a run looks whether another one has ended.
const claimInterval = 50 * time.Millisecond

// claim makes the file at path, empty, and locks it until it is closed. It waits for
// another run that has it.
func claim(ctx context.Context, path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		lock, err := durable.TryLock(f, path)
		if errors.Is(err, durable.ErrLocked) {
			select {
			case <-time.After(claimInterval):
				continue
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, lock.Close())
		}
		if info.Size() == 0 {
			return f, nil
		}
		// A killed run left it. It is removed, not emptied: where rename has to link, a killed
		// run may have left a second name of its result.
		if err := errors.Join(os.Remove(path), lock.Close()); err != nil {
			return nil, err
		}
	}
}

// rename gives a file its final name, which it never takes from another file.
func rename(temp, final string) error {
	err := unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, final, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
		// A file system that does not know the flag, NFS for example. A link replaces nothing either.
		if err = os.Link(temp, final); err == nil {
			err = os.Remove(temp)
		}
	case err != nil:
		err = &os.LinkError{Op: "rename", Old: temp, New: final, Err: err}
	}
	return err
}
