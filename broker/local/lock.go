package local

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"async-data-processor/durable"
)

// Names in the folder of a store.
const (
	// FileName is the name of a store's file.
	FileName    = "queue.db"
	newFileName = "queue.db.new" // while it is made
	lockName    = "lock"
)

// ErrInUse: another process, or another owner in this one, has the store.
var ErrInUse = errors.New("the broker's store is in use")

// lockStore takes the lock of the store at dir and writes this process's number
// into it. The number stays: a process reads it only when it finds the lock held.
func lockStore(dir string) (*durable.Lock, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock broker store: %w", err)
	}
	lock, err := tryLock(f, dir)
	if err != nil {
		return nil, err
	}
	// For the message of tryLock only, so a full disk may refuse it.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return lock, nil
}

// lockUnchanged takes the lock of the store at dir without a change of the folder.
// It returns nil if there is no lock file, so that no process has the store.
func lockUnchanged(dir string) (*durable.Lock, error) {
	f, err := os.Open(filepath.Join(dir, lockName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lock broker store: %w", err)
	}
	return tryLock(f, dir)
}

func tryLock(f *os.File, dir string) (*durable.Lock, error) {
	lock, err := durable.TryLock(f, f.Name())
	if errors.Is(err, durable.ErrLocked) {
		owner := "another process"
		text, _ := os.ReadFile(filepath.Join(dir, lockName))
		if pid, err := strconv.Atoi(string(bytes.TrimSpace(text))); err == nil {
			owner = fmt.Sprintf("process %d", pid)
		}
		return nil, fmt.Errorf("%w: %s has %s; stop it, or choose another folder", ErrInUse, owner, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("lock broker store %s: %w", dir, err)
	}
	return lock, nil
}
