package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"async-data-processor/broker"
	"async-data-processor/durable"
)

// File is a Store in one file, in a folder that this process has locked. The layout
// is in bolt_create.go.
//
// bbolt reads through a mapping of the file. So a file that was cut while it was in
// use is not an error but a fault of the processor, which caught turns into one.
type File struct {
	dir      string
	lock     *durable.Lock
	progress func(done, total int64) // of the check at an open
	handOuts *os.File                // see HandOut
	created  bool                    // there was no file before

	writing sync.Mutex // held by Recover, Commit, Close, and when the file is replaced
	depths  map[int]int
	commits atomic.Uint64 // counts them, and openings; changed under writing
	clean   bool          // the file says that it was closed in order
	last    uint64        // the number of the last transaction

	wedged atomic.Pointer[error] // why it can never be used again
	size   atomic.Int64          // of the file when it was looked at last; it never shrinks in use

	reading sync.RWMutex // held by readers of db, and when it is replaced
	db      *bbolt.DB    // nil while it is not open
	info    os.FileInfo  // of its file
}

// caught returns what do returns, and a fault of the processor as an error: the file
// under the mapping was cut, or cannot be read. After one, bbolt may hold its locks for
// ever, so nothing is done any more.
func (s *File) caught(do func() error) (err error) {
	if err := s.wedged.Load(); err != nil {
		return *err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s was changed by another program, or cannot be read: %v", ErrDamaged, s.path(), p)
			s.wedged.Store(&err)
		}
	}()
	return do()
}

func (s *File) path() string { return filepath.Join(s.dir, FileName) }

// Commit implements Store.
func (s *File) Commit(c *Change) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.commit(c)
}

// commit is Commit. writing is held.
func (s *File) commit(c *Change) error {
	if s.db == nil {
		return broker.Unknown(errNotOpen)
	}
	if err := s.Check(); err != nil {
		return broker.Rejected(err)
	}
	before, rejected := 0, false
	depths := map[int]int{}
	err := s.caught(func() error {
		tx, err := s.db.Begin(true)
		if err != nil {
			return err
		}
		before = tx.ID() - 1
		if uint64(before) != s.last {
			return errors.Join(fmt.Errorf("%w: %s was changed by another program", ErrDamaged, s.path()), tx.Rollback())
		}
		if err := s.apply(tx, c, depths); err != nil {
			rejected = true
			return errors.Join(err, tx.Rollback())
		}
		return tx.Commit()
	})
	switch {
	case err == nil:
		s.commits.Add(1)
		s.last++
		s.clean = false
		maps.Copy(s.depths, depths)
		return nil
	case errors.Is(err, ErrDamaged):
		s.wedged.Store(&err)
		return broker.Unknown(err)
	case rejected || full(err) && s.txid() == before && s.reopen() == nil:
		return broker.Rejected(err)
	}
	// bbolt goes on from what it has mapped, with the free pages of the state before.
	// So nothing is committed to this file before it was opened anew.
	return broker.Unknown(errors.Join(err, s.closeDB()))
}

// full tells whether the error is about lack of space, which is told before anything
// is written.
func full(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG)
}

// txid is the number of the last transaction that the file has.
func (s *File) txid() (id int) {
	_ = s.caught(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			id = tx.ID()
			return nil
		})
	})
	return id
}

