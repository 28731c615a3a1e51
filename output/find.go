package output

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"async-data-processor/message"
)

const (
	// findBytes bounds how much of the files Find reads.
	findBytes = 256 << 20
	// findLines is how many lines Find reads between two looks at its context.
	findLines = 1000
	// clockSlack is by how much a file may seem to be younger than a message in it: the
	// times of both are rounded, and a clock is corrected.
	clockSlack = 2 * time.Second
)

// Found is where a message is.
type Found struct {
	// File is the path in the output folder, empty if the message was not found. Line
	// counts from 1.
	File string
	Line int
	// Open tells that File is hidden: batches are still appended to it.
	Open bool
	// Whole tells that Find has read every file that was begun before the message became
	// durable.
	Whole bool
}

// Find looks for a message in the files of a shard. at is when the message became
// durable: files that were begun before are read first, the newest of them first, and then
// the others. A file that is open is read before all of them.
//
// Find reads at most the newest 1,000 files of both kinds and 256 MiB; of a folder with
// very many files it lists all names. It ends with an error of ctx. It may be called while
// another process owns the folder.
func (d *Dir) Find(ctx context.Context, shard int, id []byte, at time.Time) (Found, error) {
	return d.find(ctx, shard, id, at, findBytes)
}

// find is Find that reads so many bytes.
func (d *Dir) find(ctx context.Context, shard int, id []byte, at time.Time, room int64) (Found, error) {
	folder, err := d.root.OpenRoot(ShardName(shard))
	if err != nil {
		return Found{}, fmt.Errorf("look for a message: %w", err)
	}
	defer folder.Close() // only read from: nothing of it can be lost
	f := finder{ctx: ctx, folder: folder, id: id, room: room, in: bufio.NewReaderSize(nil, 64<<10), read: make(map[string]bool)}
	found, err := f.find(at)
	if err != nil {
		return Found{}, fmt.Errorf("look for a message in %s: %w", ShardName(shard), err)
	}
	if found.File != "" {
		found.File = ShardName(shard) + "/" + found.File
	}
	return found, nil
}

// finder is a look for a message.
type finder struct {
	ctx    context.Context
	folder *os.Root
	id     []byte
	room   int64 // how much may be read
	in     *bufio.Reader
	read   map[string]bool // the names of files that were read
}

// find looks twice: a file may get its visible name while the names are listed, and a
// clock may have been set back since the message was written.
func (f *finder) find(at time.Time) (Found, error) {
	var whole bool
	for pass, until := range []time.Time{at.Add(clockSlack), time.Now().AddDate(farAhead, 0, 0)} {
		var stems []string
		names, err := newestNames(f.ctx, f.folder, until, func(stem string) { stems = append(stems, stem) })
		if err != nil {
			return Found{}, err
		}
		if pass == 0 {
			whole = len(names.files) < lastFiles
		}
		for _, stem := range stems {
			if line, err := f.line(rollingName(stem)); line > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
				return Found{File: rollingName(stem), Line: line, Open: true}, err
			} else if err != nil { // it was published meanwhile
				names.add(visibleName(stem))
			}
		}
		names.cut()
		for i := range names.files {
			name := names.name(names.files[i])
			if f.room <= 0 {
				return Found{}, nil
			}
			line, err := f.line(name)
			if errors.Is(err, fs.ErrNotExist) {
				continue // it was taken away meanwhile
			}
			if line > 0 || err != nil {
				return Found{File: name, Line: line}, err
			}
		}
	}
	return Found{Whole: whole && f.room > 0}, nil
}

// line returns the line of a file that has the message, counted from 1; 0 if none has, or
// if there is no room to read on. A file is read once.
func (f *finder) line(name string) (int, error) {
	if f.read[name] {
		return 0, nil
	}
	// A pipe under that name would otherwise wait for a writer.
	file, err := f.folder.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer file.Close() // only read from: nothing of it can be lost
	f.read[name] = name[0] != hiddenPrefix[0]
	f.in.Reset(file)
	for n := 1; f.room > 0; n++ {
		if n%findLines == 1 && f.ctx.Err() != nil {
			return 0, context.Cause(f.ctx)
		}
		text, err := f.in.ReadSlice('\n')
		f.room -= int64(len(text))
		// An id is short, so it is in the buffer even if its line is not.
		found := bytes.Equal(message.Message{Line: text}.RawID(), f.id)
		for errors.Is(err, bufio.ErrBufferFull) {
			text, err = f.in.ReadSlice('\n')
			f.room -= int64(len(text))
		}
		if errors.Is(err, io.EOF) {
			return 0, nil // a line that is cut off does not count
		}
		if found || err != nil {
			return n, err
		}
	}
	return 0, nil
}
