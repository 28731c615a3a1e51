// Package reload keeps what files say that others may change at any time.
package reload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"async-data-processor/backoff"
)

// Files is what one or more files say.
type Files[T any] struct {
	paths   []string
	most    int
	parse   func(texts [][]byte) (T, error)
	current atomic.Pointer[T]
	broken  atomic.Pointer[error] // why what they hold is not taken; nil if it is

	// Only the goroutine that calls Reload or Follow uses what follows: what the files held
	// as they were taken, as they were refused, and at the last look.
	taken, refused, last [sha256.Size]byte
}

// Load reads regular files of at most so many bytes each. parse gets their texts, in the
// order of the paths.
func Load[T any](parse func(texts [][]byte) (T, error), most int, paths ...string) (*Files[T], error) {
	f := &Files[T]{paths: paths, most: most, parse: parse}
	texts, sum, err := f.read()
	if err == nil {
		err = f.take(texts, sum)
	}
	if err != nil {
		return nil, err
	}
	f.last = sum
	return f, nil
}

// Current returns what was taken last. It may be called concurrently, and what it returns
// is not to be changed.
func (f *Files[T]) Current() *T { return f.current.Load() }

// Broken returns why Current is not what the files hold, nil if it is. It may be called
// concurrently.
func (f *Files[T]) Broken() error {
	if err := f.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// Reload takes what the files hold, if that is new, and tells whether it did. Two looks
// have to find the same, because others may be writing the files. An error says why they
// cannot be taken; then Current stays what it was.
func (f *Files[T]) Reload() (changed bool, err error) {
	texts, sum, err := f.read()
	settled := sum == f.last
	f.last = sum
	switch {
	case !settled:
		return false, nil
	case sum == f.taken:
		f.broken.Store(nil)
		return false, nil
	case sum == f.refused && f.Broken() != nil:
		return false, f.Broken()
	}
	if err == nil {
		err = f.take(texts, sum)
	}
	if err != nil {
		f.refused = sum
		f.broken.Store(&err)
		return false, err
	}
	f.broken.Store(nil)
	return true, nil
}

// Follow has Current follow the files until ctx ends. It tells nil when something new was
// taken or the files hold again what was, and once why something cannot be.
func (f *Files[T]) Follow(ctx context.Context, interval time.Duration, tell func(error)) {
	var told string
	for backoff.Sleep(ctx, interval) {
		changed, err := f.Reload()
		switch {
		case changed, told != "" && f.Broken() == nil:
			told = ""
			tell(nil)
		case err != nil && err.Error() != told:
			told = err.Error()
			tell(err)
		}
	}
}

func (f *Files[T]) take(texts [][]byte, sum [sha256.Size]byte) error {
	now, err := f.parse(texts)
	if err != nil {
		return err
	}
	f.current.Store(&now)
	f.taken = sum
	return nil
}

// read returns what the files hold, or why that cannot be read, and the sum of either.
func (f *Files[T]) read() (texts [][]byte, sum [sha256.Size]byte, err error) {
	for _, path := range f.paths {
		text, failed := regular(path, f.most)
		texts, err = append(texts, text), errors.Join(err, failed)
	}
	if err != nil {
		return nil, sha256.Sum256([]byte(err.Error())), err
	}
	return texts, sha256.Sum256(bytes.Join(texts, []byte{0})), nil
}

// regular reads a file. It does not wait for what is none, such as a pipe.
func regular(path string, most int) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file, its mode is %v", path, info.Mode())
	}
	text, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err == nil && len(text) > most {
		err = fmt.Errorf("%s is longer than %d KiB", path, most>>10)
	}
	return text, err
}
