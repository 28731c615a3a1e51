package verify

import (
	"bufio"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"sync"
)

// ledger remembers every message, and gives them back sorted. It holds one run
// of records in memory; full ones go to a temporary file. Until sorted its
// methods may be called concurrently.
type ledger struct {
	mu    sync.Mutex // guards what follows
	run   []record
	limit int // records of a run
	runs  []run
	spill *log // of records
	texts *log // of paths, and of ids that are not ours
}

// run is where sorted records stand in the spill.
type run struct{ from, to int64 }

func newLedger(dir string, limit int) (*ledger, error) {
	spill, err := newLog(dir)
	if err != nil {
		return nil, err
	}
	texts, err := newLog(dir)
	if err != nil {
		spill.close()
		return nil, err
	}
	// Made at its size, because growth would leave as much garbage. Pages that are
	// not used are not touched.
	return &ledger{run: make([]record, 0, limit), limit: limit, spill: spill, texts: texts}, nil
}

func (l *ledger) close() {
	l.spill.close()
	l.texts.close()
}

// file remembers a path; the offset stands for it in records.
func (l *ledger) file(path string) (offset uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.put([]byte(path))
}

// foreign remembers an id that is not ours with the file that it is in.
func (l *ledger) foreign(file uint64, id string) (offset uint64, err error) {
	text := append(binary.AppendUvarint(nil, file), id...)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.put(text)
}

func (l *ledger) put(text []byte) (offset uint64, err error) {
	offset = uint64(l.texts.size)
	if offset > maxOffset {
		return 0, errors.New("too many files for one run")
	}
	err = l.texts.write(binary.AppendUvarint(nil, uint64(len(text))))
	if err == nil {
		err = l.texts.write(text)
	}
	return offset, err
}

// text returns what put remembers at the offset.
func (l *ledger) text(offset uint64) ([]byte, error) {
	in := bufio.NewReaderSize(l.texts.section(int64(offset), l.texts.size), 512)
	size, err := binary.ReadUvarint(in)
	if err != nil {
		return nil, fmt.Errorf("read back a temporary file: %w", err)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(in, text); err != nil {
		return nil, fmt.Errorf("read back a temporary file: %w", err)
	}
	return text, nil
}

// where returns a record's id and path.
func (l *ledger) where(r record) (id, path string, err error) {
	text, err := l.text(r.offset())
	if err != nil {
		return "", "", err
	}
	if r.index() != foreignIndex {
		return join(r.submission(), r.index()), string(text), nil
	}
	file, n := binary.Uvarint(text)
	id = string(text[n:])
	if text, err = l.text(file); err != nil {
		return "", "", err
	}
	return id, string(text), nil
}

// add remembers the records.
func (l *ledger) add(records []record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(records) > 0 {
		n := min(len(records), l.limit-len(l.run))
		l.run = append(l.run, records[:n]...)
		records = records[n:]
		if len(l.run) == l.limit {
			if err := l.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush moves the run to the spill, sorted. The caller holds mu: readers that
// fill runs faster than the disk takes them have to wait anyway.
func (l *ledger) flush() error {
	slices.SortFunc(l.run, compareRecords)
	from := l.spill.size
	var b [recordBytes]byte
	for _, r := range l.run {
		if err := l.spill.write(r.append(b[:0])); err != nil {
			return err
		}
	}
	l.run = l.run[:0]
	l.runs = append(l.runs, run{from, l.spill.size})
	return nil
}

// sorted yields every record, in order. Nothing may be added any more.
func (l *ledger) sorted() iter.Seq2[record, error] {
	return func(yield func(record, error) bool) {
		if err := l.texts.flush(); err != nil {
			yield(record{}, err)
			return
		}
		if len(l.runs) == 0 { // it fits, so nothing has to be read back
			slices.SortFunc(l.run, compareRecords)
			for _, r := range l.run {
				if !yield(r, nil) {
					return
				}
			}
			return
		}
		err := l.flush()
		l.run = nil // its memory goes to the read buffers
		if err == nil {
			err = l.spill.flush()
		}
		if err != nil {
			yield(record{}, err)
			return
		}
		l.merge(yield)
	}
}

// merge yields the records of the runs in order, with about as much memory for
// their read buffers as one run needs.
func (l *ledger) merge(yield func(record, error) bool) {
	buffer := min(max(l.limit*recordBytes/len(l.runs), 4<<10), 256<<10)
	var h sources
	for _, r := range l.runs {
		if r.from == r.to {
			continue
		}
		s := &source{in: bufio.NewReaderSize(l.spill.section(r.from, r.to), buffer)}
		if err := s.next(); err != nil {
			yield(record{}, err)
			return
		}
		h = append(h, s)
	}
	heap.Init(&h)
	for len(h) > 0 {
		if !yield(h[0].first, nil) {
			return
		}
		switch err := h[0].next(); {
		case err == io.EOF:
			heap.Pop(&h)
		case err != nil:
			yield(record{}, err)
			return
		default:
			heap.Fix(&h, 0)
		}
	}
}

// source is what is left of a run.
type source struct {
	first record
	in    *bufio.Reader
}

// next moves to the next record, or fails with io.EOF.
func (s *source) next() error {
	b, err := s.in.Peek(recordBytes)
	if err == io.EOF && len(b) == 0 {
		return err
	}
	if err != nil {
		return fmt.Errorf("read back a temporary file: %w", err)
	}
	s.first = parseRecord(b)
	_, err = s.in.Discard(recordBytes)
	return err
}

// sources is a heap (container/heap) by the first record.
type sources []*source

func (h sources) Len() int           { return len(h) }
func (h sources) Less(i, j int) bool { return compareRecords(h[i].first, h[j].first) < 0 }
func (h sources) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *sources) Push(x any)        { *h = append(*h, x.(*source)) }

func (h *sources) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	*h = (*h)[:last]
	return s
}

// log is a temporary file that is written once, then read anywhere.
type log struct {
	f    *os.File
	out  *bufio.Writer
	size int64 // what is still in out included
}

// newLog makes the file and removes its name, so that nothing is left, however the
// process ends.
func newLog(dir string) (*log, error) {
	f, err := os.CreateTemp(dir, "async-data-processor-verify-*")
	if err != nil {
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("make a temporary file: %w", err), f.Close())
	}
	return &log{f: f, out: bufio.NewWriterSize(f, 256<<10)}, nil
}

func (l *log) write(b []byte) error {
	l.size += int64(len(b))
	if _, err := l.out.Write(b); err != nil {
		return fmt.Errorf("write a temporary file: %w", err)
	}
	return nil
}

func (l *log) flush() error {
	if err := l.out.Flush(); err != nil {
		return fmt.Errorf("write a temporary file: %w", err)
	}
	return nil
}

func (l *log) section(from, to int64) io.Reader {
	return io.NewSectionReader(l.f, from, to-from)
}

func (l *log) close() { _ = l.f.Close() } // it is gone with this
