package local

import (
	"errors"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"async-data-processor/durable"
)

const (
	// minCompact is the size from which a file is worth being made smaller.
	minCompact = 64 << 20
	// minCompactLow is the same on a disk that lacks space.
	minCompactLow = 256 << 10
	// maxCompact bounds what is copied for it.
	maxCompact = 32 << 20
)

// Compact replaces the file by a smaller one with the same contents, if it has a size,
// and most of it is free. Commits go on while the contents are copied; after one, nothing is replaced.
// A commit waits for a rename and an fsync of the folder at most.
//
//	copy to queue.db.new, fsync it, rename it to queue.db, fsync the folder
func (s *File) Compact(minSize int64) error {
	s.reading.RLock()
	db := s.db
	size, used := s.sizes()
	commits := s.commits.Load()
	if db == nil || size < minSize || used > min(size/4, maxCompact) {
		s.reading.RUnlock()
		return nil
	}
	smaller, err := s.copy(db)
	s.reading.RUnlock()
	if err != nil {
		return err
	}

	s.writing.Lock()
	defer s.writing.Unlock()
	if s.db != db || s.commits.Load() != commits {
		return errors.Join(os.Remove(smaller.Path()), smaller.Close())
	}
	info, err := os.Stat(smaller.Path())
	if err != nil {
		return errors.Join(err, smaller.Close())
	}
	err = errors.Join(os.Rename(smaller.Path(), s.path()), durable.SyncDir(s.dir), s.closeDB())
	s.reading.Lock()
	defer s.reading.Unlock()
	if err != nil {
		// Which file has the name is not known, nor whether a loss of power brings the
		// old one back. So nothing is written before Recover has synced the folder.
		s.info = nil
		s.size.Store(0)
		return errors.Join(err, smaller.Close())
	}
	s.db, s.info = smaller, info
	s.size.Store(info.Size())
	s.last = uint64(s.txid())
	return nil
}

// sizes returns the size of the file, and of the pages in use. reading is held.
func (s *File) sizes() (size, used int64) {
	if s.db == nil {
		return 0, 0
	}
	var pageSize int
	err := s.caught(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			size, pageSize = tx.Size(), s.db.Info().PageSize
			return nil
		})
	})
	if err != nil {
		return 0, 1
	}
	stats := s.db.Stats()
	return size, size - int64(stats.FreePageN+stats.PendingPageN)*int64(pageSize)
}

// copy returns a new database with the contents of another one.
func (s *File) copy(of *bbolt.DB) (_ *bbolt.DB, err error) {
	path := filepath.Join(s.dir, newFileName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	unsynced := *options
	unsynced.NoSync = true // until it is whole
	db, err := bbolt.Open(path, 0o600, &unsynced)
	if err != nil {
		return nil, err
	}
	if err = s.caught(func() error { return bbolt.Compact(db, of, 1<<20) }); err == nil {
		err = db.Sync()
	}
	db.NoSync = false
	if err != nil {
		return nil, errors.Join(err, db.Close(), os.Remove(path))
	}
	return db, nil
}