// apply does the change in a transaction, and sets the new depths of its queues.
func (s *File) apply(tx *bbolt.Tx, c *Change, depths map[int]int) error {
	buckets := map[int]*bbolt.Bucket{}
	bucket := func(queue int) (*bbolt.Bucket, error) {
		if b := buckets[queue]; b != nil {
			return b, nil
		}
		b := tx.Bucket(bucketDead)
		if queue != Dead {
			var err error
			if b, err = tx.Bucket(bucketQueues).CreateBucketIfNotExists(queueName(queue)); err != nil {
				return nil, err
			}
		}
		b.FillPercent = 1 // keys ascend
		buckets[queue], depths[queue] = b, s.depths[queue]
		return b, nil
	}
	for i := range c.Put {
		p := &c.Put[i]
		b, err := bucket(p.Queue)
		if err != nil {
			return err
		}
		record := appendRecord(make([]byte, 0, recordSize(p.Item)), p.Queue, p.Item)
		if err := errors.Join(putRecord(b, p.Item.Seq, record), b.SetSequence(p.Item.Seq)); err != nil {
			return err
		}
		depths[p.Queue]++
	}
	returns := tx.Bucket(bucketReturns)
	// Before what goes away: an item may have come back and then be settled.
	for _, r := range c.Returns {
		b, err := returns.CreateBucketIfNotExists(queueName(r.Queue))
		if err == nil {
			err = b.Put(seqKey(r.Seq), binary.AppendUvarint(nil, uint64(r.N)))
		}
		if err != nil {
			return err
		}
	}
	for _, p := range c.Delete {
		b, err := bucket(p.Queue)
		if err != nil {
			return err
		}
		if err := deleteRecord(b, p.Seq); err != nil {
			return err
		}
		depths[p.Queue]--
		if r := returns.Bucket(queueName(p.Queue)); p.Returned && r != nil {
			if err := r.Delete(seqKey(p.Seq)); err != nil {
				return err
			}
		}
	}
	for queue, n := range depths {
		if err := tx.Bucket(bucketDepths).Put(queueName(queue), binary.AppendUvarint(nil, uint64(n))); err != nil {
			return err
		}
	}
	if s.clean {
		return tx.Bucket(bucketMeta).Delete(keyClean)
	}
	return nil
}

// recordSize is room for the record of an item.
func recordSize(it *Item) int {
	return 64 + len(it.Envelope.ID) + len(it.Envelope.Body) + len(it.Reason)
}

// Read implements Store.
func (s *File) Read(queue int, after uint64, limit int) (items []Item, err error) {
	s.reading.RLock()
	defer s.reading.RUnlock()
	if s.db == nil {
		return nil, errNotOpen
	}
	err = s.caught(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketDead)
			if queue != Dead {
				b = tx.Bucket(bucketQueues).Bucket(queueName(queue))
			}
			if b == nil {
				return nil
			}
			bytes, c := 0, b.Cursor()
			for key, value := c.Seek(seqKey(after + 1)); key != nil && len(items) < limit && bytes < readBytes; {
				seq := binary.BigEndian.Uint64(key)
				var record []byte
				record, key, value = nextRecord(c, value)
				it, err := parseRecord(queue, seq, record)
				if err != nil {
					return fmt.Errorf("%w: %s: %s: envelope %d: %w", ErrDamaged, s.path(), QueueText(queue), seq, err)
				}
				items, bytes = append(items, it), bytes+len(record)
			}
			return nil
		})
	})
	return items, err
}

// HandOut implements Store. The note is a number a shard in a file of its own, which
// is not synced: it has to outlive this process, not the machine.
func (s *File) HandOut(shard int, upTo uint64) {
	// A disk without space has room for what is there already. An error costs a
	// count of one delivery, and that only after a crash.
	_, _ = s.handOuts.WriteAt(binary.BigEndian.AppendUint64(nil, upTo), int64(shard)*8)
}

// Close implements Store.
func (s *File) Close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	var errs []error
	if s.db != nil && s.wedged.Load() == nil {
		if s.Check() == nil { // else it may be another process's
			err := s.caught(func() error {
				return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyClean, yes) })
			})
			if err == nil {
				err = s.forgetHandOuts()
			}
			errs = append(errs, err)
		}
		errs = append(errs, s.closeDB())
	}
	return errors.Join(append(errs, s.handOuts.Close(), s.lock.Close())...)
}

// closeDB ends the use of db, when its readers have ended. writing is held.
func (s *File) closeDB() error {
	s.reading.Lock()
	defer s.reading.Unlock()
	if s.db == nil {
		return nil
	}
	db := s.db
	s.db = nil
	return s.caught(db.Close)
}
