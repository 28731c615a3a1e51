package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lastFiles bounds how many files Last reads, and lastBytes how much of them: of a
	// longer one the end.
	lastFiles = 1000
	lastBytes = 8 << 20
	// lastFileBytes bounds what is read of a file at a time.
	lastFileBytes = 1 << 20
)

// Last gives the lines of the shard's newest visible files to take, the last line of the
// newest file first, until take returns false. Files that were begun after until are
// left out. file is its path in the output folder, at when it was begun.
//
// Last reads at most the newest 1,000 files and 8 MiB; of a folder with very many files it
// lists all names. It may be called while another process owns the folder. take must not
// keep a line.
func (d *Dir) Last(ctx context.Context, shard int, until time.Time, take func(worker, file string, at time.Time, line []byte) (more bool)) error {
	folder, err := d.root.OpenRoot(ShardName(shard))
	if err != nil {
		return fmt.Errorf("read the newest files: %w", err)
	}
	defer folder.Close() // only read from: nothing of it can be lost
	names, err := newestNames(ctx, folder, until, func(string) {})
	if err != nil {
		return fmt.Errorf("read the newest files: %w", err)
	}
	room := int64(lastBytes)
	for i := range names.files {
		f := &names.files[i]
		if ctx.Err() != nil {
			return fmt.Errorf("read the newest files: %w", context.Cause(ctx))
		}
		content, err := readEnd(folder, names.name(*f), min(room, lastFileBytes))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was taken away meanwhile
		}
		if err != nil {
			return fmt.Errorf("read the newest files: %w", err)
		}
		if room -= int64(len(content)); room <= 0 {
			return nil
		}
		worker, file, at := names.workers.names[f.worker], ShardName(shard)+"/"+names.name(*f), f.at()
		content = bytes.TrimSuffix(content, []byte{'\n'})
		for len(content) > 0 {
			i := bytes.LastIndexByte(content, '\n')
			if !take(worker, file, at, content[i+1:]) {
				return nil
			}
			content = content[:max(0, i)]
		}
	}
	return nil
}

// newestNames returns the names of the newest visible files, the newest first, and calls
// rolling with the stem of each rolling file.
func newestNames(ctx context.Context, folder *os.Root, until time.Time, rolling func(stem string)) (*newest, error) {
	dir, err := folder.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close() // only read from: nothing of it can be lost
	names := &newest{limit: lastFiles, now: until}
	err = entries(dir, func(e fs.DirEntry) bool {
		kind, stem := splitName(e.Name())
		if _, _, at, ok := splitStem(stem); ok && e.Type().IsRegular() {
			switch {
			case kind == Rolling:
				rolling(stem)
			case kind == Visible && !at.After(until):
				names.add(e.Name())
			}
		}
		return ctx.Err() == nil
	})
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	names.cut()
	return names, err
}

// readEnd returns the last lines of a file, at most so many bytes.
func readEnd(folder *os.Root, name string, most int64) ([]byte, error) {
	// A pipe under that name would otherwise wait for a writer.
	f, err := folder.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read from: nothing of it can be lost
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	from := max(0, size-most)
	content := make([]byte, size-from)
	n, err := f.ReadAt(content, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	content = content[:n]
	if from > 0 { // the first line may be cut
		_, content, _ = bytes.Cut(content, []byte{'\n'})
	}
	return content, nil
}
