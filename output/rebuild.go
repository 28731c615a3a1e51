package output

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"time"

	"async-data-processor/message"
	"async-data-processor/output/committed"
)

// rebuildWindow fills the window from the newest files, as many as it needs.
//
//	a file was taken away meanwhile    it is skipped, as its messages will be
//	a file is damaged                  it is counted: another program has changed
//	                                   it, and a stopped shard would not help
//	a file cannot be read              the start fails: an operator can fix that
//	a file was read beforehand         it is not read again
func (s *Shard) rebuildWindow(ctx context.Context, files *newest, p *preread) error {
	files.cut()
	s.rebuilt.Foreign, s.rebuilt.Example = files.foreign, files.example
	var failed error
	s.rebuilt.IDs = s.window.Load(s.committed(ctx, files, p, &failed))
	if !files.last.IsZero() {
		s.window.StoodStill(files.now.Sub(files.last))
	}
	return failed
}

// committed yields how long ago the ids of each file count as committed, the newest
// file first, and what reads them. That uses its slice again. It ends with the first
// error, which it stores in failed.
func (s *Shard) committed(ctx context.Context, files *newest, p *preread, failed *error) iter.Seq2[time.Duration, func() []committed.Key] {
	return func(yield func(time.Duration, func() []committed.Key) bool) {
		in := bufio.NewReaderSize(nil, 64<<10)
		var keys []committed.Key
		for i, f := range files.files {
			if ctx.Err() != nil {
				*failed = fmt.Errorf("read the files of %s: %w", s.dir.name, context.Cause(ctx))
				return
			}
			read := func() []committed.Key {
				name := files.name(f)
				if r, ok := p.find(s.dir, name); ok {
					s.count(name, r.whole)
					s.rebuilt.Beforehand++
					keys = committed.Unpack(r.ids, keys[:0])
					return keys
				}
				keys, *failed = s.readFile(name, in, keys[:0], files.limit)
				return keys
			}
			if !yield(files.ago(i), read) || *failed != nil {
				return
			}
		}
	}
}

// readFile is readIDs for a file that may have been taken away, and tells Rebuilt of it.
func (s *Shard) readFile(name string, in *bufio.Reader, keys []committed.Key, limit int) ([]committed.Key, error) {
	keys, whole, err := readIDs(s.dir, name, in, keys, limit)
	if errors.Is(err, fs.ErrNotExist) {
		return keys, nil
	}
	if err != nil {
		return nil, unreadable(s.dir.failed("read", name, err))
	}
	s.count(name, whole)
	return keys, nil
}

// count counts a file that was read.
func (s *Shard) count(name string, whole bool) {
	s.rebuilt.Files++
	if !whole {
		s.rebuilt.Damaged++
		s.rebuilt.Example = name
	}
}

// lineGuess is the expected length of a line, in the search for the last lines of a
// large file.
const lineGuess = 128

// readIDs returns the keys of a file's messages, or of the last ones: at least
// limit, at most twice as many. It may use the slice. whole is false if a line that
// it has read has no id, or if the last one is cut off. That message counts as not
// written.
func readIDs(dir folder, name string, in *bufio.Reader, keys []committed.Key, limit int) (_ []committed.Key, whole bool, err error) {
	f, err := dir.read(name)
	if err != nil {
		return keys, false, err
	}
	defer f.Close() // only read from: nothing of it can be lost
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return keys, false, err
	}
	for tail := int64(limit) * lineGuess; ; tail *= 4 {
		from := max(0, size-tail)
		if _, err := f.Seek(from, io.SeekStart); err != nil {
			return keys, false, err
		}
		in.Reset(f)
		if from > 0 {
			if err := skipLine(in); err != nil {
				return keys, false, err
			}
		}
		keys = keys[:0]
		whole, err = readLines(in, func(key committed.Key) bool {
			if len(keys) == 2*limit {
				keys = append(keys[:0], keys[limit:]...)
			}
			keys = append(keys, key)
			return true
		})
		if err != nil || from == 0 || len(keys) >= limit {
			return keys, whole, err
		}
	}
}

// skipLine reads the rest of a line, or of the file.
func skipLine(in *bufio.Reader) error {
	for {
		if _, err := in.ReadSlice('\n'); !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// readAll gives the keys of a file's messages to take until that wants no more. A file
// that was taken away meanwhile has none, and a line that is cut off has no key.
func (d *shardDir) readAll(name string, in *bufio.Reader, take func(committed.Key) (more bool)) error {
	f, err := d.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		defer f.Close() // only read from: nothing of it can be lost
		in.Reset(f)
		_, err = readLines(in, take)
	}
	if err != nil {
		return unreadable(d.failed("read", name, err))
	}
	return nil
}

// unreadable says what to do about a file that cannot be read.
func unreadable(err error) error {
	return fmt.Errorf("learn which messages are written: %w; make it readable, or move it away and accept that its messages may come again", err)
}

// readLines gives the key of each line to take, until that wants no more. whole is as
// readIDs has it.
func readLines(in *bufio.Reader, take func(committed.Key) (more bool)) (whole bool, err error) {
	any := false
	for whole = true; ; {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			return whole && len(line) == 0 && any, nil
		}
		// An id is short, so it is in the buffer even if its line is not.
		id := message.Message{Line: line}.RawID()
		if len(id) == 0 {
			whole = false
		}
		key := committed.KeyOf(id)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = in.ReadSlice('\n')
		}
		switch {
		case errors.Is(err, io.EOF):
			return false, nil
		case err != nil:
			return false, err
		case len(id) > 0:
			if any = true; !take(key) {
				return whole, nil
			}
		}
	}
}
