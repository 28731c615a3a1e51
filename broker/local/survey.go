package local

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// survey reads a store's file.
type survey struct {
	ctx        context.Context // ends it before its end
	file       io.ReaderAt
	size       int64
	full       bool  // with the checksums of the records
	goroutines int   // that read
	tree       *tree // of the one that is read
	report     *Report
	// record, if not nil, gets each good record; full is needed. Those of a queue
	// ascend if one goroutine reads.
	record func(queue int, seq uint64, record []byte)

	progress    func(done, total int64)
	done, total atomic.Int64
	due         atomic.Int64 // when to tell progress, in Unix ns

	mu      sync.Mutex // guards what follows, and the Damage of the report and its queues
	failure error      // the first error of reading
}

func newSurvey(ctx context.Context, f *os.File, full bool, goroutines int, progress func(done, total int64)) (*survey, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s := &survey{ctx: ctx, file: f, size: info.Size(), full: full, goroutines: goroutines, progress: progress}
	s.report = &Report{Path: f.Name()}
	s.due.Store(time.Now().Add(time.Second).UnixNano())
	return s, nil
}

// start opens the newest state of the file, or the one before if the list of its
// queues cannot be read.
func (s *survey) start() (ok bool) {
	wrong := s.wrong(nil, "")
	if s.size == 0 {
		wrong(flaw("it is empty"))
		return false
	}
	metas, err := readMetas(s.file)
	if err != nil {
		wrong(err)
	}
	for i, m := range metas {
		if i > 0 {
			wrong(flaw("its newest state cannot be read, so this is the one before"))
		}
		if !s.open(m) {
			continue
		}
		for _, q := range s.report.Queues {
			if i > 0 {
				q.Want = -1 // it was that many before
			}
		}
		return true
	}
	return false
}

// check reads all of the file.
func (s *survey) check() error {
	if s.start() {
		s.full = s.full || !s.report.Clean
		s.readQueues()
	}
	return s.err()
}

// err tells what was wrong. An error of reading is not damage.
func (s *survey) err() error {
	if s.failure != nil {
		return fmt.Errorf("read broker store %s: %w", s.report.Path, s.failure)
	}
	return s.report.Err()
}

// wrong returns a function that takes what is wrong with a queue; nil is the file.
func (s *survey) wrong(q *Queue, prefix string) func(error) {
	return func(err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !isFlaw(err) && s.failure == nil {
			s.failure = err
		}
		switch text := prefix + err.Error(); {
		case q == nil:
			s.report.Damage = append(s.report.Damage, text)
		case q.Damage == "":
			q.Damage = text
		}
	}
}

// open reads all of a state of the file but what its queues hold. It fails if it
// finds no list of the queues.
func (s *survey) open(m *meta) (ok bool) {
	s.tree = newTree(s.ctx, s.file, s.size, m, s.goroutines)
	r, wrong := s.report, s.wrong(nil, "")
	s.total.Store(0)
	r.Clean, r.Queues = false, map[int]*Queue{}
	if want := int64(m.pages) * int64(m.pageSize); s.size < want {
		wrong(flawf("the file lacks its last %d bytes", want-s.size))
	}
	damages := len(r.Damage)
	top := s.buckets(m.root, wrong)
	for _, name := range topBuckets {
		if _, ok := top[string(name)]; !ok && len(r.Damage) == damages {
			wrong(flawf("it has no bucket %q", name))
		}
	}
	s.readMarks(top[string(bucketMeta)])

	queues := s.buckets(top[string(bucketQueues)], s.wrong(nil, "the list of queues: "))
	ok = len(queues) > 0 || len(r.Damage) == damages
	if b, ok := top[string(bucketDead)]; ok {
		r.Queues[Dead] = &Queue{bucket: b, Sequence: b.sequence, Want: -1}
	}
	for name, b := range queues {
		if n, err := queueNumber(name); err != nil || n == Dead {
			wrong(flawf("the list of queues has %q", name))
		} else {
			r.Queues[n] = &Queue{bucket: b, Sequence: b.sequence, Want: -1}
		}
	}
	s.readDepths(top[string(bucketDepths)])
	for name, b := range s.buckets(top[string(bucketReturns)], s.wrong(nil, "the list of returns: ")) {
		n, err := queueNumber(name)
		if q := r.Queues[n]; err != nil || q == nil || n == Dead {
			wrong(flawf("the list of returns has %q, which is no queue", name))
		} else {
			q.returns = b
		}
	}
	return ok
}

// readMarks reads the bucket "meta".
func (s *survey) readMarks(b bucket) {
	if !b.there() {
		return
	}
	var version string
	s.each(b, false, s.wrong(nil, "its marks: "), func(key, value []byte) error {
		switch string(key) {
		case string(keyVersion):
			version = string(value)
		case string(keyClean):
			s.report.Clean = string(value) == string(yes)
		}
		return nil
	})
	if version != string(layout) && version != string(oldLayout) {
		s.wrong(nil, "")(flawf("its layout is %q, not %q", version, layout))
	}
}

