package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"async-data-processor/consumer"
	"async-data-processor/output"
)

// newRolling starts a pipeline of one shard whose files roll.
func newRolling(t *testing.T, bytes int64, interval time.Duration) *works {
	t.Helper()
	return newWorks(t, func(cfg *Config) {
		cfg.Shards, cfg.RollBytes, cfg.RollInterval = 1, bytes, interval
	})
}

// never is longer than any test.
const never = MaxRollInterval

// large is a value that makes the smallest file full.
var large = strings.Repeat("x", MinRollBytes)

// written waits until the broker has forgotten what was posted.
func (w *works) written() {
	w.t.Helper()
	w.eventually("acknowledgement", func() bool { return w.memory.Depth(0) == 0 })
}

// files returns the names in the shard's folder with the suffix.
func (w *works) files(suffix string) (names []string) {
	w.t.Helper()
	entries, err := os.ReadDir(filepath.Join(w.cfg.OutputDir, "shard-0"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestRollingFileIsRescued: the log warns that another program has removed the file that is
// written to.
func TestRollingFileIsRescued(t *testing.T) {
	w := newRolling(t, 1<<30, never)
	if status := w.post(body("a", "b", "c")); status != http.StatusCreated {
		t.Fatalf("status %d", status)
	}
	w.written()
	lost := w.files(".rolling")[0]
	if err := os.Remove(filepath.Join(w.cfg.OutputDir, "shard-0", lost)); err != nil {
		t.Fatal(err)
	}
	const warning = "another program removed or replaced the open file, wrote its acknowledged entries anew"
	w.eventually("warning", func() bool { return w.logged(warning) && w.logged(lost) })
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if values := w.values(); len(values) != 3 {
		t.Errorf("%v in files", values)
	}
}

// TestRollingAtDrain: what is neither full nor old is acknowledged, not to be
// seen, and published when the process stops.
func TestRollingAtDrain(t *testing.T) {
	w := newRolling(t, 1<<30, never)
	for i := range 20 {
		if status := w.post(body(fmt.Sprint("a", i), fmt.Sprint("b", i), fmt.Sprint("c", i))); status != http.StatusCreated {
			t.Fatalf("status %d", status)
		}
	}
	w.written()
	if got := w.values(); len(got) != 0 {
		t.Errorf("%v are to be seen", got)
	}
	if got := w.files(".rolling"); len(got) != 1 {
		t.Errorf("the file that is written to is %q, want one", got)
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	values := w.values()
	slices.Sort(values)
	if unique := slices.Compact(slices.Clone(values)); len(values) != 60 || len(unique) != 60 {
		t.Errorf("%d values in files, %d of them different, want 60", len(values), len(unique))
	}
	if got, hidden := w.files(".ndjson"), w.files(".rolling"); len(got) != 1 || len(hidden) != 0 {
		t.Errorf("files %q and %q, want one that is visible", got, hidden)
	}
}

// TestRollingByAge: a file is published in time although nothing comes any more.
func TestRollingByAge(t *testing.T) {
	w := newRolling(t, 0, MinRollInterval)
	w.post(body("a", "b"))
	w.eventually("a file", func() bool { return len(w.values()) == 2 })
	w.post(body("c", "d"))
	w.eventually("another file", func() bool { return len(w.values()) == 4 })
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if got := w.files(".ndjson"); len(got) != 2 {
		t.Errorf("files %q, want two", got)
	}
}

// TestRollingBySize: a file is published when it is full, whatever its age, and
// holds many batches.
func TestRollingBySize(t *testing.T) {
	w := newRolling(t, MinRollBytes, never)
	total := 0
	w.eventually("two full files", func() bool {
		if status := w.post(body("a", "b", "c", "d", "e", "f", "g")); status != http.StatusCreated {
			t.Fatalf("status %d; the log:\n%s", status, &w.log)
		}
		total += 7
		return len(w.files(".ndjson")) >= 2
	})
	w.written() // what is not consumed yet would stay with the broker
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if got := len(w.values()); got != total {
		t.Errorf("%d values in files, want %d", got, total)
	}
	small := 0
	for _, name := range w.files(".ndjson") {
		info, err := os.Stat(filepath.Join(w.cfg.OutputDir, "shard-0", name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() < MinRollBytes {
			small++
		}
	}
	if small > 1 {
		t.Errorf("%d files have less than %d bytes, want that of the drain alone", small, MinRollBytes)
	}
}

// TestRollingAgain: what is in the file that is written to is known, and so it is
// in the next process, which goes on behind what a crash left unpublished.
func TestRollingAgain(t *testing.T) {
	w := newRolling(t, 1<<30, never)
	text := []byte(`{"timestamp":"2019-10-12T08:10:54Z","value":"once"}`)
	w.memory.PublishForeign(0, "theirs", text)
	w.written()
	w.memory.PublishForeign(0, "theirs", text)
	w.written()
	hidden := w.files(".rolling")[0]
	content, err := os.ReadFile(filepath.Join(w.cfg.OutputDir, "shard-0", hidden))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}

	// As a crash would have left it: not published, and its last line torn.
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "shard-0"), 0o755); err != nil {
		t.Fatal(err)
	}
	content = append(content, `{"message_id":"torn`...)
	if err := os.WriteFile(filepath.Join(dir, "shard-0", hidden), content, 0o644); err != nil {
		t.Fatal(err)
	}
	w = newWorks(t, func(cfg *Config) { cfg.Shards, cfg.RollBytes, cfg.OutputDir = 1, 1<<30, dir })
	if got := w.values(); !slices.Equal(got, []string{"once"}) {
		t.Errorf("%q are to be seen after a crash, want what was written before it", got)
	}
	w.memory.PublishForeign(0, "theirs", text)
	w.memory.PublishForeign(0, "another", text)
	w.written()
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if got := w.values(); len(got) != 2 {
		t.Errorf("%d messages in files, want 2", len(got))
	}
}

// block keeps the file that is written to from being published: a folder has its
// name. It returns what takes that away.
func (w *works) block() (unblock func()) {
	w.t.Helper()
	hidden := w.files(".rolling")
	if len(hidden) != 1 {
		w.t.Fatalf("the file that is written to is %q, want one", hidden)
	}
	stem := strings.TrimSuffix(strings.TrimPrefix(hidden[0], "."), ".rolling")
	inTheWay := filepath.Join(w.cfg.OutputDir, "shard-0", stem+".ndjson")
	if err := os.Mkdir(inTheWay, 0o755); err != nil {
		w.t.Fatal(err)
	}
	return func() {
		if err := os.Remove(inTheWay); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *works) ready() (is bool, why string) {
	status, text := w.status("/readyz?verbose")
	return status == http.StatusOK, text
}

// TestOverdueIsNotReady: a file that cannot be published makes the process not
// ready, and it goes on by itself when that is over.
func TestOverdueIsNotReady(t *testing.T) {
	w := newRolling(t, MinRollBytes, never)
	w.post(body("a"))
	w.written()
	unblock := w.block()
	w.post(body(large))
	w.written()
	w.eventually("reason not to be ready", func() bool {
		is, why := w.ready()
		return !is && strings.Contains(why, "output") && strings.Contains(why, "1 shard has an overdue file (shard 0: ")
	})
	w.eventually("warning", func() bool { return w.logged("cannot publish the open file") })
	w.post(body("b"))
	w.eventually("batch that is held behind it", func() bool {
		_, why := w.ready()
		return strings.Contains(why, "1 worker cannot write its batch")
	})
	if got := w.memory.Depth(0); got != 1 {
		t.Errorf("%d envelopes are not acknowledged, want 1", got)
	}
	unblock()
	w.eventually("files", func() bool { return len(w.values()) == 2 })
	w.written() // to the next file
	w.eventually("being ready", func() bool { is, _ := w.ready(); return is })
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

// rollWith is a folder whose Roll is the test's.
type rollWith struct {
	consumer.Folder
	roll func(context.Context) error
}

func (f rollWith) Roll(ctx context.Context) error { return f.roll(ctx) }

// TestRollHangs: while the disk does not answer, and for as long as another one
// is at the file, the process is not ready, and tells so.
func TestRollHangs(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		roll   func(over <-chan struct{}) error
	}{
		"in a system call": {"the output hangs", func(over <-chan struct{}) error {
			<-over
			return nil
		}},
		"in a turn": {output.ErrTurn.Error(), func(over <-chan struct{}) error {
			select {
			case <-over:
				return nil
			default:
				return fmt.Errorf("roll: %w", output.ErrTurn)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			began, over := make(chan struct{}), make(chan struct{})
			roll := func(context.Context) error {
				select {
				case <-began:
					return tc.roll(over)
				default: // to be ready first
					return nil
				}
			}
			w := newWorksWith(t, wraps{folder: func(f consumer.Folder) consumer.Folder { return rollWith{f, roll} }}, func(cfg *Config) {
				cfg.Shards, cfg.RollInterval, cfg.WorkerTimeout = 1, MinRollInterval, 300*time.Millisecond
			})
			close(began)
			w.eventually("reason not to be ready", func() bool {
				is, why := w.ready()
				return !is && strings.Contains(why, "1 shard has an overdue file (shard 0: ") && strings.Contains(why, tc.reason)
			})
			w.eventually("line", func() bool { return w.logged("cannot check whether the open file is due") })
			if w.logged("cannot publish the open file") {
				t.Errorf("a file is told of that there is not:\n%s", &w.log)
			}
			close(over)
			w.eventually("being ready", func() bool { is, _ := w.ready(); return is })
			if err := w.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOverdueForLong: like any failure of the output, it ends the process, which
// says in one line what becomes of the file.
func TestOverdueForLong(t *testing.T) {
	w := newWorks(t, func(cfg *Config) {
		cfg.Shards, cfg.RollBytes, cfg.OutputErrorTimeout = 1, MinRollBytes, 300*time.Millisecond
	})
	w.post(body("a"))
	w.written()
	defer w.block()()
	w.post(body(large))
	select {
	case err := <-w.done:
		if !errors.Is(err, ErrOutputFailed) || !errors.Is(err, fs.ErrExist) {
			t.Errorf("it stopped: %v", err)
		} else if text := err.Error(); strings.Count(text, "the next start publishes it") != 1 || strings.Contains(text, "\n") {
			t.Errorf("it does not say in one line what becomes of the file: %v", err)
		}
	case <-time.After(patience):
		t.Error("it does not stop")
	}
}

// TestOverdueAtDrain: a process that cannot publish says so at its end, and the
// next one does.
func TestOverdueAtDrain(t *testing.T) {
	w := newRolling(t, 1<<30, never)
	w.post(body("a", "b"))
	w.written()
	unblock := w.block()
	if err := w.stop(); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "the next start publishes it") {
		t.Errorf("it stopped: %v", err)
	}
	unblock()
	next := newWorks(t, func(cfg *Config) { cfg.Shards, cfg.OutputDir = 1, w.cfg.OutputDir })
	if got := next.values(); len(got) != 2 {
		t.Errorf("%q in files, want both values", got)
	}
	if err := next.stop(); err != nil {
		t.Error(err)
	}
}

// TestRollingLostFolder: the owner of a folder that is removed finds out although
// nothing comes, and takes it anew.
func TestRollingLostFolder(t *testing.T) {
	w := newRolling(t, 0, MinRollInterval)
	if err := os.RemoveAll(filepath.Join(w.cfg.OutputDir, "shard-0")); err != nil {
		t.Fatal(err)
	}
	w.eventually("new folder", func() bool {
		_, err := os.Stat(filepath.Join(w.cfg.OutputDir, "shard-0"))
		is, _ := w.ready()
		return err == nil && is
	})
	if !w.logged("cannot check whether the open file is due") || w.logged("cannot publish the open file") {
		t.Errorf("a file is told of that there is not:\n%s", &w.log)
	}
	w.post(body("a"))
	w.eventually("file", func() bool { return len(w.values()) == 1 })
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}
