package output

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"async-data-processor/durable"
)

// folder is what a shard asks of its folder. Each method is one call of the
// operating system or little more. Names are relative to the folder.
type folder interface {
	// create makes a file that did not exist, open for appending.
	create(name string) (file, error)
	// stat tells which file has the name.
	stat(name string) (status, error)
	// open opens the folder itself, for its fsync.
	open() (handle, error)
	// link gives temp's file a second name; it never overwrites.
	link(temp, final string) error
	// replace gives temp's file the name final in place of its own, and of any other's.
	replace(temp, final string) error
	// linked tells whether final is a name of temp's file.
	linked(temp, final string) (bool, error)
	// remove takes a name away; it is no error if the name is not there.
	remove(name string) error
	// names visits the names of the regular files.
	names(visit func(name string)) error
	// reopen opens a file again whose old descriptor is not trusted.
	reopen(name string) (reopened, error)
	// read opens a file for reading.
	read(name string) (io.ReadSeekCloser, error)
	// held fails with ErrLost unless the lock that this process holds is the
	// one found at the shard's path.
	held() error
	// locked fails unless the lock that this process holds is the one found in
	// the folder, which may have been moved. If it is, no other process owns it.
	locked() error
	// sign returns the time of the lock file, which a standby changes that wants the
	// folder.
	sign() (time.Time, error)
	// unlock lets the next process have the folder.
	unlock() error
	close() error
}

// status is which file has a name, and how long it is.
type status struct {
	inode
	size int64
}

// inode tells files apart.
type inode struct{ device, number uint64 }

type file interface {
	Write(p []byte) (int, error)
	io.ReaderAt
	// id tells which file it is, whatever has its name.
	id() (inode, error)
	handle
}

// reopened is a file whose end is in doubt.
type reopened interface {
	io.ReaderAt
	Size() (int64, error)
	Truncate(size int64) error
	// forget makes the next read come from the disk, as far as the system allows.
	forget()
	handle
}

type handle interface {
	Sync() error
	Close() error
}

// disk is the folder of a file system. All of it goes through root, so that no
// name leads out of it. Only held looks at the absolute path.
type disk struct {
	root *os.Root
	dir  *os.File // the same
	lock *durable.Lock
}

// lock takes the lock of the folder, which has the given absolute path, or
// fails with errBusy.
func lock(root *os.Root, path string) (*disk, error) {
	path = filepath.Join(path, lockName)
	f, err := root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, failed("open", path, err)
	}
	l, err := durable.TryLock(f, path)
	if errors.Is(err, durable.ErrLocked) {
		return nil, errBusy
	}
	if err != nil {
		return nil, failed("lock", path, err)
	}
	dir, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(failed("open", path, err), l.Close())
	}
	return &disk{root, dir, l}, nil
}

// Owned tells whether a process owns the shard's folder at path. A folder without
// a lock file has never had an owner. It holds the lock for an instant; a process
// that wants the folder in that instant becomes a standby and tries again.
func Owned(path string) (bool, error) {
	path = filepath.Join(path, lockName)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, failed("open", path, err)
	}
	defer f.Close() // gives the lock back
	owned, err := durable.Locked(f)
	if err != nil {
		return false, failed("lock", path, err)
	}
	return owned, nil
}

func (d *disk) sign() (time.Time, error) { return d.lock.Changed() }

func (d *disk) unlock() error { return d.lock.Close() }

func (d *disk) close() error { return errors.Join(d.dir.Close(), d.root.Close()) }

func (d *disk) held() error {
	err := d.lock.Check()
	if errors.Is(err, durable.ErrReplaced) {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	return err
}

func (d *disk) locked() error {
	switch info, err := d.root.Lstat(lockName); {
	case err != nil:
		return err
	case !d.lock.Is(info):
		return durable.ErrReplaced
	}
	return nil
}

func (d *disk) create(name string) (file, error) {
	f, err := d.root.OpenFile(name, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err // not a file that holds a nil *os.File
	}
	return diskFile{f}, nil
}

// stat asks the system itself, as each append does: os.Root would allocate more.
func (d *disk) stat(name string) (status, error) {
	var s unix.Stat_t
	for {
		err := unix.Fstatat(int(d.dir.Fd()), name, &s, unix.AT_SYMLINK_NOFOLLOW)
		if err != unix.EINTR {
			return status{inode{uint64(s.Dev), s.Ino}, s.Size}, err
		}
	}
}

func (d *disk) open() (handle, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d *disk) link(temp, final string) error { return d.root.Link(temp, final) }

func (d *disk) replace(temp, final string) error { return d.root.Rename(temp, final) }

func (d *disk) linked(temp, final string) (bool, error) {
	there, err := d.root.Lstat(final)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	ours, err := d.root.Lstat(temp)
	if err != nil {
		return false, err
	}
	return os.SameFile(there, ours), nil
}

func (d *disk) remove(name string) error {
	if err := d.root.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (d *disk) names(visit func(name string)) error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	defer f.Close() // only read from: nothing of it can be lost
	return entries(f, func(e fs.DirEntry) bool {
		if e.Type().IsRegular() {
			visit(e.Name())
		}
		return true
	})
}

// namesPortion is how many names are read of a folder at a time: it may hold
// millions of files.
const namesPortion = 1024

// entries visits what is in the folder until it is told to stop.
func entries(folder *os.File, visit func(fs.DirEntry) (more bool)) error {
	for {
		entries, err := folder.ReadDir(namesPortion)
		for _, e := range entries {
			if !visit(e) {
				return nil
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (d *disk) reopen(name string) (reopened, error) {
	f, err := d.root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

// diskFile is a new or a reopened file.
type diskFile struct{ *os.File }

func (f diskFile) id() (inode, error) {
	info, err := f.Stat()
	if err != nil {
		return inode{}, err
	}
	s := info.Sys().(*syscall.Stat_t)
	return inode{uint64(s.Dev), s.Ino}, nil
}

func (f diskFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// forget has no effect where a file system lives in memory, and needs none.
func (f diskFile) forget() {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

func (d *disk) read(name string) (io.ReadSeekCloser, error) {
	// A pipe under that name would otherwise wait for a writer.
	f, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// failed is an error with the step and the path that the reader knows, in place
// of those of the standard library.
func failed(step, path string, err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		err = e.Err
	}
	return &fs.PathError{Op: step, Path: path, Err: err}
}
