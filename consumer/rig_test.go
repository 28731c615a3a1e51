package consumer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"async-data-processor/batcher"
	"async-data-processor/broker/brokertest"
	"async-data-processor/event"
	"async-data-processor/message"
	"async-data-processor/output"
	"async-data-processor/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const shards = 3

// rig is a Set over a broker in memory, in the test's bubble. Its output fails as
// the test says.
type rig struct {
	t      *testing.T
	memory *brokertest.Memory
	larger *brokertest.Client // a client of the broker with eight shards
	dir    string
	cfg    Config
	roll   output.Roll
	began  time.Time
	first  int               // how many shards are assigned to the Set before it runs
	hear   func(event.Event) // hears of events, concurrently; nil for nothing
	// around wraps a folder that was taken; nil for faults alone.
	around func(n int, f Folder) Folder

	set    *Set
	signal context.CancelFunc
	done   chan error
	lines  *telemetry.Log

	mu     sync.Mutex // guards what follows
	faults map[int]faults
	writes int // tried
	log    bytes.Buffer
}

// faults is what fails of a shard.
type faults struct {
	open, write error
	standby     bool // another process owns it
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newRig returns a rig whose Set is not started yet.
func newRig(t *testing.T) *rig {
	r := &rig{
		t: t, memory: brokertest.NewMemory(shards), dir: t.TempDir(), began: time.Now(),
		done: make(chan error, 1), faults: make(map[int]faults),
	}
	r.larger = r.memory.OpenShards(8, nil)
	r.cfg = Config{
		Shards: shards, Queues: r.memory, Prefetch: 30,
		Batch:      batcher.Config{Size: 5, Together: 40, Linger: time.Second},
		WorkersMin: 3, WorkersMax: 4, WorkerTimeout: 30 * time.Second, ErrorTimeout: time.Minute,
	}
	return r
}

// start runs a Set of all shards until the test stops it, or it fails.
func (r *rig) start() {
	r.t.Helper()
	r.first = shards
	r.run()
	synctest.Wait()
}

// run runs a Set of the first shards.
func (r *rig) run() {
	r.t.Helper()
	dir, err := output.Open(r.dir, output.Window{IDs: 1000, Age: 24 * time.Hour}, r.roll)
	must(r.t, err)
	r.t.Cleanup(func() { dir.Close() })
	r.cfg.RollInterval = max(r.cfg.RollInterval, r.roll.Interval)
	r.cfg.Dir, r.cfg.Open = dir, func(ctx context.Context, n int, onStandby func()) (Folder, error) {
		return r.open(ctx, dir, n, onStandby)
	}
	var hub event.Hub
	r.lines = telemetry.Start(&hub, zerolog.New(r), false)
	r.cfg.Events = func(e event.Event) {
		if r.hear != nil {
			r.hear(e)
		}
		hub.Send(e)
	}
	r.set = New(r.cfg)
	for n := range r.first {
		r.set.Start(n)
	}
	ctx, signal := context.WithCancel(context.Background())
	r.signal = signal
	go func() {
		err := r.set.Run(ctx, context.Background())
		r.lines.Close()
		r.lines.History(r.set.History(), true)
		r.done <- err
	}()
}

func (r *rig) open(ctx context.Context, dir *output.Dir, n int, onStandby func()) (Folder, error) {
	for f := r.of(n); f.open != nil || f.standby; f = r.of(n) {
		if f.open != nil {
			return nil, f.open
		}
		onStandby()
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	f, err := dir.Shard(ctx, n, onStandby)
	if err != nil {
		return nil, err
	}
	if r.around != nil {
		return r.around(n, f), nil
	}
	return sickFolder{f, r, n}, nil
}

type sickFolder struct {
	Folder
	rig *rig
	n   int
}

func (f sickFolder) Write(ctx context.Context, worker string, b *message.Batch) (string, []message.Message, error) {
	f.rig.mu.Lock()
	f.rig.writes++
	f.rig.mu.Unlock()
	if err := f.rig.of(f.n).write; err != nil {
		return "", nil, err
	}
	return f.Folder.Write(ctx, worker, b)
}

func (r *rig) of(n int) faults {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.faults[n]
}

func (r *rig) fail(n int, f faults) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults[n] = f
}

func (r *rig) tried() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.writes
}

func (r *rig) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

// stop drains the Set.
func (r *rig) stop() {
	r.t.Helper()
	r.signal()
	if err := <-r.done; err != nil {
		r.t.Error(err)
	}
}

// ended returns how the Set ended by itself, within a second.
func (r *rig) ended() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(time.Second):
		r.t.Fatalf("it goes on; the log:\n%s", &r.log)
		return nil
	}
}

// after lets the time pass.
func (r *rig) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// queue queues one message for the shard.
func (r *rig) queue(n int) {
	r.memory.PublishForeign(n, "", fmt.Appendf(nil, `{"timestamp":"2019-10-12T08:10:54Z","value":"%d at %v"}`, n, time.Since(r.began)))
}

