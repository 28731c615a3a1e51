package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"async-data-processor/faults/process"
)

// plan is how thoroughly is measured.
type plan struct {
	pairs   int           // of a comparison
	warm    time.Duration // before each measurement
	measure time.Duration // each measurement
	tune    time.Duration // each of a contender's settings that is tried
	posts   int           // of a latency measurement
	shards  []int         // numbers of them
	idle    time.Duration // how long a process without work is looked at
	// backlogs are the lengths at which ingest and consumption are measured,
	// ascending.
	backlogs []int
	// queued is what waits when files are measured, in entries.
	queued int
	// carried is what goes the whole way to rolling files, in entries.
	carried int
	// disk is the folder, and so the disk, in which everything is written; .run of
	// the repository by default.
	disk string
	// before is an earlier program, to compare with; empty for none.
	before string
	// profiles is the folder of CPU profiles; empty for none.
	profiles string
}

var (
	full = plan{
		pairs: 5, warm: time.Second, measure: 4 * time.Second, tune: time.Second, posts: 500,
		shards: []int{1, 5, 20, 50}, idle: 30 * time.Second, backlogs: []int{1e5, 1e6, 5e6, 1e7},
		queued: 400_000, carried: 2_000_000,
	}
	short = plan{
		pairs: 1, warm: 20 * time.Millisecond, measure: 100 * time.Millisecond, posts: 100,
		shards: []int{5, 20}, idle: 100 * time.Millisecond, backlogs: []int{5000, 10_000},
		queued: 5000, carried: 5000,
	}
)

// lab is what the benchmarks share. It is used by one goroutine.
type lab struct {
	plan
	repo    string // the root of the repository
	dir     string // of this run, removed in the end
	program string // the binary that is measured
	output  io.Writer
	current string // the benchmark that runs

	rabbit        *rabbit // nil until a benchmark wants it
	rabbitVersion string
	bare          *bareBroker // tuned; nil until a benchmark wants it
}

func newLab(ctx context.Context, p plan, program string, output io.Writer) (*lab, error) {
	root, err := process.Repository()
	if err != nil {
		return nil, err
	}
	l := &lab{plan: p, repo: root, program: program, output: output}
	if p.disk == "" {
		p.disk = filepath.Join(l.repo, ".run")
	}
	if err := os.MkdirAll(p.disk, 0o755); err != nil {
		return nil, err
	}
	if l.dir, err = os.MkdirTemp(p.disk, "bench-"); err != nil {
		return nil, err
	}
	if l.program == "" {
		l.program = filepath.Join(l.dir, "async-data-processor")
		build := exec.CommandContext(ctx, "go", "build", "-o", l.program, "./cmd/async-data-processor")
		build.Dir = l.repo
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // as scripts/build
		if out, err := build.CombinedOutput(); err != nil {
			l.close()
			return nil, fmt.Errorf("build the program: %w\n%s", err, out)
		}
	}
	return l, nil
}

// close stops what is shared and removes everything that was written.
func (l *lab) close() {
	if l.rabbit != nil {
		l.rabbit.stop()
	}
	_ = os.RemoveAll(l.dir)
}

func (l *lab) say(format string, args ...any) {
	fmt.Fprintf(l.output, "%s "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}

// folder makes a new one. It stays to the end of the run: ext4 without a journal
// makes files several times slower where many were removed a moment ago, and the
// next contender would pay for that.
func (l *lab) folder(name string) (string, error) { return os.MkdirTemp(l.dir, name+"-") }

// pause waits, or returns why not.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
