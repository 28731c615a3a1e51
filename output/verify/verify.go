// Package verify checks an output folder: whether its visible files are what the
// pipeline promises.
//
// It only reads, and may do so while the folder has owners: visible files never
// change, and a file that is moved away meanwhile is no fault. Its memory does not
// grow with the tree. It remembers 24 bytes of every message. They are sorted in
// runs of a fixed size, which go to a temporary file and are merged. The paths of
// the files go to another temporary file.
package verify

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"async-data-processor/message"
	"async-data-processor/output"
)

// Options say what the folder has to look like.
type Options struct {
	// Shards is the number of shards that decides a message's folder; 0 does
	// not check it, for a folder that was written with several.
	Shards int
	// BatchSize is the most lines of a file, and the number of a full batch's;
	// 0 does not check it, for files that were rolled.
	BatchSize int
	// Rules are those of the process that took the entries; message.Strict if nil.
	Rules *message.Rules
	// TempDir is where the temporary files are made, about 24 bytes for every
	// message and 50 for every file; "" is os.TempDir.
	TempDir string
}

const (
	// runRecords is how many messages a run holds: 12 MiB. The merge takes as much
	// for its read buffers, up to 3,000 runs (1,600 million messages), and 4 KiB for
	// each run more.
	runRecords = 1 << 19
	// maxReaders is how many files are read at a time: more hide the latency
	// of a network's disk, but each may hold a line of message.MaxLineBytes.
	maxReaders = 8
)

// verifier is one run. Its fields are set before the run and read-only then;
// tests put their own in.
type verifier struct {
	Options
	folder fs.FS
	// owned tells whether a process owns a shard's folder, given its name.
	owned func(shard string) (bool, error)
	// started is when the run began: a younger temporary file is being written.
	started    time.Time
	runRecords int
	readers    int
}

// Run judges the output folder at dir. Whatever is wrong in it, errors of
// reading included, is in the report; the error says that there is no report,
// because dir cannot be listed, the temporary files failed, or ctx is done.
func Run(ctx context.Context, dir string, o Options) (*Report, error) {
	started := time.Now()
	// A root, so that a link in the folder leads nowhere else.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open output folder: %w", err)
	}
	defer root.Close() // only read from: nothing of it can be lost
	v := verifier{
		Options:    o,
		folder:     root.FS(),
		owned:      func(shard string) (bool, error) { return output.Owned(filepath.Join(dir, shard)) },
		started:    started,
		runRecords: runRecords,
		readers:    min(runtime.GOMAXPROCS(0), maxReaders),
	}
	r, err := v.run(ctx)
	if err != nil {
		return nil, err
	}
	r.Dir = dir
	return r, nil
}

func (v *verifier) run(ctx context.Context) (_ *Report, err error) {
	ids, err := newLedger(v.TempDir, v.runRecords)
	if err != nil {
		return nil, err
	}
	defer ids.close()
	t, err := v.walk(ctx, ids)
	if err != nil {
		return nil, err
	}
	if err := ids.compare(ctx, t); err != nil {
		return nil, err
	}
	return t.report(), nil
}
