package verify

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"async-data-processor/message"
	"async-data-processor/shard"
)

// flushRecords is how many records of a file are gathered before the ledger,
// which the readers share, is locked.
const flushRecords = 1024

// reader reads visible files, one after the other.
type reader struct {
	*verifier
	ids     *ledger
	t       *tally
	in      *bufio.Reader
	long    []byte // a line that in could not hold at once
	records []record
}

func newReader(v *verifier, ids *ledger, t *tally) *reader {
	return &reader{
		verifier: v, ids: ids, t: t,
		in:      bufio.NewReaderSize(nil, 64<<10),
		records: make([]record, 0, flushRecords),
	}
}

// judge reads a file. Its error is not of the file.
func (r *reader) judge(ctx context.Context, f job) error {
	in, err := r.folder.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		r.t.found(f.shard, Finding{Class: Vanished, File: f.path, Detail: "moved away after it was listed"})
		return nil
	}
	if err != nil {
		r.t.found(f.shard, unreadable(f.path, err))
		return nil
	}
	defer in.Close() // only read from: nothing of it can be lost
	r.in.Reset(in)
	return r.read(ctx, f)
}

// read is judge for the file's content, which is in r.in.
func (r *reader) read(ctx context.Context, f job) error {
	at, err := r.ids.file(f.path)
	if err != nil {
		return err
	}
	var (
		lines, bad int64
		ended      = true // by a newline
		torn       = Finding{Class: Torn, File: f.path}
		failed     error
		c          = r.t.of(f.shard)
	)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		line, size, err := r.next()
		c.Bytes += size
		if err != nil && err != io.EOF {
			failed = err
			break
		}
		if size == 0 {
			break
		}
		ended = err == nil
		lines++
		m, err := r.parse(line, size)
		if err != nil {
			if bad++; bad == 1 {
				torn.Line, torn.Detail = lines, err.Error()
			}
			continue
		}
		if r.Shards > 0 && !m.Time.IsZero() { // else its publisher chose the shard
			if own := shard.Of(m.Time, r.Shards); own != f.shard {
				r.t.found(f.shard, Finding{
					Class: Misplaced, File: f.path, Line: lines, ID: m.ID(),
					Detail: fmt.Sprintf("belongs to shard-%d", own),
				})
			}
		}
		if err := r.enter(m.ID(), f.shard, at); err != nil {
			return err
		}
	}
	c.Files++
	c.Lines += lines
	if failed != nil {
		r.t.found(f.shard, unreadable(f.path, failed))
	} else {
		r.judgeSize(f, c, lines)
	}
	// An unreadable file has no end that could be judged.
	if tear(&torn, bad, failed == nil && lines == 0, failed == nil && !ended) {
		r.t.found(f.shard, torn)
	}
	return r.flush()
}

// parse is Rules.ParseLine for a line that was cut if it was too long.
func (v *verifier) parse(line []byte, size int64) (message.Message, error) {
	if size > int64(message.MaxLineBytes)+1 {
		return message.Message{}, fmt.Errorf("a line of %d bytes, the limit is %d", size, message.MaxLineBytes)
	}
	return cmp.Or(v.Rules, message.Strict).ParseLine(line)
}

// tear completes the finding about a torn file; it tells whether it is one.
func tear(f *Finding, bad int64, empty, open bool) bool {
	if bad > 1 {
		f.Detail += fmt.Sprintf(" (and %d more lines)", bad-1)
	}
	switch {
	case empty:
		f.Detail = "the file is empty"
	case open && bad > 0:
		f.Detail += "; no newline at the end"
	case open:
		f.Detail = "no newline at the end"
	}
	return bad > 0 || empty || open
}

// judgeSize compares a file with a batch.
func (r *reader) judgeSize(f job, c *Counts, lines int64) {
	switch size := int64(r.BatchSize); {
	case size == 0 || lines == 0:
	case lines > size:
		r.t.found(f.shard, Finding{
			Class: Oversized, File: f.path,
			Detail: fmt.Sprintf("%d lines, a batch has %d", lines, size),
		})
	case lines == size:
		c.Full++
	default:
		c.Incomplete++
	}
}

// next returns a line without its newline, valid until the next, and its size
// with it. A line over message.MaxLineBytes is cut there. io.EOF comes with a
// line that has no newline, or with size 0.
func (r *reader) next() (line []byte, size int64, err error) {
	r.long = r.long[:0]
	for {
		part, err := r.in.ReadSlice('\n')
		size += int64(len(part))
		if err == nil && len(r.long) == 0 {
			return part[:len(part)-1], size, nil
		}
		room := message.MaxLineBytes + 1 - len(r.long)
		r.long = append(r.long, part[:min(room, len(part))]...)
		if err != bufio.ErrBufferFull {
			return bytes.TrimSuffix(r.long, []byte{'\n'}), size, err
		}
	}
}

// enter notes a message of the shard's file whose path is at the offset.
func (r *reader) enter(id string, shard int, at uint64) error {
	rec, ours := recordOf(id, shard)
	if !ours {
		var err error
		if at, err = r.ids.foreign(at, id); err != nil {
			return err
		}
	}
	r.records = append(r.records, rec.at(at))
	if len(r.records) == flushRecords {
		return r.flush()
	}
	return nil
}

func (r *reader) flush() error {
	err := r.ids.add(r.records)
	r.records = r.records[:0]
	return err
}
