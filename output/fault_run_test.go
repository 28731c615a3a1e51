package output

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"async-data-processor/message"
)

// What a Write without errors asks of its folder, in this order: one that writes a
// file, and appends that fill their file, as its first or as another.
var (
	cleanCalls   = []string{"held", "create", "write", "fsync", "close", "open", "held", "link", "remove", "folder fsync"}
	firstCalls   = slices.Concat([]string{"held", "open", "create", "id", "folder fsync", "held", "write", "fsync", "stat"}, publishCalls)
	anotherCalls = slices.Concat([]string{"held", "write", "fsync", "stat"}, publishCalls)
	publishCalls = []string{"stat", "close", "linked", "link", "folder fsync", "remove", "folder fsync"}
)

// kindOfWrite is a row of the table of faults: the tests below let every call of
// each fail.
type kindOfWrite struct {
	name   string
	calls  []string
	needed int // so many of them decide whether the batch is written
	before int // messages in its file already
	rolls  bool
}

var kindsOfWrite = []kindOfWrite{
	{"a file", cleanCalls, len(cleanCalls), 0, false},
	{"first append", firstCalls, len(firstCalls) - len(publishCalls), 0, true},
	{"another append", anotherCalls, len(anotherCalls) - len(publishCalls), 5, true},
}

// faultRun writes one batch under a plan, and then goes on without faults.
type faultRun struct {
	*testing.T
	kindOfWrite
	path  string
	old   []string // in the file already
	lines []string
	batch *message.Batch
	shard *Shard
	disk  *faulty
	err   error // of the last Write

	recorded *recorded
}

// eachCall runs test for every call of every kind of write.
func eachCall(t *testing.T, test func(t *testing.T, k kindOfWrite, i int)) {
	for _, k := range kindsOfWrite {
		for i, call := range k.calls {
			t.Run(fmt.Sprintf("%s/%d %s", k.name, i, call), func(t *testing.T) { test(t, k, i) })
		}
	}
}

func (k kindOfWrite) begin(t *testing.T, p plan, err error) *faultRun {
	r := &faultRun{T: t, kindOfWrite: k, path: memoryDir(t), lines: numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 5)}
	r.batch = newBatch(r.lines...)
	var roll Roll
	if r.old = numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5D", k.before); k.rolls {
		roll.Bytes = 1
	}
	if k.before > 0 {
		roll.Bytes += int64(len(content(r.old)))
	}
	r.recorded = newRecorded(t)
	r.shard = recordedBy(t, r.recorded, r.path, roll)
	r.recorded.record()
	r.disk = newFaulty(t, r.shard, at(-1, pass), err)
	if k.before > 0 {
		write(t, r.shard, k.before, r.old...)
	}
	r.disk.calls, r.disk.plan = nil, p
	return r
}

// written is begin and write.
func (k kindOfWrite) written(t *testing.T, p plan, err error) *faultRun {
	r := k.begin(t, p, err)
	r.write()
	return r
}

func (r *faultRun) write() {
	r.err = guarded(func() error {
		_, _, err := r.shard.Write(context.Background(), worker, r.batch)
		return err
	})
}

// guarded returns what do panics with as an error.
func guarded(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = p.(error)
		}
	}()
	return do()
}

// visible is all that a reader can see.
func (r *faultRun) visible() string {
	var seen []byte
	names, _ := folderNames(r, r.path)
	for _, name := range names {
		seen = append(seen, content(linesOf(r, filepath.Join(r.path, "shard-0", name)))...)
	}
	return string(seen)
}

// checkAttempt fails if a failed Write left something visible without a word, or
// if one is visible neither now nor later.
func (r *faultRun) checkAttempt() {
	r.Helper()
	switch seen := strings.Count(r.visible(), r.lines[0]); {
	case seen > 1:
		r.Errorf("visible %d times", seen)
	case seen == 1 && r.err != nil && !errors.Is(r.err, ErrStillVisible):
		r.Errorf("visible although Write failed with %v", r.err)
	case seen == 0 && r.err == nil && r.shard.RollErr() == nil:
		r.Errorf("written, but not visible, nor late: %q", r.disk.calls)
	}
}

