package local

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"async-data-processor/durable"
)

// The buckets of a store's file.
//
//	meta     "version" → "2"; "clean" → "1" after an orderly stop, absent while in use
//	queues   a bucket for each shard: sequence number → record; its own sequence is
//	         the last number given
//	dead     sequence number → record of a dead letter; its own sequence as above
//	returns  a bucket for each shard: sequence number → uvarint, how often it came back
//	depths   shard, or "dead" → uvarint, the number of records in its bucket
//
// The name of a shard's bucket is its number in 4 bytes, big-endian, as are the 8 of
// a sequence number. Each shard in queues has an entry in depths, and the reverse.
//
// A record of more than pieceBytes is cut: its first piece has its sequence number, the
// others that and their own number, from 1 on, in 4 bytes. Version 1 cut none.
var (
	bucketMeta    = []byte("meta")
	bucketQueues  = []byte("queues")
	bucketDead    = []byte("dead")
	bucketReturns = []byte("returns")
	bucketDepths  = []byte("depths")
	topBuckets    = [][]byte{bucketMeta, bucketQueues, bucketDead, bucketReturns, bucketDepths}

	keyVersion = []byte("version")
	keyClean   = []byte("clean")
	layout     = []byte("2") // the value of keyVersion
	oldLayout  = []byte("1") // another one that is read
	yes        = []byte("1") // the value of keyClean
)

// queueName is the name of a queue's bucket, and its key in depths.
func queueName(queue int) []byte {
	if queue == Dead {
		return bucketDead
	}
	return binary.BigEndian.AppendUint32(nil, uint32(queue))
}

// seqKey is the key of a sequence number.
func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// createFile makes the file of a store in dir. Unless fill is nil, it fills the file.
// The file gets its name when it is whole and durable:
//
//	write queue.db.new, fsync it, rename it to queue.db, fsync the folder
func createFile(dir string, fill func(*bbolt.DB) error) (err error) {
	path := filepath.Join(dir, newFileName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, NoSync: true,
	})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range topBuckets {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		if err := tx.Bucket(bucketMeta).Put(keyVersion, layout); err != nil {
			return err
		}
		return tx.Bucket(bucketDepths).Put(bucketDead, []byte{0})
	})
	if err == nil && fill != nil {
		err = fill(db)
	}
	if err == nil {
		err = db.Sync()
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := os.Rename(path, filepath.Join(dir, FileName)); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}
