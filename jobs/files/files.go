// Package files records the published files of shards in the state database, where a run
// begins for each of them.
//
//	shard's owner ──Publications──▶ Recorder ──one transaction──▶ files and cursors
//
// It promises:
//
//   - a file that is published, and stays until it is recorded, is recorded once;
//   - a shard's cursor never goes beyond a file that is not recorded;
//   - who publishes never waits for the database.
//
// The next owner of a shard records first what it finds behind the cursor. So a crash at
// any moment leaves no file out.
package files

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"async-data-processor/backoff"
	"async-data-processor/event"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
	"async-data-processor/output"
)

const (
	// retryMin and retryMax bound the pause after a failure.
	retryMin = 100 * time.Millisecond
	retryMax = 5 * time.Second
	// DrainTime is how long Run tries to record what there is, once its context has ended,
	// and drainRetry its longest pause then.
	DrainTime  = 5 * time.Second
	drainRetry = time.Second
	// tellInterval is how often a failure that goes on is told again.
	tellInterval = 10 * time.Minute
)

// Store is the view of the state database that a Recorder needs.
type Store interface {
	// Cursor returns that of a shard; empty if it has none.
	Cursor(ctx context.Context, shard int) (cursor string, err error)
	// Record stores files and cursors in one transaction. A file is stored once, and a
	// cursor goes forward only. It may be repeated.
	Record(ctx context.Context, parts []store.Recorded) error
}

// Config sets up a Recorder.
type Config struct {
	Store Store
	// Wanted tells whether a job begins on files. Without one only the cursors are stored,
	// and a file gets no runs of a job that is defined later. Default: they always are.
	Wanted func() bool
	// Events is told what happens.
	Events event.Sink
	// Recorded is told that files were recorded. It must not block. Default: nothing is
	// told.
	Recorded func()
}

// Recorder is an output.Recorder. Its methods may be called concurrently.
type Recorder struct {
	cfg  Config
	wake chan struct{} // holds one wake-up

	mu      sync.Mutex // guards what follows
	sources []*source  // of the shards that are owned, or were until now

	// Only used by Run.
	turn    int // the source that is asked first
	failure failure
}

// source is the files of a shard. Only Run uses it.
type source struct {
	*output.Publications
	begun bool
	// caughtUp tells that what earlier owners have left is recorded. Until then left
	// counts it.
	caughtUp bool
	left     int
	opened   time.Time
}

// failure is a failure that goes on. The zero value is none.
type failure struct {
	since, told time.Time
}

var _ output.Recorder = (*Recorder)(nil)

// New returns a Recorder. It records while Run does.
func New(cfg Config) *Recorder { return &Recorder{cfg: cfg, wake: make(chan struct{}, 1)} }

// Opened implements output.Recorder. What an earlier owner in this process has not
// recorded is among what the new one finds.
func (r *Recorder) Opened(p *output.Publications) {
	r.mu.Lock()
	r.sources = slices.DeleteFunc(r.sources, func(s *source) bool { return s.Shard() == p.Shard() })
	r.sources = append(r.sources, &source{Publications: p, opened: time.Now()})
	r.mu.Unlock()
	r.Published()
}

// Published implements output.Recorder.
func (r *Recorder) Published() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Waiting returns how many published files are not recorded, as far as that is known, and
// when the oldest of them was begun; zero if there is none.
func (r *Recorder) Waiting() (files int, oldest time.Time) {
	for _, s := range r.all() {
		n, first := s.Waiting()
		files += n
		if !first.IsZero() && (oldest.IsZero() || first.Before(oldest)) {
			oldest = first
		}
	}
	return files, oldest
}

func (r *Recorder) all() []*source {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.sources)
}

// forget ends the recording of a shard.
func (r *Recorder) forget(gone *source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sources = slices.DeleteFunc(r.sources, func(s *source) bool { return s == gone })
}

// Run records files until ctx ends, and then for 5 s at most those that there are.
func (r *Recorder) Run(ctx context.Context) {
	pause := backoff.Backoff{Min: retryMin, Max: retryMax, Jitter: 0.5}
	for r.step(ctx, &pause) {
		select {
		case <-r.wake:
		case <-ctx.Done():
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), DrainTime)
	defer cancel()
	pause = backoff.Backoff{Min: retryMin, Max: drainRetry}
	r.step(ctx, &pause)
}

