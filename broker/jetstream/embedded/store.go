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

	"golang.org/x/sys/unix"
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
	lock *os.File
}

// openStore makes the folder if it is missing and takes its lock. Its errors
// name the folder and say what to do.
func openStore(dir string) (_ *store, err error) {
	if dir == "" {
		return nil, errors.New("broker store: no folder given")
	}
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("broker store %s: %w", dir, err)
	}
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("broker store %s: %w; move that file away or choose another folder", path, unix.ENOTDIR)
	}
	if err := makeDir(path); err != nil {
		return nil, fmt.Errorf("make broker store: %w; make %s by hand or choose another folder", err, path)
	}
	// Asked, not tried out with a file: a full disk must not refuse a start
	// that has messages to drain.
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK|unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return nil, fmt.Errorf("broker store %s: %w; let user %d read and write it or choose another folder", path, err, os.Geteuid())
	}
	lock, err := lockStore(path)
	if err != nil {
		return nil, err
	}
	return &store{dir: path, lock: lock}, nil
}

// lockStore takes the lock of the store at path. The lock file is never
// removed: between the removal and the next lock two processes could hold
// locks on two files of that name.
func lockStore(path string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock broker store: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		owner := "another process"
		text, _ := os.ReadFile(f.Name())
		if pid, err := strconv.Atoi(string(bytes.TrimSpace(text))); err == nil {
			owner = fmt.Sprintf("process %d", pid)
		}
		err = fmt.Errorf("%w: %s has %s; stop it, connect to it instead, or choose another folder", ErrStoreInUse, owner, path)
	case err != nil:
		err = fmt.Errorf("lock broker store %s: %w", path, err)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	// For the message above only, so a full disk may refuse it.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, nil
}

// unlock gives the store to the next process. The pid stays: whoever reads it
// has found the lock held.
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
		return ignoreMissing(syncDir(path))
	})
	return errors.Join(err, syncDir(s.dir))
}

// aside makes room for something of the store in its folder of damaged things,
// where the server does not look.
func (s *store) aside(path string) (to string, err error) {
	rel, err := filepath.Rel(s.path(streamsPath), path)
	if err != nil {
		return "", err
	}
	to = s.path(asideName, time.Now().UTC().Format("20060102T150405.000000000"), rel)
	return to, makeDir(filepath.Dir(to))
}

// makeDir makes the folder at path with the parents it lacks, and each durable
// by the fsync of the one that holds it.
func makeDir(path string) error {
	var missing []string
	for p := path; ; p = filepath.Dir(p) {
		if _, err := os.Stat(p); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, p)
	}
	// Others may read what is beside the store, as the output is by default.
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, p := range missing {
		if err := syncDir(filepath.Dir(p)); err != nil {
			return err
		}
	}
	return nil
}

// syncDir makes the names in the folder at path durable.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
