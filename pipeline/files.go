package pipeline

import (
	"context"
	"slices"
	"time"

	"async-data-processor/jobs/files"
	"async-data-processor/jobs/frame"
	"async-data-processor/output"
)

// recording records the published files of this process. It lasts until the consumer has
// ended, whose last files it records.
type recording struct {
	*files.Recorder
	leave context.CancelFunc
	left  chan struct{}
}

// recordFiles has the files of the folder recorded in the database of jobs, if there is
// one. It comes before the first shard is opened.
func recordFiles(p *process, dir *output.Dir) {
	if p.database == nil {
		return
	}
	r := files.New(files.Config{Store: p.database, Wanted: p.runs.beginOnFiles, Events: p.events, Recorded: p.runs.kick})
	dir.Recorder, p.unrecorded = r, r.Waiting
	p.files = &recording{Recorder: r, left: make(chan struct{})}
}

// beginOnFiles tells whether a job may begin on a file. A process without jobs of its own
// does not know those of others.
func (r *runs) beginOnFiles() bool {
	return r.defined == nil || slices.ContainsFunc(r.defined.All(), func(d frame.Definition) bool { return d.On == frame.File })
}

// run lasts until end is called.
func (r *recording) run(ctx context.Context) {
	defer close(r.left)
	r.Run(ctx)
}

// end ends it, when what there is is recorded, or after 5 s. The next start records the
// rest.
func (r *recording) end() {
	r.leave()
	select {
	case <-r.left:
	case <-time.After(files.DrainTime + time.Second): // a disk hangs
	}
}
