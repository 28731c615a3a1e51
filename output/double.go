package output

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"async-data-processor/message"
	"async-data-processor/output/committed"
)

// strippedAtOnce is how many bytes of a rolling file are compared at a time, or one line.
// It bounds the memory of strip.
const strippedAtOnce = 8 << 20

// stripper leaves out of a rolling file what is written elsewhere.
type stripper struct{ *appender }

// strip publishes the lines of a rolling file whose ids are in none of the later files,
// and removes the rolling file. Nothing is done if all its lines are left.
//
// An owner begins no file before its rolling file is published. So a later file means that
// another program has put the rolling file, or a copy, back after its rescue.
//
//	openat(temp, O_CREAT|O_EXCL)
//	write(temp), fsync(temp), close(temp)
//	linkat(temp, final)        a crash from here leaves lines that the next owner finds
//	fsync(folder)
//	unlinkat(temp)
//	unlinkat(hidden)
func (a stripper) strip(ctx context.Context, r *rolling, later []string) (final string, done bool, err error) {
	f, err := a.dir.reopen(r.hidden)
	if err != nil {
		return "", false, a.dir.failed("open", r.hidden, err)
	}
	defer f.Close() // only read from
	_, stem := splitName(r.final)
	worker, _, _, _ := splitStem(stem)
	to := a.dir.newStem(worker)
	temp := tempName(to)
	out, err := a.dir.create(temp)
	if err != nil {
		return "", false, a.dir.failed("create", temp, err)
	}
	left, err := a.copyLeft(ctx, out, io.NewSectionReader(f, 0, r.size), later)
	if syncing := out.Sync(); err == nil && syncing != nil {
		err = a.dir.failed("fsync", temp, syncing)
	}
	if closing := out.Close(); err == nil && closing != nil {
		err = a.dir.failed("close", temp, closing)
	}
	switch {
	case err != nil:
		return "", false, a.undo.discardTemp(temp, err)
	case left == r.size:
		_ = a.undo.discardTemp(temp, nil) // or else it is removed later
		return "", false, nil
	case left == 0:
		_ = a.undo.discardTemp(temp, nil) // as above
		err = a.dir.syncNames()           // those of the later files
	default:
		final = visibleName(to)
		err = a.show(&rolling{hidden: temp, final: final})
	}
	if err != nil {
		return "", false, err
	}
	if err := a.dir.remove(r.hidden); err != nil {
		return "", false, a.dir.failed("unlink", r.hidden, err)
	}
	return final, true, nil
}

// copyLeft copies the lines whose ids are in none of the files, and those without an id.
// It returns how many bytes these are.
func (a stripper) copyLeft(ctx context.Context, out io.Writer, in *io.SectionReader, files []string) (left int64, err error) {
	block := make([]byte, strippedAtOnce)
	for at := int64(0); at < in.Size(); {
		part := block[:min(int64(len(block)), in.Size()-at)]
		n, err := in.ReadAt(part, at)
		if err != nil && (n < len(part) || !errors.Is(err, io.EOF)) {
			return 0, fmt.Errorf("read a rolling file of %s: %w", a.dir.name, err)
		}
		n = bytes.LastIndexByte(block[:n], '\n') + 1
		if n == 0 { // it is a part of a line
			block = make([]byte, 2*len(block))
			continue
		}
		fresh, err := a.left(ctx, block[:n], files)
		if err != nil {
			return 0, err
		}
		if len(fresh) > 0 {
			if err := writeAll(out, fresh); err != nil {
				return 0, fmt.Errorf("write to %s: %w", a.dir.name, err)
			}
		}
		left, at = left+int64(len(fresh)), at+int64(n)
	}
	return left, nil
}

// left returns the lines whose ids are in none of the files. It changes lines.
func (a stripper) left(ctx context.Context, lines []byte, files []string) ([]byte, error) {
	keyOf := func(line []byte) committed.Key { return committed.KeyOf(message.Message{Line: line}.RawID()) }
	missing := make(map[committed.Key]struct{})
	for line := range bytes.Lines(lines) {
		missing[keyOf(line)] = struct{}{}
	}
	in := bufio.NewReaderSize(nil, 64<<10)
	for _, name := range files {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("read the files of %s: %w", a.dir.name, context.Cause(ctx))
		}
		if err := a.dir.readAll(name, in, func(k committed.Key) (more bool) {
			delete(missing, k)
			return len(missing) > 0
		}); err != nil {
			return nil, err
		}
	}
	fresh := lines[:0]
	for line := range bytes.Lines(lines) {
		if _, ok := missing[keyOf(line)]; ok {
			fresh = append(fresh, line...)
		}
	}
	return fresh, nil
}

// from returns the names of the files that sort like the stem, or behind it; the first is
// the lowest.
func (n *newest) from(stem string) (names []string) {
	_, ulid, _, _ := splitStem(stem)
	later := slices.DeleteFunc(slices.Clone(n.files), func(f found) bool { return string(f.ulid[:]) < ulid })
	slices.SortFunc(later, func(a, b found) int { return bytes.Compare(a.ulid[:], b.ulid[:]) })
	for _, f := range later {
		names = append(names, n.name(f))
	}
	return names
}
