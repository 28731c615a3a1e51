package client

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// run is entries of lines that follow each other, both ends included.
type run struct {
	first, last int64
	stamped     bool // all of them got their timestamp here
}

// appendLine adds a line behind the others.
func appendLine(runs []run, line int64, stamped bool) []run {
	if n := len(runs); n > 0 && runs[n-1].last == line-1 && runs[n-1].stamped == stamped {
		runs[n-1].last = line
		return runs
	}
	return append(runs, run{line, line, stamped})
}

func rangesOf(runs []run) []Range {
	ranges := make([]Range, 0, len(runs))
	for _, r := range runs {
		ranges = append(ranges, Range{r.first, r.last})
	}
	return merged(ranges)
}

// merged sorts ranges and joins those that touch.
func merged(ranges []Range) []Range {
	slices.SortFunc(ranges, func(a, b Range) int { return cmp.Compare(a.First, b.First) })
	var out []Range
	for _, r := range ranges {
		if n := len(out); n > 0 && r.First <= out[n-1].Last+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// entry is one of a batch of lines. Its text is as it was sent.
type entry struct {
	index   int
	line    int64
	stamped bool
	text    []byte
}

// entriesOf yields the entries of a batch. Lines hold no line ends, so these separate
// the entries in its array.
func entriesOf(b Batch) iter.Seq[entry] {
	return func(yield func(entry) bool) {
		rest, index := b.Array[1:len(b.Array)-1], 0
		for _, r := range b.Tag.([]run) {
			for line := r.first; line <= r.last; line++ {
				text, behind, more := bytes.Cut(rest, []byte{'\n'})
				if more {
					text = text[:len(text)-1] // the comma
				}
				if !yield(entry{index, line, r.stamped, text}) {
					return
				}
				rest, index = behind, index+1
			}
		}
	}
}

// original is the line as it was read.
func (e entry) original() []byte {
	if !e.stamped {
		return e.text
	}
	head, tail, _ := bytes.Cut(e.text, []byte{'{'})
	tail = bytes.TrimPrefix(tail[len(stampHead)+len(stampLayout)+1:], []byte{','})
	return slices.Concat(head, []byte{'{'}, tail)
}

// part is some entries of a batch.
type part struct {
	array []byte
	runs  []run
	count int
}

func (p *part) add(e entry) {
	if p.count == 0 {
		p.array = append(p.array, '[')
	} else {
		p.array = append(p.array, ',', '\n')
	}
	p.array = append(p.array, e.text...)
	p.runs = appendLine(p.runs, e.line, e.stamped)
	p.count++
}

// closed appends the part as a batch, unless it is empty.
func (p *part) closed(to []Batch) []Batch {
	if p.count == 0 {
		return to
	}
	return append(to, Batch{Array: append(p.array, ']'), Count: p.count, Tag: p.runs})
}

// A timestamp that is added has one length, so that it can be taken away again.
const (
	stampHead   = `"timestamp":"`
	stampLayout = "2006-01-02T15:04:05.000000Z"
	stampRoom   = len(stampHead) + len(stampLayout) + len(`",`)
)

// lacksTimestamp tells whether a valid JSON value is an object without that member.
func lacksTimestamp(text []byte) bool {
	if text[0] != '{' {
		return false
	}
	d := jsontext.NewDecoder(bytes.NewBuffer(text))
	if _, err := d.ReadToken(); err != nil {
		return false
	}
	for d.PeekKind() == jsontext.KindString {
		name, err := d.ReadToken()
		if err != nil || name.String() == "timestamp" || d.SkipValue() != nil {
			return false
		}
	}
	return true
}

// appendStamped appends a line that is an object, with a timestamp as its first member.
func appendStamped(dst, line []byte, now time.Time) []byte {
	head, tail, _ := bytes.Cut(line, []byte{'{'})
	dst = append(append(dst, head...), '{')
	dst = append(dst, stampHead...)
	dst = append(now.UTC().AppendFormat(dst, stampLayout), '"')
	if bytes.TrimLeft(tail, blank)[0] != '}' {
		dst = append(dst, ',')
	}
	return append(dst, tail...)
}

// bad writes lines that were rejected. A long one comes in pieces, as it is read; what
// comes meanwhile waits.
type bad struct {
	to io.Writer // nil drops the lines

	mu      sync.Mutex // guards what follows
	open    bool       // within a line that comes in pieces
	waiting []byte
	failed  error
}

func (b *bad) line(text []byte) {
	if b.to == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = append(append(b.waiting, text...), '\n')
	b.flush()
}

// flush writes what waits. mu is locked.
func (b *bad) flush() {
	if !b.open {
		b.put(b.waiting)
		b.waiting = b.waiting[:0]
	}
}

// put writes, and keeps the first error. mu is locked.
func (b *bad) put(text []byte) {
	if b.failed == nil && b.to != nil {
		_, b.failed = b.to.Write(text)
	}
}

// begin is before the pieces of a line, and what it returns behind them.
func (b *bad) begin() (end func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open = true
	return func() {
		b.piece([]byte{'\n'})
		b.mu.Lock()
		defer b.mu.Unlock()
		b.open = false
		b.flush()
	}
}

func (b *bad) piece(text []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.put(text)
}

func (b *bad) err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

// stoppable reads until ctx ends. Then it leaves a Read of from that still waits.
type stoppable struct {
	ctx  context.Context
	from io.Reader

	buf  []byte
	done chan read // nil before the first Read
}

type read struct {
	n   int
	err error
}

// readBytes is the most that is read at once.
const readBytes = 64 << 10

func (s *stoppable) Read(p []byte) (int, error) {
	if s.done == nil {
		s.done, s.buf = make(chan read, 1), make([]byte, readBytes)
	}
	if err := s.ctx.Err(); err != nil {
		return 0, context.Cause(s.ctx)
	}
	// Into a buffer of its own: p is the caller's again when ctx ends.
	go func() {
		n, err := s.from.Read(s.buf[:min(len(p), readBytes)])
		s.done <- read{n, err}
	}()
	select {
	case r := <-s.done:
		return copy(p, s.buf[:r.n]), r.err
	case <-s.ctx.Done():
		return 0, context.Cause(s.ctx)
	}
}
