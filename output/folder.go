package output

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// disk is the folder of a file system. All of it goes through root, so that no
// name leads out of it, except held.
type disk struct {
	root *os.Root
	lock *os.File
	// lockPath is absolute; lockInfo is what the descriptor said of its file.
	lockPath string
	lockInfo os.FileInfo
}

// lock takes the lock of the folder, which has the given absolute path, or
// fails with errBusy. The lock file is never removed: between the removal and
// the next lock two processes could hold locks on two files of that name.
func lock(root *os.Root, path string) (_ *disk, err error) {
	path = filepath.Join(path, lockName)
	// An exclusive lock over NFS wants a descriptor that may write.
	f, err := root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, failed("open", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	switch err := flock(f, unix.LOCK_EX); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, errBusy
	case err != nil:
		return nil, failed("lock", path, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, failed("stat", path, err)
	}
	d := &disk{root: root, lock: f, lockPath: path, lockInfo: info}
	if err := d.held(); errors.Is(err, ErrLost) {
		return nil, errBusy // replaced since it was opened: look again
	} else if err != nil {
		return nil, err
	}
	return d, nil
}

// flock does not wait for the lock: it fails with EWOULDBLOCK instead.
func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (d *disk) unlock() error { return d.lock.Close() }

func (d *disk) close() error { return d.root.Close() }

// held looks at the absolute path, because root and lock go on referring to
// what was opened: a folder that was moved away would be written to in silence
// while its successor has an owner of its own. One look at the lock file sees
// the folder, its parents and a mount over them replaced as well.
func (d *disk) held() error {
	switch info, err := os.Stat(d.lockPath); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s is gone", ErrLost, d.lockPath)
	case err != nil:
		return failed("stat", d.lockPath, err)
	case !os.SameFile(info, d.lockInfo):
		return fmt.Errorf("%w: %s is another file", ErrLost, d.lockPath)
	}
	return nil
}

func (d *disk) locked() error {
	switch info, err := d.root.Lstat(lockName); {
	case err != nil:
		return err
	case !os.SameFile(info, d.lockInfo):
		return errors.New("it is another file")
	}
	return nil
}

func (d *disk) create(name string) (file, error) {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err // not a file that holds a nil *os.File
	}
	return f, nil
}

func (d *disk) open() (handle, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d *disk) link(temp, final string) error { return d.root.Link(temp, final) }

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

// names reads the folder in portions: it may hold millions of files.
func (d *disk) names(visit func(name string)) error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	defer f.Close() // only read from: nothing of it can be lost
	for {
		entries, err := f.ReadDir(1024)
		for _, e := range entries {
			if e.Type().IsRegular() {
				visit(e.Name())
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

// diskFile is a file that is opened anew.
type diskFile struct{ *os.File }

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
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	return f, nil
}
