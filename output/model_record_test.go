package output

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"pgregory.net/rapid"
)

// records is the state database in which processes record files. It forgets the rows
// that the cursor has passed, and takes no others there. The world's lock guards it.
type records struct {
	cursor string
	rows   map[string]bool // by the file's name; false once it was forgotten
	away   time.Time       // until then
	faults []verdict       // of the next transactions
}

var errAway = errors.New("the database is away")

// recordFaultStep lets transactions fail, with or without effect, or the process die.
func recordFaultStep(t *rapid.T) step {
	v := even(t, "verdict", fail, happened, crashBefore, crashAfter)
	return step{fmt.Sprintf("a transaction: %v", v), func(w *world) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.records.faults = append(w.records.faults, v)
	}}
}

// awayStep takes the database away for a time.
func awayStep(t *rapid.T) step {
	d := even(t, "time", time.Second, 10*time.Second, time.Minute)
	return step{fmt.Sprintf("the database is away for %v", d), func(w *world) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.records.away = time.Now().Add(d)
	}}
}

// modelRecorder records the files of a process.
type modelRecorder struct {
	p    *process
	wake chan struct{}

	mu    sync.Mutex // guards files
	files *Publications

	begun *Publications // only used by run
}

func newModelRecorder(p *process) *modelRecorder {
	return &modelRecorder{p: p, wake: make(chan struct{}, 1)}
}

func (r *modelRecorder) Opened(f *Publications) {
	r.mu.Lock()
	r.files = f
	r.mu.Unlock()
	r.Published()
}

func (r *modelRecorder) Published() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run records until ended is closed, and then what there is, unless that fails.
func (r *modelRecorder) run(ended <-chan struct{}) {
	for {
		for r.record() != nil {
			select {
			case <-time.After(modelTick):
			case <-ended:
				return
			case <-r.p.dead:
				return
			}
		}
		select {
		case <-r.wake:
		case <-r.p.dead:
			return
		case <-ended:
			_ = r.record() // or the next owner does
			return
		}
	}
}

// record records all there is.
func (r *modelRecorder) record() error {
	for {
		r.mu.Lock()
		files := r.files
		r.mu.Unlock()
		if files == nil {
			return nil
		}
		w := r.p.world
		if r.begun != files {
			w.mu.Lock()
			cursor, away := w.records.cursor, time.Now().Before(w.records.away)
			w.mu.Unlock()
			if away {
				return errAway
			}
			files.Begin(cursor)
			r.begun = files
		}
		part, err := files.Next(2)
		if err != nil && !errors.Is(err, ErrClosed) {
			return err
		}
		if part == nil {
			return nil
		}
		if err := w.record(r.p, part); err != nil {
			return err
		}
		files.Recorded()
	}
}

// record is a transaction of a process.
func (w *world) record(p *process, part *Part) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.crashed {
		return errCrashed
	}
	if time.Now().Before(w.records.away) {
		return errAway
	}
	v := pass
	if f := w.records.faults; len(f) > 0 {
		v, w.records.faults = f[0], f[1:]
	}
	return v.around(errAway, func() { w.crash(p, false, 0) }, func(verdict) error {
		w.store(part)
		return nil
	})
}

// store stores a part. Each of its files is durable, as it says, and recorded by now if
// the cursor has passed it. The cursor passes no file that is not recorded.
func (w *world) store(part *Part) {
	for _, f := range part.Files {
		name := strings.TrimPrefix(f.File, "shard-0/")
		kept, known := w.records.rows[name]
		n := w.disk.durable[name]
		switch {
		case known && !kept: // a transaction is repeated
		case !known && ulidOf(name) <= w.records.cursor:
			w.disk.breach("%s is recorded when the cursor %s has passed it", name, w.records.cursor)
		case n == nil:
			w.disk.breach("%s is recorded, and not durable", name)
		case f.Lines != bytes.Count(n.written, []byte("\n")) || f.Bytes != int64(len(n.written)):
			w.disk.breach("recorded %+v, but it has %d bytes", f, len(n.written))
		default:
			w.records.rows[name] = true
		}
	}
	w.records.cursor = max(w.records.cursor, part.Cursor)
	for _, name := range w.disk.names() {
		if _, known := w.records.rows[name]; !known && ParseName(name) == Visible && ulidOf(name) <= w.records.cursor {
			w.disk.breach("the cursor %s has passed %s, which is not recorded", w.records.cursor, name)
		}
	}
	for name := range w.records.rows {
		if ulidOf(name) <= w.records.cursor {
			w.records.rows[name] = false
		}
	}
}

// checkRecorded checks that just the files that are there are recorded.
func (w *world) checkRecorded() {
	w.mu.Lock()
	defer w.mu.Unlock()
	visible := map[string]bool{}
	for _, name := range w.disk.names() {
		if ParseName(name) != Visible {
			continue
		}
		visible[name] = true
		if _, known := w.records.rows[name]; !known {
			w.disk.breach("%s is not recorded", name)
		}
	}
	for name := range w.records.rows {
		if !visible[name] {
			w.disk.breach("%s is recorded, and not there", name)
		}
	}
}