// checkRecovery fails unless the batch is written now, once, and everything is
// visible and durable when the shard is closed.
func (r *faultRun) checkRecovery() {
	r.Helper()
	r.disk.plan = at(-1, pass)
	_, fresh, err := r.shard.Write(context.Background(), worker, r.batch)
	written := len(fresh)
	if want := len(r.lines); err != nil || written != want && r.err != nil || written > 0 && r.err == nil {
		r.Errorf("the next attempt wrote %d, %v; the one before ended with %v", written, err, r.err)
	}
	must(r, errors.Join(r.shard.Roll(context.Background()), r.shard.RollErr(), r.shard.Close()))
	all := slices.Concat(r.old, r.lines)
	checkOnce(r, r.path, all...)
	var kept []byte
	for name, n := range r.disk.disk.durable {
		if ParseName(name) == Visible {
			kept = append(kept, n.synced...)
		}
	}
	if strings.Count(string(kept), "\n") != len(all) {
		r.Errorf("a loss of power leaves visible\n%s", kept)
	}
	r.checkReopened(all)
}

// checkReopened fails unless a new owner finds all of it and leaves nothing else.
func (r *faultRun) checkReopened(all []string) {
	r.Helper()
	s := r.reopen()
	defer s.Close()
	r.recorded.record()
	r.recorded.checkRows(r.path)
	if got := s.Rebuilt(); got.IDs != len(all) || got.Damaged+got.Foreign > 0 {
		r.Errorf("rebuilt %+v", got)
	}
	if _, other := folderNames(r, r.path); len(other) > 0 {
		r.Errorf("left over: %q", other)
	}
	write(r, s, 0, all...)
}

// reopen returns the next owner, which removes the temporary files.
func (r *faultRun) reopen() *Shard {
	r.Helper()
	temps := 0
	_, other := folderNames(r, r.path)
	for _, name := range other {
		if ParseName(name) == Temporary {
			temps++
		}
	}
	s := recordedBy(r.T, r.recorded, r.path, Roll{})
	if s.RemovedTemps() != temps {
		r.Errorf("removed %d of %q", s.RemovedTemps(), other)
	}
	return s
}

// checkCrashed fails unless the next owner publishes what was written, and writes
// only what is missing.
func (r *faultRun) checkCrashed() {
	r.Helper()
	// A dead process does nothing more; its lock goes with it.
	r.shard.dir.unlock()
	s := r.reopen()
	r.shard.dir.close()
	seen := r.visible()
	missing := func(lines ...string) (n int) {
		for _, l := range lines {
			n += 1 - strings.Count(seen, l)
		}
		return n
	}
	if missing(r.old...) > 0 {
		r.Fatalf("lost with the crash: of %q only\n%s", r.old, seen)
	}
	gone := missing(r.lines...)
	if r.err == nil && gone > 0 {
		r.Errorf("%d of the messages are missing of a Write that succeeded", gone)
	}
	if !r.rolls && gone%len(r.lines) != 0 {
		r.Errorf("%d of the messages are missing of a file", gone)
	}
	if got, want := s.Rebuilt().IDs, len(r.old)+len(r.lines)-gone; got != want {
		r.Errorf("%d ids are known from the files, want %d", got, want)
	}
	// The broker delivers the messages again, in other company.
	others := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5F", 2)
	some := []string{r.lines[3], others[0], r.lines[1]}
	write(r, s, missing(some...), some...)
	write(r, s, gone+2-missing(some...), slices.Concat(r.lines, others)...)
	all := slices.Concat(r.old, r.lines, others)
	checkOnce(r, r.path, all...)
	must(r, s.Close())
	r.checkReopened(all)
}

// checkClosed is checkCrashed after a Close under what is left of the plan.
func (r *faultRun) checkClosed() {
	r.Helper()
	failed := guarded(r.shard.Close)
	if hidden := hiddenFile(r, r.path); failed == nil && !r.disk.crashed && hidden != "" {
		r.Errorf("closed, but %q is left", hidden)
	}
	r.checkCrashed()
}

// checkRolling fails unless the rolling file is late and hidden only if the i-th
// call has to be done again for its publication.
func (r *faultRun) checkRolling(i int, behind bool, fault error) {
	r.Helper()
	call := r.calls[i]
	// What is repaired, or only untidy, is not late.
	late := behind && call != "close" && i < len(r.calls)-1
	if err := r.shard.RollErr(); (err != nil) != late || err != nil && !errors.Is(err, fault) {
		r.Errorf("late: %v", err)
	}
	// A repair gives back the room at once.
	if name := hiddenFile(r, r.path); i > slices.Index(r.calls, "write") && (name != "") != late && i < len(r.calls)-2 {
		r.Errorf("hidden: %q", name)
	}
	if behind && call == "close" && !slices.Contains(r.disk.calls, "reopen") {
		r.Errorf("what a close was to write is trusted: %q", r.disk.calls)
	}
}