// readDepths reads how many envelopes each queue must have.
func (s *survey) readDepths(b bucket) {
	whole := b.there()
	wrong := func(err error) {
		whole = false
		s.wrong(nil, "the list of depths: ")(err)
	}
	s.each(b, false, wrong, func(key, value []byte) error {
		n, err := queueNumber(string(key))
		depth, size := binary.Uvarint(value)
		if err != nil || size != len(value) || depth > math.MaxInt32 {
			return flawf("%q is not one", key)
		}
		q := s.report.Queues[n]
		if q == nil {
			q = &Queue{Damage: "its queue is missing"}
			s.report.Queues[n] = q
		}
		q.Want = int(depth)
		s.total.Add(int64(depth))
		return nil
	})
	for _, q := range s.report.Queues {
		if whole && q.Want < 0 {
			s.wrong(q, "")(flaw("its depth is missing"))
		}
	}
}

// readQueues reads what the queues hold.
func (s *survey) readQueues() {
	for _, q := range s.report.Queues {
		q.Returns = map[uint64]int{}
		s.each(q.returns, false, s.wrong(q, "its returns: "), func(key, value []byte) error {
			n, size := binary.Uvarint(value)
			if len(key) != 8 || size != len(value) || n > math.MaxInt32 {
				return flawf("%x is not one", key)
			}
			q.Returns[binary.BigEndian.Uint64(key)] = int(n)
			return nil
		})
	}
	for _, n := range s.report.Sorted() {
		if q := s.report.Queues[n]; q.bucket.there() {
			s.tree.spawn(func() { s.readQueue(n, q) })
		}
	}
	s.tree.group.Wait()
	for _, q := range s.report.Queues {
		switch missing := q.Want - q.Depth; {
		case q.Want >= 0 && missing > 0 && q.Damage == "":
			q.Damage = fmt.Sprintf("%d of its %d envelopes are missing", missing, q.Want)
		case q.Want >= 0 && missing > 0:
			q.Damage = fmt.Sprintf("%d of its %d envelopes cannot be read: %s", missing, q.Want, q.Damage)
		case q.Damage != "":
		case q.Want >= 0 && missing < 0:
			q.Damage = fmt.Sprintf("it has %d envelopes, not %d", q.Depth, q.Want)
		case q.Sequence < q.Last:
			q.Damage = fmt.Sprintf("its last envelope has the number %d, its last number is %d", q.Last, q.Sequence)
		}
	}
}

// readQueue takes the records of a queue.
func (s *survey) readQueue(n int, q *Queue) {
	wrong := s.wrong(q, "")
	var seq uint64
	var record []byte // what was read of it
	whole := false    // what belongs to it so far could be read
	take := func() {
		if !whole {
			return
		}
		if s.full {
			if err := checkRecord(n, seq, record); err != nil {
				wrong(flawf("envelope %d: %v", seq, err))
				return
			}
			if s.record != nil {
				s.record(n, seq, record)
			}
		}
		if q.Depth == 0 {
			q.First = seq
		}
		q.Depth, q.First, q.Last = q.Depth+1, min(q.First, seq), max(q.Last, seq)
		s.count()
	}
	s.tree.walk(q.bucket, visitor{wrong: wrong, leaf: func(p *page) {
		for i, key := range p.keys {
			switch {
			case p.isBucket(i) || len(key) != 8 && len(key) != 12:
				wrong(flawf("%x is not an envelope", key))
				continue
			case len(key) == 8:
				take()
				seq, record, whole = binary.BigEndian.Uint64(key), record[:0], true
			case !whole || binary.BigEndian.Uint64(key) != seq:
				wrong(flawf("%x belongs to no envelope", key))
				continue
			}
			if !s.full {
				continue
			}
			value, err := p.value(i)
			if err != nil {
				wrong(err)
				whole = false
			}
			record = append(record, value...)
		}
	}})
	take()
}

// count counts a record for the progress.
func (s *survey) count() {
	done, now, due := s.done.Add(1), time.Now(), s.due.Load()
	if s.progress != nil && now.UnixNano() >= due && s.due.CompareAndSwap(due, now.Add(time.Second).UnixNano()) {
		s.progress(done, s.total.Load())
	}
}

// buckets returns the buckets in a bucket.
func (s *survey) buckets(b bucket, wrong func(error)) map[string]bucket {
	found := map[string]bucket{}
	s.each(b, true, wrong, func(key, value []byte) error {
		inner, err := parseBucket(value)
		if err == nil {
			found[string(key)] = inner
		}
		return err
	})
	return found
}

// each calls do for each entry of a bucket that is there, one after the other. All
// have to be buckets or all values.
func (s *survey) each(b bucket, buckets bool, wrong func(error), do func(key, value []byte) error) {
	if !b.there() {
		return
	}
	s.tree.walk(b, visitor{wrong: wrong, leaf: func(p *page) {
		for i, key := range p.keys {
			value, err := p.value(i)
			if err == nil && p.isBucket(i) != buckets {
				err = flawf("%q is of the wrong kind", key)
			}
			if err == nil {
				err = do(key, value)
			}
			if err != nil {
				wrong(err)
			}
		}
	}})
}

// queueNumber is the reverse of queueName.
func queueNumber(name string) (int, error) {
	switch {
	case name == string(bucketDead):
		return Dead, nil
	case len(name) == 4 && name[0] < 0x80:
		return int(binary.BigEndian.Uint32([]byte(name))), nil
	}
	return 0, flawf("%q is not the name of a queue", name)
}
