package runner

import (
	"os"
	"sync"
	"sync/atomic"

	"async-data-processor/jobs/frame"
)

// What is kept of a log, in bytes. What is between is thrown away.
const (
	logHead = 16 << 20
	logTail = 1 << 20
)

// spool keeps the log of an attempt: the head in a file without a name, which the system
// removes with the process, the tail in memory. An offset counts all bytes, also those that
// were thrown away.
type spool struct {
	most int64 // of the head

	// These can be read while the disk holds up those who have the lock. They only grow.
	head   atomic.Int64 // bytes in the file
	length atomic.Int64 // of the log, by now
	whole  atomic.Bool  // no more comes

	mu     sync.Mutex // guards what follows
	file   *os.File   // nil before the first byte, and when it is closed
	full   bool       // no more goes into the file
	tail   []byte     // what came last after the head, up to twice logTail
	closed bool
}

func newSpool() *spool { return &spool{most: logHead} }

// Write never fails: what the disk does not take is thrown away, and counted.
func (s *spool) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := p
	if !s.full && !s.closed {
		n, err := s.store(p[:min(int64(len(p)), s.most-s.head.Load())])
		rest = p[n:]
		s.full = err != nil || s.head.Add(int64(n)) == s.most
	}
	s.tail = append(s.tail, rest[max(0, len(rest)-logTail):]...)
	if len(s.tail) > 2*logTail {
		s.tail = append(s.tail[:0], s.tail[len(s.tail)-logTail:]...)
	}
	s.length.Add(int64(len(p)))
	return len(p), nil
}

// store appends to the file. mu is locked.
func (s *spool) store(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if s.file == nil {
		f, err := os.CreateTemp("", "adp-log-*")
		if err != nil {
			return 0, err
		}
		s.file = f
		if err := os.Remove(f.Name()); err != nil {
			return 0, err
		}
	}
	return s.file.WriteAt(p, s.head.Load())
}

// end says that no more comes.
func (s *spool) end() { s.whole.Store(true) }

// close gives the file back to the system. The log cannot be read any more.
func (s *spool) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed = true; s.file != nil {
		_ = s.file.Close() // nothing of it is to be kept
		s.file = nil
	}
}

// ready returns how far the log can be sent. The tail can be when it is known what it is.
func (s *spool) ready() int64 {
	if s.whole.Load() {
		return s.length.Load()
	}
	return s.head.Load()
}

// part returns what is at an offset, at most frame.MaxLogPart, and how many bytes behind it
// were thrown away.
func (s *spool) part(offset int64) (data []byte, cut int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.tail[max(0, len(s.tail)-logTail):]
	head, length := s.head.Load(), s.length.Load()
	last := length - int64(len(kept)) // where the tail begins
	if offset >= last {
		kept = kept[offset-last:]
		return append(data, kept[:min(len(kept), frame.MaxLogPart)]...), 0
	}
	if offset < head {
		data = make([]byte, min(frame.MaxLogPart, head-offset))
		if s.closed {
			return nil, 0
		}
		n, err := s.file.ReadAt(data, offset)
		if data = data[:n]; err != nil { // what the disk has lost is thrown away, too
			return data, min(frame.MaxLogPart, head-offset) - int64(n)
		}
		offset += int64(n)
	}
	if s.whole.Load() && offset >= head {
		cut = last - offset
	}
	return data, cut
}
