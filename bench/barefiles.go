package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// workers is how many of the program's workers write while there is a backlog.
const workers = shardCount * 4

// line is one of an output file.
var line = []byte(`{"message_id":"01JD8Y6G5V3X9Q2R7T4B1C0D5E.2","timestamp":"2019-10-12T08:10:54.52Z","value":"reading 00001"}` + "\n")

// bareFiles measures how many files of five lines per second can be published
// durably, by as many goroutines as the program has workers, in as many folders.
func bareFiles(ctx context.Context, l *lab) (sample, error) {
	content := bytes.Repeat(line, 5)
	return writers(ctx, l, func(folder *os.File, writer, n int) (int, error) {
		name := filepath.Join(folder.Name(), fmt.Sprintf("%d-%d", writer, n))
		temp := name + ".tmp"
		f, err := os.Create(temp)
		if err != nil {
			return 0, err
		}
		_, err = f.Write(content)
		// Rename is one call less than the link and unlink of a name that must
		// not be there yet.
		err = errors.Join(err, f.Sync(), f.Close(), os.Rename(temp, name), folder.Sync())
		return 1, err
	})
}

// bareAppends measures how many entries per second can be appended durably, to
// a file of each goroutine, with an fsync for every 64 KiB.
func bareAppends(ctx context.Context, l *lab) (sample, error) {
	entries := 64 << 10 / len(line)
	content := bytes.Repeat(line, entries)
	files := make([]*os.File, workers)
	defer func() {
		for _, f := range files {
			if f != nil {
				_ = f.Close()
			}
		}
	}()
	return writers(ctx, l, func(folder *os.File, writer, _ int) (int, error) {
		var err error
		if files[writer] == nil {
			if files[writer], err = os.Create(filepath.Join(folder.Name(), fmt.Sprint(writer))); err != nil {
				return 0, err
			}
		}
		_, err = files[writer].Write(content)
		return entries, errors.Join(err, files[writer].Sync())
	})
}

// writers measures the sum of what calls of write say was done, in new folders.
// write gets its folder, the number of its
// goroutine, and how many times that one has called it.
func writers(ctx context.Context, l *lab, write func(folder *os.File, writer, n int) (int, error)) (sample, error) {
	dir, err := l.folder("bare")
	if err != nil {
		return sample{}, err
	}
	folders := make([]*os.File, shardCount)
	for i := range folders {
		name := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(name, 0o755); err != nil {
			return sample{}, err
		}
		if folders[i], err = os.Open(name); err != nil {
			return sample{}, err
		}
		defer folders[i].Close()
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var done atomic.Int64
	var writing sync.WaitGroup
	defer writing.Wait()
	for w := range workers {
		writing.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				did, err := write(folders[w%shardCount], w, n)
				if err != nil {
					fail(err)
				}
				done.Add(int64(did))
			}
		})
	}
	s, err := l.rate(ctx, func() (float64, error) { return float64(done.Load()), context.Cause(ctx) }, nil)
	fail(nil)
	return s, err
}

// bytesIn is the size of everything in a folder.
func bytesIn(dir string) (float64, error) {
	var sum float64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was a temporary name
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			sum += float64(info.Size())
		}
		return err
	})
	return sum, err
}
