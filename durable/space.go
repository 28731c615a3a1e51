package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxAge is how old a look at the disk may be. The fastest writers write a few
// megabytes in that time. A look takes microseconds.
const maxAge = 10 * time.Millisecond

// Watermark is how much of the file system of a folder has to be free. It tells of
// a lack while some space is left. Once low, it wants more space than before, so
// that the answer does not alternate. Its methods may be called concurrently.
type Watermark struct {
	dir     string
	minFree int64
	free    func(dir string) (int64, error) // freeSpace, or a test's
	began   time.Time                       // of the clock of looked, which never jumps

	looking sync.Mutex // held by the caller of Check that looks
	looked  atomic.Int64
	seen    atomic.Int64 // bytes that were free, -1 before the first look
	low     atomic.Pointer[LowError]
}

// NewWatermark returns the watermark of minFree bytes; 0 switches it off.
func NewWatermark(dir string, minFree int64) *Watermark {
	w := &Watermark{dir: dir, minFree: minFree, free: freeSpace, began: time.Now()}
	w.looked.Store(-2 * int64(maxAge)) // the first Check looks
	w.seen.Store(-1)
	return w
}

// LowError says why nothing more should be written. It wraps ENOSPC, or the Cause,
// which names the folder, if the look at the disk failed.
type LowError struct {
	Dir           string
	Free, MinFree int64
	Cause         error
}

func (e *LowError) Error() string {
	if errors.Is(e.Cause, fs.ErrNotExist) {
		return fmt.Sprintf("the folder %s is gone; put it back, or mount its disk", e.Dir)
	}
	if e.Cause != nil {
		return fmt.Sprintf("cannot look at the free space: %v", e.Cause)
	}
	return fmt.Sprintf("the disk of %s is full: %d MiB are free, %d MiB have to be", e.Dir, e.Free>>20, e.MinFree>>20)
}

func (e *LowError) Unwrap() error {
	if e.Cause != nil {
		return e.Cause
	}
	return unix.ENOSPC
}

// Low returns a *LowError if a look found too little since the last Clear. It
// never asks the disk, which may not answer.
func (w *Watermark) Low() error {
	if low := w.low.Load(); low != nil {
		return low
	}
	return nil
}

// Check is Low, and looks at the disk if the last look is older than maxAge. It
// costs two loads most of the time.
func (w *Watermark) Check() error {
	if err := w.Low(); err != nil {
		return err
	}
	if int64(time.Since(w.began))-w.looked.Load() > int64(maxAge) && w.looking.TryLock() {
		defer w.looking.Unlock()
		w.looked.Store(int64(time.Since(w.began)))
		if low := w.Look(); low != nil {
			return low
		}
	}
	return nil
}

// Look looks at the disk now, and returns nil if enough is free. After a lack,
// enough is an eighth more. From a lack on, Low and Check fail until Clear.
func (w *Watermark) Look() *LowError {
	if w.minFree == 0 {
		return nil
	}
	enough := w.minFree
	if w.low.Load() != nil {
		enough += w.minFree / 8
	}
	free, err := w.free(w.dir)
	if err == nil {
		w.seen.Store(free)
	}
	if err == nil && free >= enough {
		return nil
	}
	low := &LowError{Dir: w.dir, Free: free, MinFree: enough, Cause: err}
	w.low.Store(low)
	return low
}

// Seen returns how many bytes were free at the last look, -1 if there was none. It never
// asks the disk.
func (w *Watermark) Seen() int64 { return w.seen.Load() }

// Clear ends the lack. Look does not do it, because the caller may have work to
// finish first.
func (w *Watermark) Clear() { w.low.Store(nil) }

// freeSpace is what this user may still write to the file system of a folder.
func freeSpace(dir string) (int64, error) {
	var stat unix.Statfs_t
	for {
		err := unix.Statfs(dir, &stat)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
		}
		return int64(stat.Bavail) * int64(stat.Bsize), nil
	}
}
