package files

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"async-data-processor/event"
	"async-data-processor/jobs/store"
	"async-data-processor/message"
	"async-data-processor/output"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// database is a Store. At each transaction it checks that no visible file up to a cursor
// is missing.
type database struct {
	t    testing.TB
	path string

	mu           sync.Mutex // guards what follows
	away         error
	broken       map[int]error // by the shard
	unwanted     bool          // the files are not
	cursors      map[int]string
	files        map[string]store.File
	transactions []int // how many files each had
}

func (d *database) Cursor(_ context.Context, shard int) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cursors[shard], errors.Join(d.away, d.broken[shard])
}

func (d *database) Record(_ context.Context, parts []store.Recorded) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away != nil {
		return d.away
	}
	n := 0
	for _, p := range parts {
		n += len(p.Files)
		for _, f := range p.Files {
			if _, again := d.files[f.Name]; again {
				d.t.Errorf("%s is recorded again", f.Name)
			}
			d.files[f.Name] = store.File{Published: f}
		}
		d.cursors[p.Shard] = max(d.cursors[p.Shard], p.Cursor)
	}
	d.transactions = append(d.transactions, n)
	for _, name := range d.visible() {
		if d.unwanted {
			break
		}
		var shard int
		_, _ = fmt.Sscanf(name, "shard-%d/", &shard)
		if _, there := d.files[name]; !there && (output.Published{File: name}).ULID() <= d.cursors[shard] {
			d.t.Errorf("the cursor of shard %d has passed %s, which is not recorded", shard, name)
		}
	}
	return nil
}

func (d *database) visible() []string {
	names, _ := filepath.Glob(filepath.Join(d.path, "shard-*", "*.ndjson"))
	for i, name := range names {
		names[i], _ = filepath.Rel(d.path, name)
	}
	return names
}

func (d *database) setAway(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = err
}

// recorded returns the names of what is recorded, sorted.
func (d *database) recorded() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.files))
}

// rig is an output folder and its Recorder.
type rig struct {
	*testing.T
	*database
	dir      *output.Dir
	recorder *Recorder

	telling sync.Mutex // guards told
	told    []event.Event
	kicks   int
}

// newRig makes a folder in memory.
func newRig(t *testing.T) *rig {
	t.Helper()
	path, err := os.MkdirTemp("/dev/shm", "files")
	if err != nil {
		path = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(path) })
	d := &database{t: t, path: path, cursors: map[int]string{}, files: map[string]store.File{}}
	return openRig(t, d)
}

// openRig is another process on the folder of a database.
func openRig(t *testing.T, d *database) *rig {
	t.Helper()
	r := &rig{T: t, database: d}
	var err error
	if r.dir, err = output.Open(d.path, output.Window{IDs: 1000, Age: time.Hour}, output.Roll{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.dir.Close() })
	r.recorder = New(Config{Store: d, Events: r.tell, Recorded: func() { r.kicks++ }})
	r.dir.Recorder = r.recorder
	return r
}

func (r *rig) tell(e event.Event) {
	r.telling.Lock()
	defer r.telling.Unlock()
	r.told = append(r.told, e)
}

// events returns those that were told since the last call.
func (r *rig) events() []event.Event {
	r.telling.Lock()
	defer r.telling.Unlock()
	defer func() { r.told = nil }()
	return r.told
}

func (r *rig) shard(n int) *output.Shard {
	r.Helper()
	s, err := r.dir.Shard(r.Context(), n, nil)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = s.Close() })
	return s
}

// write publishes n files.
func (r *rig) write(s *output.Shard, n int) {
	r.Helper()
	b := &message.Batch{Size: 1}
	d := message.NewDelivery(message.Envelope{}, false, nil)
	id := message.NewID()
	for i := range n {
		b.Add(d, message.Message{Line: fmt.Appendf(nil, `{"message_id":"%s.%d"}`, id, i)})
	}
	if _, _, err := s.Write(context.Background(), "0-1", b); err != nil {
		r.Fatal(err)
	}
}

// run runs the Recorder until stop is called.
func (r *rig) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.recorder.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// checkAll fails unless just the visible files are recorded.
func (r *rig) checkAll() {
	r.Helper()
	want := r.visible()
	slices.Sort(want)
	if got := r.recorded(); !slices.Equal(got, want) {
		r.Errorf("recorded %q\nwant %q", got, want)
	}
	if n, oldest := r.recorder.Waiting(); n > 0 || !oldest.IsZero() {
		r.Errorf("%d files wait, the oldest since %v", n, oldest)
	}
}

// TestRecordTogether: what waits of all shards goes into few transactions.
func TestRecordTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for n := range 3 {
			r.write(r.shard(n), 500)
		}
		if n, _ := r.recorder.Waiting(); n != 1500 {
			t.Errorf("%d files wait, want 1500", n)
		}
		stop := r.run()
		synctest.Wait()
		r.checkAll()
		// The first has the cursors.
		if got := r.transactions; !slices.Equal(got, []int{0, 1000, 500}) {
			t.Errorf("transactions of %v files", got)
		}
		if r.kicks != 2 {
			t.Errorf("told %d times that files were recorded, want 2", r.kicks)
		}
		stop()
	})
}

