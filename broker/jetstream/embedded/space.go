package embedded

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// DefaultMinFree is room for what the server writes besides messages, above
	// all acknowledgements, without which a full store could not be drained,
	// and for what several publishers send until the next look at the disk.
	DefaultMinFree = 256 << 20

	// spaceAge is how old a look at the disk may be, in which the fastest
	// publishers write some megabytes. A look takes some microseconds.
	spaceAge = 10 * time.Millisecond
)

// space watches the free space of the store's file system. Its methods may be
// called concurrently.
type space struct {
	dir     string
	minFree int64

	looking sync.Mutex // held by the one who looks
	looked  atomic.Int64
	fault   atomic.Pointer[spaceError]
}

// spaceError says why nothing more can be stored.
type spaceError struct {
	dir           string
	free, minFree int64
	cause         error // of a look at the disk that failed
}

func (e *spaceError) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("free space of %s: %v", e.dir, e.cause)
	}
	return fmt.Sprintf("the disk of %s is full: %d MiB are free, %d MiB have to be", e.dir, e.free>>20, e.minFree>>20)
}

func (e *spaceError) Unwrap() error {
	if e.cause != nil {
		return e.cause
	}
	return unix.ENOSPC
}

// check returns nil if there is room for a publish, else a *spaceError, until
// clear. It costs two loads most of the time.
func (s *space) check() error {
	if fault := s.fault.Load(); fault != nil {
		return fault
	}
	if time.Now().UnixNano()-s.looked.Load() > int64(spaceAge) && s.looking.TryLock() {
		defer s.looking.Unlock()
		s.looked.Store(time.Now().UnixNano())
		if fault := s.look(); fault != nil {
			s.fault.Store(fault)
			return fault
		}
	}
	return nil
}

// look looks at the disk. Once it was full it has to have an eighth more than
// before, or it would go to and fro.
func (s *space) look() *spaceError {
	enough := s.minFree
	if s.fault.Load() != nil {
		enough += s.minFree / 8
	}
	free, err := freeBytes(s.dir)
	if err != nil || free < enough {
		return &spaceError{dir: s.dir, free: free, minFree: enough, cause: err}
	}
	return nil
}

// clear ends the fault. It is the watcher's, which first sees to the server:
// publishes are not let through to one that met the full disk.
func (s *space) clear() { s.fault.Store(nil) }

// freeBytes is what this user may still write to the file system of a folder.
func freeBytes(dir string) (int64, error) {
	var stat unix.Statfs_t
	for {
		err := unix.Statfs(dir, &stat)
		if err == unix.EINTR {
			continue
		}
		return int64(stat.Bavail) * int64(stat.Bsize), err
	}
}

// bytesUsed is what the blocks of the store take.
func (s *store) bytesUsed() int64 {
	var used int64
	sizes, _ := s.blockSizes() // an estimate, for a limit that may be corrected
	for _, size := range sizes {
		used += size
	}
	return used
}