// publish queues an envelope of n messages.
func (r *rig) publish(shard, n int) {
	r.t.Helper()
	r.publishAs(fmt.Sprintf("S%d", shard), shard, n)
}

func (r *rig) publishAs(id string, shard, n int) {
	r.t.Helper()
	var text bytes.Buffer
	for i := range n {
		fmt.Fprintf(&text, `{"message_id":"%s.%d","timestamp":"2019-10-12T08:10:54Z"}`+"\n", id, i)
	}
	must(r.t, brokertest.Publish(r.t.Context(), r.larger, message.Envelope{ID: id, Shard: shard, Count: n, Body: text.Bytes()}))
}

// written returns the message ids in the shard's files.
func (r *rig) written(shard int) (ids []string) {
	r.t.Helper()
	paths, _ := filepath.Glob(filepath.Join(r.folder(shard), fmt.Sprintf("%d-*.ndjson", shard)))
	for _, path := range paths {
		if info, err := os.Stat(path); err != nil || info.IsDir() {
			continue
		}
		content, err := os.ReadFile(path)
		must(r.t, err)
		for line := range bytes.Lines(content) {
			var m struct {
				ID string `json:"message_id"`
			}
			if err := json.Unmarshal(line, &m); err != nil {
				r.t.Fatalf("%s: %v", path, err)
			}
			ids = append(ids, m.ID)
		}
	}
	return ids
}

func (r *rig) folder(shard int) string { return filepath.Join(r.dir, fmt.Sprintf("shard-%d", shard)) }

// checkWritten fails unless so many messages are in files, and no dead letters.
func (r *rig) checkWritten(want int) {
	r.t.Helper()
	got := 0
	for n := range 8 {
		got += len(r.written(n))
	}
	if got != want {
		r.t.Errorf("after %v %d messages are in files, want %d", time.Since(r.began), got, want)
	}
	if dead := r.memory.Dead(); len(dead) > 0 {
		r.t.Errorf("dead letters: %v", dead)
	}
}

// checkStatus fails unless the output takes everything, or not for that reason.
func (r *rig) checkStatus(reason string) {
	r.t.Helper()
	text := ""
	if err := r.set.Status().Err(shards); err != nil {
		text = err.Error()
	}
	if (text != "") != (reason != "") || !strings.Contains(text, reason) {
		r.t.Errorf("after %v the output is not ready because of %q, want %q", time.Since(r.began), text, reason)
	}
}

// checkFiles fails unless so many messages are in the shard's files.
func (r *rig) checkFiles(shard, want int) {
	r.t.Helper()
	if got := len(r.written(shard)); got != want {
		r.t.Errorf("after %v %d messages of shard %d are in files, want %d", time.Since(r.began), got, shard, want)
	}
}

// checkWaiting fails unless so many envelopes of the shard are at the broker.
func (r *rig) checkWaiting(shard, want int) {
	r.t.Helper()
	if got := r.memory.Waiting(shard); got != want {
		r.t.Errorf("after %v %d envelopes of shard %d wait, want %d", time.Since(r.began), got, shard, want)
	}
}

// checkDepth fails unless so many envelopes of the shard are at the broker or
// unsettled.
func (r *rig) checkDepth(shard, want int) {
	r.t.Helper()
	if got := r.memory.Depth(shard); got != want {
		r.t.Errorf("after %v %d envelopes of shard %d are left, want %d", time.Since(r.began), got, shard, want)
	}
}

// checkRunning fails unless so many shards below the number run.
func (r *rig) checkRunning(below, want int) {
	r.t.Helper()
	if got := running(r.set.Status(), below); got != want {
		r.t.Errorf("after %v %d shards run, want %d", time.Since(r.began), got, want)
	}
}

// running counts the shards below the number that run.
func running(s Status, below int) (n int) {
	for _, sh := range s {
		if sh.Shard < below && sh.State == event.ShardRunning {
			n++
		}
	}
	return n
}

// checkTold fails unless so many lines of the log have both texts.
func (r *rig) checkTold(want int, a, b string) {
	r.t.Helper()
	if got := r.told(a, b); got != want {
		r.t.Errorf("after %v %q with %q is told %d times, want %d", time.Since(r.began), a, b, got, want)
	}
}

// told counts the lines of the log with both texts.
func (r *rig) told(a, b string) (n int) {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	for line := range strings.Lines(r.log.String()) {
		if strings.Contains(line, a) && strings.Contains(line, b) {
			n++
		}
	}
	return n
}

// broken is the error of a step on a disk.
func broken(step string, n int, err error) error {
	return &fs.PathError{Op: step, Path: fmt.Sprintf("shard-%d/.x.tmp", n), Err: err}
}
