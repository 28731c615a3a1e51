package local

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"async-data-processor/durable"
)

// Salvage copies what can be read of the store at from, which no process may have,
// into a new store in the folder to, which must be empty or not exist. It changes
// nothing in from. The report tells what it read; its Err, what it could not. After
// an error there is no new store.
func Salvage(ctx context.Context, from, to string, progress func(done, total int64)) (r *Report, err error) {
	err = withStore(from, func(f *os.File) error {
		s, err := newSurvey(ctx, f, true, 1, progress)
		if err != nil {
			return err
		}
		if !s.start() {
			return s.err()
		}
		r = s.report
		return s.copyTo(from, to)
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// copyTo makes the new store.
func (s *survey) copyTo(from, to string) error {
	switch entries, err := os.ReadDir(to); {
	case err == nil && len(entries) > 0:
		return fmt.Errorf("%s is not empty; choose another folder", to)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if rel, err := filepath.Rel(from, to); err == nil && filepath.IsLocal(rel) {
		return fmt.Errorf("%s is in the folder of the old store; choose another folder", to)
	}
	to, err := durable.Folder("broker store", to, 0o700)
	if err != nil {
		return err
	}
	lock, err := lockStore(to)
	if err != nil {
		return err
	}
	err = createFile(to, func(db *bbolt.DB) error {
		c := &copier{db: db, queues: s.report.Queues, depths: map[int]int{}}
		s.record = c.add
		s.readQueues()
		if err := s.ctx.Err(); err != nil {
			return err // not all was read
		}
		return c.finish()
	})
	if err != nil {
		err = fmt.Errorf("write broker store %s: %w", to, err)
	}
	return errors.Join(err, lock.Close())
}

// copier writes records to a new file.
type copier struct {
	db      *bbolt.DB
	queues  map[int]*Queue // of the old file
	depths  map[int]int
	waiting []copied
	bytes   int   // of their records
	err     error // the first one; the rest is not written
}

type copied struct {
	queue  int
	seq    uint64
	record []byte
}

// copyBytes are held in memory until they are written.
const copyBytes = 8 << 20

func (c *copier) add(queue int, seq uint64, record []byte) {
	c.waiting = append(c.waiting, copied{queue, seq, bytes.Clone(record)})
	if c.bytes += len(record); c.bytes >= copyBytes {
		c.write()
	}
}

// write writes what waits, and how often it came back.
func (c *copier) write() {
	if c.err == nil {
		c.err = c.db.Update(func(tx *bbolt.Tx) error {
			for _, it := range c.waiting {
				b, returns, err := queueBuckets(tx, it.queue)
				if err != nil {
					return err
				}
				key := seqKey(it.seq)
				if b.Get(key) != nil {
					continue // a damaged tree may lead to an older copy of its page
				}
				b.FillPercent = 1 // the records ascend
				if n := c.queues[it.queue].Returns[it.seq]; n > 0 {
					err = returns.Put(key, binary.AppendUvarint(nil, uint64(n)))
				}
				if err = errors.Join(err, putRecord(b, it.seq, it.record)); err != nil {
					return err
				}
				c.depths[it.queue]++
			}
			return nil
		})
	}
	c.waiting, c.bytes = nil, 0
}

// finish writes the rest, the last numbers given, and the depths.
func (c *copier) finish() error {
	c.write()
	if c.err != nil {
		return c.err
	}
	return c.db.Update(func(tx *bbolt.Tx) error {
		for n, q := range c.queues {
			b, _, err := queueBuckets(tx, n)
			if err != nil {
				return err
			}
			depth := binary.AppendUvarint(nil, uint64(c.depths[n]))
			if err := errors.Join(b.SetSequence(max(q.Sequence, q.Last)), tx.Bucket(bucketDepths).Put(queueName(n), depth)); err != nil {
				return err
			}
		}
		return nil
	})
}

// queueBuckets returns the bucket of a queue and that of its returns; it makes them
// if they are missing. Dead letters have no returns.
func queueBuckets(tx *bbolt.Tx, queue int) (b, returns *bbolt.Bucket, err error) {
	if queue == Dead {
		return tx.Bucket(bucketDead), nil, nil
	}
	if b, err = tx.Bucket(bucketQueues).CreateBucketIfNotExists(queueName(queue)); err == nil {
		returns, err = tx.Bucket(bucketReturns).CreateBucketIfNotExists(queueName(queue))
	}
	return b, returns, err
}
