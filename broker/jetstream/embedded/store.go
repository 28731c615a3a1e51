package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"async-data-processor/durable"
)

var (
	// ErrStoreInUse: another process, or another broker of this one, has the
	// store of an embedded broker.
	ErrStoreInUse = errors.New("the broker's store is in use")

	// ErrStoreDamaged: the store lacks something that it held, or holds what
	// cannot be read. Nothing was changed.
	ErrStoreDamaged = errors.New("the broker's store is damaged")
)

// Names in the folder of a store, beside the server's own "jetstream".
const (
	lockName        = "lock"
	highWaterPrefix = "sequence."   // and the name of a stream; see highWater
	manifestName    = "closed.json" // see manifest
	asideName       = "damaged"     // what was taken out of a damaged store
	accountsPath    = ServerFolder
	probePrefix     = "_test_" // of files with which the server finds out whether it may write
	streamsPath     = accountsPath + "/$G/streams"
	messagesName    = "msgs"
	consumerPath    = "obs"
	blockSuffix     = ".blk"
	indexName       = "index.db" // the server's summary of the blocks; it can rebuild it
)

// store is the folder of an embedded broker, locked by this process.
type store struct {
	dir  string // absolute, so that a change of working directory does not matter
	lock *durable.Lock
}

// openStore makes the folder if it is missing and takes its lock. Its errors
// name the folder and say what to do.
func openStore(dir string) (_ *store, err error) {
	path, err := durable.Folder("broker store", dir, 0o700)
	if err != nil {
		return nil, err
	}
	lock, err := lockStore(path)
	if err != nil {
		return nil, err
	}
	return &store{dir: path, lock: lock}, nil
}

// lockStore takes the lock of the store at path.
func lockStore(path string) (*durable.Lock, error) {
	f, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock broker store: %w", err)
	}
	lock, err := durable.TryLock(f, f.Name())
	if errors.Is(err, durable.ErrLocked) {
		owner := "another process"
		text, _ := os.ReadFile(f.Name())
		if pid, err := strconv.Atoi(string(bytes.TrimSpace(text))); err == nil {
			owner = fmt.Sprintf("process %d", pid)
		}
		return nil, fmt.Errorf("%w: %s has %s; stop it, connect to it instead, or choose another folder", ErrStoreInUse, owner, path)
	}
	if err != nil {
		return nil, fmt.Errorf("lock broker store %s: %w", path, err)
	}
	// For the message above only, so a full disk may refuse it.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return lock, nil
}

// unlock gives the store to the next process. The pid stays: a process
// reads it only when it finds the lock held.
func (s *store) unlock() error { return s.lock.Close() }

// path returns the path of something in the store.
func (s *store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// syncTree makes the names of the server's folders durable, which the server
// does for none of them: it syncs what it writes and the folder around a
// renamed file, but not the folders it makes nor the names of its blocks.
func (s *store) syncTree() error {
	err := filepath.WalkDir(s.path(accountsPath), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return ignoreMissing(err)
		}
		return ignoreMissing(durable.SyncDir(path))
	})
	return errors.Join(err, durable.SyncDir(s.dir))
}

// aside makes room for something of the store in its folder of damaged things,
// where the server does not look.
func (s *store) aside(path string) (to string, err error) {
	rel, err := filepath.Rel(s.path(streamsPath), path)
	if err != nil {
		return "", err
	}
	to = s.path(asideName, time.Now().UTC().Format("20060102T150405.000000000"), rel)
	return to, durable.Mkdir(filepath.Dir(to), 0o700)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
