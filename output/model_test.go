package output

import (
	"context"
	"errors"
	"flag"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"async-data-processor/broker/brokertest"
)

// modelChecks is how many schedules TestModel tries unless -rapid.checks or
// RAPID_CHECKS says otherwise: some seconds with the race detector.
const modelChecks = "2000"

// TestModel drives batcher, workerpool and output over a broker and a disk in
// memory through random schedules of traffic, faults, crashes, losses of power
// and take-overs. After every call of the disk and every settle it checks that
// no promise is broken, and at the end that nothing is missing.
//
// A schedule that fails is shrunk and kept below testdata/rapid, whose
// schedules are tried first. Goroutines run in no fixed order, so it may take
// some tries to fail again.
func TestModel(t *testing.T) {
	setModelChecks(t)
	// A single processor interleaves fewer goroutines, and so more likely in
	// the same way again.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	dir := openTestDir(t, t.TempDir())
	dir.sync = func(string) error { return nil }
	dir.window.Unsettled = dir.window.IDs // since clocks jump
	rapid.Check(t, func(t *rapid.T) {
		roll := even(t, "roll", Roll{}, Roll{}, Roll{Bytes: 1}, Roll{Bytes: 800}, Roll{Bytes: 800}, Roll{Interval: 3 * time.Second}, Roll{Bytes: 5000, Interval: time.Minute}, neverFull)
		together := even(t, "together", 0, 2*modelBatch, 8*modelBatch)
		steps := rapid.SliceOfN(rapid.Custom(drawStep), 1, 40).Draw(t, "steps")
		w := &world{dir: dir, roll: roll, together: together, disk: newModelDisk(), records: records{rows: map[string]bool{}}}
		rapid.SyncTest(t, func(*rapid.T) {
			w.memory = brokertest.NewMemory(1) // its channels are the bubble's
			w.run(steps)
		})
		if len(w.disk.breaches) > 0 {
			t.Fatalf("%s", strings.Join(w.disk.breaches, "\n"))
		}
	})
}

func setModelChecks(t *testing.T) {
	_, given := os.LookupEnv("RAPID_CHECKS")
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if given {
		return
	}
	checks := flag.Lookup("rapid.checks").Value
	before := checks.String()
	t.Cleanup(func() { _ = checks.Set(before) })
	must(t, checks.Set(modelChecks))
}

// takeOver checks what the owner after an orderly end finds.
func (w *world) takeOver() {
	p := &process{world: w, dead: make(chan struct{})}
	recorder := newModelRecorder(p)
	shard, err := p.dir(recorder).Shard(context.Background(), 0, func() { w.breach("the shard has an owner after all have ended") })
	if err != nil {
		w.breach("the last owner: %v", err)
		return
	}
	if err := errors.Join(recorder.record(), shard.Close()); err != nil {
		w.breach("the last owner: %v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	files := 0
	for _, name := range w.disk.names() {
		switch ParseName(name) {
		case Visible:
			files++
		default:
			w.disk.breach("%s is left", name)
		}
	}
	if got, ids := shard.Rebuilt(), len(w.disk.kept()); got.IDs != ids || got.Files != files || got.Damaged+got.Foreign != 0 {
		w.disk.breach("the last owner rebuilt %+v, want %d ids in %d files", got, ids, files)
	}
}
