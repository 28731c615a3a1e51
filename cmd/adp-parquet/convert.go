package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/parquet-go/parquet-go"

	"async-data-processor/message"
)

// columns are those of the table, in their order.
var columns = []string{"message_id", "timestamp", "value", "rest"}

// table is the group of the columns. A plain group sorts them by name.
type table struct{ parquet.Group }

// Fields returns the columns in their order.
func (t table) Fields() []parquet.Field {
	fields := t.Group.Fields()
	slices.SortFunc(fields, func(a, b parquet.Field) int {
		return slices.Index(columns, a.Name()) - slices.Index(columns, b.Name())
	})
	return fields
}

// schema is made here and not of a struct's tags, because the tag of an optional column
// of JSON panics.
func schema() *parquet.Schema {
	return parquet.NewSchema("entry", table{parquet.Group{
		"message_id": parquet.String(),
		"timestamp":  parquet.Optional(parquet.Timestamp(parquet.Microsecond)),
		"value":      parquet.Optional(parquet.String()),
		"rest":       parquet.Optional(parquet.JSON()),
	}})
}

const (
	// identityKey is the key of a result's identity, in its metadata.
	identityKey = "adp.identity"
	// groupBytes is how many bytes of lines a row group has. They are in memory, as
	// compressed pages, until the group is complete.
	groupBytes = 32 << 20
)

// convert writes the file to out as Parquet. The result has no file yet.
func (in *input) convert(ctx context.Context, out io.Writer) (*result, error) {
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	sum := in.fingerprint()
	counted := &counter{Writer: out}
	w := parquet.NewGenericWriter[any](
		counted, schema(),
		parquet.Compression(&parquet.Zstd),
		// Bounds of free text help no query, and may have the size of an entry.
		parquet.SkipPageBounds("value"), parquet.SkipPageBounds("rest"),
	)
	rows, err := in.write(w, io.TeeReader(reader{ctx, in.File}, sum))
	if err == nil {
		w.SetKeyValueMetadata(identityKey, text(sum))
		err = w.Close()
	}
	if counted.err != nil {
		err = counted.err
	}
	if err != nil {
		return nil, err
	}
	return &result{size: counted.size, rows: rows, identity: text(sum)}, nil
}

// write writes a row for each line.
func (in *input) write(w *parquet.GenericWriter[any], from io.Reader) (rows int64, err error) {
	var (
		lines = lines{in: bufio.NewReaderSize(from, 64<<10)}
		split = newSplitter(in)
		one   = make([]parquet.Row, 1)
		group int // bytes of lines in the row group
	)
	for ; ; rows++ {
		line, err := lines.next()
		if err == io.EOF {
			break
		}
		var r row
		if err == nil {
			if r, err = split.split(line); err != nil {
				err = never(err)
			}
		}
		if err != nil {
			return rows, fmt.Errorf("%s, line %d: %w", in.file, rows+1, err)
		}
		one[0] = r.append(one[0][:0])
		if _, err := w.WriteRows(one); err != nil {
			return rows, fmt.Errorf("write Parquet: %w", err)
		}
		if group += len(line); group >= groupBytes {
			if err := w.Flush(); err != nil {
				return rows, fmt.Errorf("write Parquet: %w", err)
			}
			group = 0
		}
	}
	switch {
	case rows == 0:
		return 0, never(fmt.Errorf("%s is empty, as no published file is", in.file))
	case in.lines != 0 && rows != in.lines:
		return 0, never(fmt.Errorf("%s has %d lines, and %d were published", in.file, rows, in.lines))
	}
	return rows, nil
}

// append appends the row's values, one a column.
func (r row) append(to parquet.Row) parquet.Row {
	to = append(to, parquet.ByteArrayValue(r.id).Level(0, 0, 0))
	if r.stamped {
		to = append(to, parquet.Int64Value(r.micros).Level(0, 1, 1))
	} else {
		to = append(to, parquet.NullValue().Level(0, 0, 1))
	}
	for i, text := range [][]byte{r.value, r.rest} {
		if text != nil {
			to = append(to, parquet.ByteArrayValue(text).Level(0, 1, 2+i))
		} else {
			to = append(to, parquet.NullValue().Level(0, 0, 2+i))
		}
	}
	return to
}

// lines reads lines.
type lines struct {
	in   *bufio.Reader
	long []byte // a line that in could not hold at once
}

var (
	errLong = fmt.Errorf("it has more than %d bytes", message.MaxLineBytes)
	errCut  = errors.New("it has no newline at its end")
)

// next returns a line without its newline, valid until the next, or io.EOF behind the
// last one.
func (l *lines) next() ([]byte, error) {
	l.long = l.long[:0]
	for {
		part, err := l.in.ReadSlice('\n')
		switch {
		case len(l.long)+len(part) > message.MaxLineBytes+1:
			return nil, never(errLong)
		case err == nil && len(l.long) == 0:
			return part[:len(part)-1], nil
		}
		l.long = append(l.long, part...)
		switch {
		case err == nil:
			return l.long[:len(l.long)-1], nil
		case err == io.EOF && len(l.long) > 0:
			return nil, never(errCut)
		case err != bufio.ErrBufferFull:
			return nil, err
		}
	}
}

// counter counts what is written, and keeps the first error: what writes Parquet need not
// wrap it.
type counter struct {
	io.Writer
	size int64
	err  error
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.size += int64(n)
	if c.err == nil {
		c.err = err
	}
	return n, err
}