// step records all that there is. It returns false if ctx ends before.
func (r *Recorder) step(ctx context.Context, pause *backoff.Backoff) bool {
	for ctx.Err() == nil {
		more, err := r.record(ctx)
		switch {
		case ctx.Err() != nil:
			return false
		case err != nil:
			r.failed(err)
			backoff.Sleep(ctx, pause.Next())
			continue
		}
		pause.Reset()
		r.succeeded()
		if !more {
			return true
		}
	}
	return false
}

// record stores what there is, in one transaction. It returns whether there may be more.
// A shard whose files cannot be read does not hold up the others.
func (r *Recorder) record(ctx context.Context) (more bool, err error) {
	var (
		parts    []store.Recorded
		given    []*source
		caughtUp []bool
		said     = make(map[string]bool)
		room     = store.MaxRecorded
		sources  = r.all()
		wanted   = r.cfg.Wanted == nil || r.cfg.Wanted()
	)
	r.turn++
	for i := range sources {
		s := sources[(r.turn+i)%len(sources)]
		if room == 0 {
			break
		}
		part, failed := r.next(ctx, s, room)
		if failed != nil {
			if text := failed.Error(); !said[text] { // a database that is away is so to each shard
				said[text], err = true, errors.Join(err, failed)
			}
			continue
		}
		if part == nil {
			continue
		}
		room -= len(part.Files)
		recorded := store.Recorded{Shard: s.Shard(), Cursor: part.Cursor}
		if wanted {
			recorded.Files = published(s.Shard(), part.Files)
		}
		parts = append(parts, recorded)
		given, caughtUp = append(given, s), append(caughtUp, part.CaughtUp)
	}
	if len(parts) == 0 {
		return false, err
	}
	if failed := r.cfg.Store.Record(ctx, parts); failed != nil {
		return false, errors.Join(err, failed)
	}
	files := 0
	for i, s := range given {
		s.Recorded()
		n := len(parts[i].Files)
		files += n
		r.count(s, n, caughtUp[i])
	}
	if files > 0 && r.cfg.Recorded != nil {
		r.cfg.Recorded()
	}
	return true, err
}

// next returns what is to be recorded next of a shard, nil if that is nothing.
func (r *Recorder) next(ctx context.Context, s *source, room int) (*output.Part, error) {
	if !s.begun {
		cursor, err := r.cfg.Store.Cursor(ctx, s.Shard())
		if err != nil {
			return nil, err
		}
		s.Begin(cursor)
		s.begun = true
	}
	part, err := s.Next(room)
	if errors.Is(err, output.ErrClosed) {
		r.forget(s)
		return nil, nil
	}
	return part, err
}

// count tells, once, that all is recorded that earlier owners of a shard have left.
func (r *Recorder) count(s *source, files int, caughtUp bool) {
	if s.caughtUp {
		return
	}
	s.left += files
	if s.caughtUp = caughtUp; caughtUp && s.left > 0 {
		r.cfg.Events.Send(event.FilesCaughtUp{Shard: s.Shard(), Files: s.left, Took: time.Since(s.opened)})
	}
}

func (r *Recorder) failed(err error) {
	now := time.Now()
	if r.failure.since.IsZero() {
		r.failure.since = now
	}
	if !r.failure.told.IsZero() && now.Sub(r.failure.told) < tellInterval {
		return
	}
	r.failure.told = now
	files, _ := r.Waiting()
	r.cfg.Events.Send(event.FilesUnrecorded{Files: files, Since: r.failure.since, Err: err})
}

func (r *Recorder) succeeded() {
	if r.failure.since.IsZero() {
		return
	}
	r.cfg.Events.Send(event.FilesRecorded{Away: time.Since(r.failure.since)})
	r.failure = failure{}
}

// published is the files as the state database has them.
func published(shard int, files []output.Published) []frame.Published {
	all := make([]frame.Published, len(files))
	for i, f := range files {
		all[i] = frame.Published{Name: f.File, Shard: shard, Lines: f.Lines, Bytes: f.Bytes}
	}
	return all
}
