package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrLocked: another process, or another Lock of this one, holds the lock.
	ErrLocked = errors.New("another process holds the lock")

	// ErrReplaced: the lock file was removed or replaced. The lock still holds,
	// but it is no longer a lock on what has the path now.
	ErrReplaced = errors.New("the lock file was removed or replaced")
)

// Lock is an exclusive lock on a file. It ends with Close, or with the process.
//
// A lock file must never be removed. Between the removal and the next lock, two
// processes could hold locks on two files of that name.
type Lock struct {
	path string
	file *os.File
	info fs.FileInfo
}

// TryLock locks the opened file, which has the given path, and does not wait: it
// fails with ErrLocked. It also does so if the path has another file by now. A
// lock on NFS needs a descriptor that may write. After an error the file is closed.
func TryLock(f *os.File, path string) (_ *Lock, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := flock(f, unix.LOCK_EX); err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	l := &Lock{path, f, info}
	if err := l.Check(); errors.Is(err, ErrReplaced) {
		return nil, ErrLocked // the next try has to open the file again
	} else if err != nil {
		return nil, err
	}
	return l, nil
}

// Changed returns when the lock file was changed last: another process may do that with
// its time, as a sign for the one that holds the lock.
func (l *Lock) Changed() (time.Time, error) {
	info, err := l.file.Stat()
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// Locked tells whether a Lock holds the opened file. The system has no such
// question, so it takes a shared lock until the file is closed: a TryLock fails
// meanwhile.
func Locked(f *os.File) (bool, error) {
	err := flock(f, unix.LOCK_SH)
	if errors.Is(err, ErrLocked) {
		return true, nil
	}
	return false, err
}

// flock does not wait for the lock.
func flock(f *os.File, how int) error {
	for {
		switch err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return ErrLocked
		case err != nil:
			return &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
		default:
			return nil
		}
	}
}

// Check fails with ErrReplaced unless the locked file is the one at its path. A
// descriptor goes on referring to what was opened. So this look at the path also
// sees that the folder, one of its parents or a mount was replaced.
func (l *Lock) Check() error {
	var found unix.Stat_t
	err := unix.Stat(l.path, &found)
	for err == unix.EINTR {
		err = unix.Stat(l.path, &found)
	}
	switch ours := l.info.Sys().(*syscall.Stat_t); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s is gone", ErrReplaced, l.path)
	case err != nil:
		return &fs.PathError{Op: "stat", Path: l.path, Err: err}
	case found.Dev != ours.Dev || found.Ino != ours.Ino:
		return fmt.Errorf("%w: %s is another file", ErrReplaced, l.path)
	}
	return nil
}

// Is tells whether info is of the locked file.
func (l *Lock) Is(info fs.FileInfo) bool { return os.SameFile(info, l.info) }

// Close gives the lock to the next process.
func (l *Lock) Close() error { return l.file.Close() }
