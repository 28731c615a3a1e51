package local

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.etcd.io/bbolt"

	"async-data-processor/durable"
)

// Salvage copies what can be read of the store at from, which no process may have,
// into a new store in the folder to, which must be empty or not exist. It changes
// nothing in from. The report tells what it read; its Err, what it could not. An
// error means that there is no new store.
func Salvage(from, to string, progress func(done, total int64)) (_ *Report, err error) {
	f, unlock, err := openUnchanged(from)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	s, err := newSurvey(f, true, 1, progress)
	if err != nil {
		return nil, err
	}
	if !s.start() {
		return nil, s.err()
	}
	to, lock, err := newFolder(from, to)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	err = createFile(to, func(db *bbolt.DB) error {
		c := &copier{db: db, survey: s, depths: map[int]int{}}
		s.record = c.put
		s.readQueues()
		return c.finish()
	})
	if err != nil {
		return nil, fmt.Errorf("write broker store %s: %w", to, err)
	}
	return s.report, nil
}

// newFolder makes the folder of a new store, outside of the old one, and takes its
// lock.
func newFolder(from, to string) (path string, lock *durable.Lock, err error) {
	switch entries, err := os.ReadDir(to); {
	case err == nil && len(entries) > 0:
		return "", nil, fmt.Errorf("%s is not empty; choose another folder", to)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", nil, err
	}
	old, err := filepath.Abs(from)
	if err != nil {
		return "", nil, err
	}
	if path, err = filepath.Abs(to); err != nil {
		return "", nil, err
	}
	if strings.HasPrefix(path+"/", old+"/") {
		return "", nil, fmt.Errorf("%s is in the folder of the old store; choose another folder", to)
	}
	if path, err = durable.Folder("broker store", to, 0o700); err != nil {
		return "", nil, err
	}
	lock, err = lockStore(path)
	return path, lock, err
}

// copier writes records to a new file.
type copier struct {
	db     *bbolt.DB
	survey *survey
	tx     *bbolt.Tx // nil between two
	bytes  int       // of the records in it
	depths map[int]int
	err    error // the first one; the rest is not written
}

// A transaction of this many bytes is held in memory.
const copyBytes = 8 << 20

// put writes a record of the old file, and how often it came back.
func (c *copier) put(queue int, seq uint64, record []byte) {
	if c.err != nil {
		return
	}
	c.err = c.write(queue, func(b, returns *bbolt.Bucket) error {
		key := seqKey(seq)
		if b.Get(key) != nil {
			return nil // a damaged tree may lead to an older copy of its page
		}
		c.depths[queue]++
		c.bytes += len(record)
		if n := c.survey.report.Queues[queue].Returns[seq]; n > 0 && returns != nil {
			if err := returns.Put(key, binary.AppendUvarint(nil, uint64(n))); err != nil {
				return err
			}
		}
		return b.Put(key, bytes.Clone(record))
	})
	if c.err == nil && c.bytes >= copyBytes {
		c.err = c.commit()
	}
}

// write calls do with the bucket of a queue and that of its returns, which dead
// letters do not have.
func (c *copier) write(queue int, do func(b, returns *bbolt.Bucket) error) (err error) {
	if c.tx == nil {
		if c.tx, err = c.db.Begin(true); err != nil {
			return err
		}
	}
	if queue == Dead {
		return do(c.tx.Bucket(bucketDead), nil)
	}
	b, err := c.tx.Bucket(bucketQueues).CreateBucketIfNotExists(queueName(queue))
	if err != nil {
		return err
	}
	b.FillPercent = 1 // the records ascend
	returns, err := c.tx.Bucket(bucketReturns).CreateBucketIfNotExists(queueName(queue))
	if err != nil {
		return err
	}
	return do(b, returns)
}

func (c *copier) commit() error {
	tx := c.tx
	c.tx, c.bytes = nil, 0
	return tx.Commit()
}

// finish writes the last numbers given and the depths.
func (c *copier) finish() error {
	for _, n := range c.survey.report.Sorted() {
		if c.err != nil {
			break
		}
		q := c.survey.report.Queues[n]
		c.err = c.write(n, func(b, _ *bbolt.Bucket) error {
			if err := b.SetSequence(max(q.Sequence, q.Last)); err != nil {
				return err
			}
			return c.tx.Bucket(bucketDepths).Put(queueName(n), binary.AppendUvarint(nil, uint64(c.depths[n])))
		})
	}
	switch {
	case c.tx == nil:
		return c.err
	case c.err != nil:
		return errors.Join(c.err, c.tx.Rollback())
	}
	return c.commit()
}