// TestDatabaseAway: who publishes does not wait for the database, all is recorded when it
// is back, and the failure is told once.
func TestDatabaseAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := r.shard(0)
		stop := r.run()
		synctest.Wait()
		r.setAway(errors.New("the connection was refused"))
		began := time.Now()
		for range 50 {
			r.write(s, 10)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("the files waited for %v", took)
		}
		time.Sleep(tellInterval + tellInterval/2)
		var told []int
		for _, e := range r.events() {
			told = append(told, e.(event.FilesUnrecorded).Files)
		}
		if len(told) != 2 || told[1] != 500 {
			t.Errorf("told of %v files that wait, want twice, at last of 500", told)
		}
		if n, oldest := r.recorder.Waiting(); n != 500 || time.Since(oldest) < tellInterval {
			t.Errorf("%d files wait, the oldest since %v", n, oldest)
		}
		r.setAway(nil)
		time.Sleep(2 * retryMax)
		r.checkAll()
		if e, ok := r.events()[0].(event.FilesRecorded); !ok || e.Away < tellInterval {
			t.Errorf("told %v", e)
		}
		stop()
	})
}

// TestDrain: Run records what there is before it ends, and does not wait long for a
// database that is away.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := r.shard(0)
		stop := r.run()
		synctest.Wait()
		r.setAway(errors.New("away"))
		r.write(s, 3)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(DrainTime/2, func() { r.setAway(nil) })
		stop()
		r.checkAll()

		s = r.shard(0)
		stop = r.run()
		synctest.Wait()
		r.setAway(errors.New("away"))
		r.write(s, 3)
		began := time.Now()
		if stop(); time.Since(began) > DrainTime {
			t.Errorf("the drain took %v", time.Since(began))
		}
		r.setAway(nil)
	})
}

// TestNextOwner: another process records what is left, tells how much that was, and goes on.
func TestNextOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := r.shard(0)
		stop := r.run()
		synctest.Wait()
		r.setAway(errors.New("away"))
		r.write(s, 1500)
		stop()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		r.setAway(nil)

		next := openRig(t, r.database)
		s = next.shard(0)
		stop = next.run()
		next.write(s, 2)
		synctest.Wait()
		next.checkAll()
		told := next.events()
		if e, ok := told[0].(event.FilesCaughtUp); !ok || len(told) != 1 || e.Shard != 0 || e.Files < 1500 {
			t.Errorf("told %+v", told)
		}
		stop()
	})
}

// TestShardComesAgain: a shard that this process gives up and takes again is recorded
// once, and a shard that is given up is forgotten.
func TestShardComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		stop := r.run()
		for range 3 {
			s := r.shard(0)
			r.write(s, 3)
			time.Sleep(2 * retryMax) // a pause may go on
			r.setAway(errors.New("away"))
			r.write(s, 3)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			r.setAway(nil)
		}
		time.Sleep(2 * retryMax)
		r.checkAll()
		if n := len(r.recorder.all()); n > 0 {
			t.Errorf("%d shards are kept", n)
		}
		stop()
	})
}

// TestOneShardFails: a shard that cannot be recorded holds up no other.
func TestOneShardFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.broken = map[int]error{1: errors.New("this row cannot be read")}
		stop := r.run()
		for n := range 3 {
			r.write(r.shard(n), 3)
		}
		time.Sleep(2 * retryMax)
		if n := len(r.recorded()); n != 6 {
			t.Errorf("%d files are recorded, want 6", n)
		}
		r.database.mu.Lock()
		r.broken = nil
		r.database.mu.Unlock()
		time.Sleep(2 * retryMax)
		r.checkAll()
		stop()
	})
}

// TestNoJobBeginsOnFiles: only the cursor is stored while no job begins on files. One that
// is defined later begins with what is published then.
func TestNoJobBeginsOnFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.unwanted = true
		r.recorder.cfg.Wanted = func() bool { return !r.unwanted }
		s := r.shard(0)
		stop := r.run()
		r.write(s, 3)
		synctest.Wait()
		if got, cursor := r.recorded(), r.cursors[0]; len(got) > 0 || cursor == "00000000000000000000000000" || r.kicks > 0 {
			t.Errorf("recorded %q, the cursor is %s, told %d times", got, cursor, r.kicks)
		}
		for _, name := range r.visible() {
			if err := os.Remove(filepath.Join(r.path, name)); err != nil {
				t.Fatal(err)
			}
		}
		r.unwanted = false
		r.write(s, 2)
		synctest.Wait()
		r.checkAll()
		stop()
	})
}
