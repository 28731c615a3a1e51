package pipeline

import (
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
	lasting
}

// recordTimeout bounds the recording of the last files, beyond what the Recorder takes: a
// disk may hang. The next start records the rest.
const recordTimeout = files.DrainTime + time.Second

// recordFiles has the files of the folder recorded in the database of jobs, if there is
// one. It comes before the first shard is opened.
func recordFiles(p *process, dir *output.Dir) {
	if p.database == nil {
		return
	}
	r := files.New(files.Config{Store: p.database, Wanted: p.runs.beginOnFiles, Events: p.events, Recorded: p.runs.kick})
	dir.Recorder, p.unrecorded = r, r.Waiting
	p.files = &recording{Recorder: r}
}

// beginOnFiles tells whether a job may begin on a file. A process without jobs of its own
// does not know those of others.
func (r *runs) beginOnFiles() bool {
	return r.defined == nil || slices.ContainsFunc(r.defined.All(), func(d frame.Definition) bool { return d.On == frame.File })
}
