package local

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"async-data-processor/durable"
)

var errNotOpen = errors.New("the broker's store is not open")

const (
	handOutsName = "handed-out"
	// maxHandOuts bounds how many envelopes of a shard count as handed out when a
	// process was killed. Its consumers had fewer.
	maxHandOuts = 4096
	// oldStore is what a store of version 1 had in its folder, of nats-server.
	oldStore = "jetstream"
)

// OpenFile takes the store at dir, and makes it if it is missing. Recover opens its
// file. progress, if not nil, hears about once a second of a check that takes longer.
func OpenFile(dir string, progress func(done, total int64)) (_ *File, err error) {
	dir, err = durable.Folder("broker store", dir, 0o700)
	if err != nil {
		return nil, err
	}
	if err := checkKind(dir); err != nil {
		return nil, err
	}
	lock, err := lockStore(dir)
	if err != nil {
		return nil, err
	}
	s := &File{dir: dir, lock: lock, progress: progress}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	if err := s.create(); err != nil {
		return nil, err
	}
	s.handOuts, err = os.OpenFile(filepath.Join(dir, handOutsName), os.O_RDWR|os.O_CREATE, 0o600)
	return s, err
}

// checkKind refuses a folder that this program cannot keep a store in.
func checkKind(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, oldStore)); err == nil {
		return fmt.Errorf("%s holds a broker store of an earlier version, with nats-server; "+
			"drain it with that version, or choose another folder", dir)
	}
	return durable.CheckLocal("broker store", dir)
}

// create makes the store's file if there never was one. It removes one that a
// process left unfinished.
func (s *File) create() error {
	if err := os.Remove(filepath.Join(s.dir, newFileName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err := os.Stat(s.path())
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// The hand-outs are made after the file. So they tell that there was one.
	if _, err := os.Stat(filepath.Join(s.dir, handOutsName)); err == nil {
		return fmt.Errorf("%w: %s is missing; put it back, or remove the folder to begin with an empty store", ErrDamaged, s.path())
	}
	s.created = true
	return createFile(s.dir, nil)
}

// Recover implements Store.
func (s *File) Recover(ctx context.Context) (map[int]Contents, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.wedged.Load(); err != nil {
		return nil, *err
	}
	if err := errors.Join(s.closeDB(), s.Check(), durable.SyncDir(s.dir)); err != nil {
		return nil, err
	}
	report, err := s.survey(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.reopen(); err != nil {
		return nil, err
	}
	s.clean, s.depths = report.Clean, map[int]int{}
	contents := map[int]Contents{}
	for n, q := range report.Queues {
		s.depths[n] = q.Depth
		contents[n] = Contents{Given: q.Sequence, First: q.First, Last: q.Last, Depth: q.Depth, Returns: q.Returns}
	}
	return contents, s.countHandOuts(contents)
}

// Check returns why what this process has is no longer the store at its path.
func (s *File) Check() error {
	if err := s.lock.Check(); err != nil {
		return fmt.Errorf("broker store: %w; stop this process, then start it again", err)
	}
	size := s.size.Load() // before the look, as it may grow meanwhile
	info, err := os.Stat(s.path())
	if err != nil {
		return fmt.Errorf("broker store: %w", err)
	}
	s.reading.RLock()
	defer s.reading.RUnlock()
	if s.info != nil && !os.SameFile(info, s.info) {
		return fmt.Errorf("broker store: %s was replaced under this process; stop it, then start it again", s.path())
	}
	if info.Size() < size {
		return fmt.Errorf("%w: %s was cut by another program, from %d to %d bytes", ErrDamaged, s.path(), size, info.Size())
	}
	s.size.Store(info.Size())
	return nil
}

// survey looks at the whole file, after an orderly stop at all but the bodies.
func (s *File) survey(ctx context.Context) (*Report, error) {
	f, err := os.Open(s.path())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return checkFile(ctx, f, false, s.progress)
}

// reopen opens the file with bbolt, closing it first if it was open.
//
// What is read may be in the page cache only: the process that wrote it was killed
// before its fsync, or that has failed, which marks a page as written all the same. A
// commit on top could take away pages that the state on the disk needs. So the meta
// pages are written again, and synced, before anything else is.
func (s *File) reopen() error {
	if err := s.closeDB(); err != nil {
		return err
	}
	f, err := os.OpenFile(s.path(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	metas, err := readMetas(f)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, s.path(), err)
	}
	pages := make([]byte, 2*metas[0].pageSize)
	if _, err := io.ReadFull(f, pages); err != nil {
		return err
	}
	if _, err := f.WriteAt(pages, 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var db *bbolt.DB
	err = s.caught(func() (err error) {
		db, err = bbolt.Open(s.path(), 0o600, options)
		return err
	})
	if err != nil {
		return fmt.Errorf("broker store %s: %w", s.path(), err)
	}
	s.reading.Lock()
	defer s.reading.Unlock()
	s.db, s.info, s.last = db, info, metas[0].txid
	s.commits.Add(1)
	return nil
}

// options are those of bbolt. The list of free pages is made anew at each open: it
// has no checksum, and a wrong one would cost data later.
var options = &bbolt.Options{
	NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, Timeout: time.Second,
	// Reserves addresses, no memory: a growing file need not wait for its readers.
	InitialMmapSize: 1 << 30,
}

// countHandOuts counts what may have been handed out before the process was killed,
// or the store lost, as returned once more. This is durable before anything is handed
// out again, so that an envelope that kills its process reaches the limit.
func (s *File) countHandOuts(contents map[int]Contents) error {
	notes, err := io.ReadAll(io.NewSectionReader(s.handOuts, 0, 1<<20))
	if err != nil {
		return err
	}
	var change Change
	for n := 0; len(notes) >= 8; n, notes = n+1, notes[8:] {
		upTo, c := binary.BigEndian.Uint64(notes), contents[n]
		if upTo < c.First || c.Depth == 0 {
			continue
		}
		items, err := s.keys(n, upTo)
		if err != nil {
			return err
		}
		for _, seq := range items {
			c.Returns[seq]++
			change.Returns = append(change.Returns, Return{Place{Queue: n, Seq: seq}, c.Returns[seq]})
		}
	}
	if len(change.Returns) > 0 {
		err = s.commit(&change)
	}
	if err == nil {
		err = s.forgetHandOuts()
	}
	if full(err) { // a count less, which must not keep the process from draining what is stored
		return nil
	}
	return err
}

// forgetHandOuts clears the notes. They keep their room, and there is some for those
// to come, so that a full disk can be drained.
func (s *File) forgetHandOuts() error {
	info, err := s.handOuts.Stat()
	if err == nil {
		_, err = s.handOuts.WriteAt(make([]byte, max(info.Size(), 8*1024)), 0)
	}
	return err
}

// keys returns the sequence numbers of a shard up to one, the first of them.
func (s *File) keys(shard int, upTo uint64) (seqs []uint64, err error) {
	err = s.caught(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			c := tx.Bucket(bucketQueues).Bucket(queueName(shard)).Cursor()
			for key, _ := c.First(); key != nil && len(seqs) < maxHandOuts; key, _ = c.Next() {
				seq := binary.BigEndian.Uint64(key)
				if seq > upTo {
					break
				}
				if len(key) == 8 {
					seqs = append(seqs, seq)
				}
			}
			return nil
		})
	})
	return seqs, err
}
