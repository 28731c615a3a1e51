package output

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// kindOfTake is a row of the table of faults of taking a shard.
type kindOfTake struct {
	name  string
	files map[string]string
	calls []string // of its folder, in this order
	// spared tells that a fault of the call is unimportant, or repaired later.
	spared func(i int) bool
	want   [][]byte // the visible files in the end
}

// What taking a shard asks of its folder, if there is a temporary and a visible
// file, and, up to its publication or removal, if there is a rolling file: one with a torn
// line, and ones whose lines, or some, are in a later file.
var kindsOfTake = []kindOfTake{
	{
		"take",
		map[string]string{
			"0-1_01JD8Y6G5V3X9Q2R7T4B1C0D5E.ndjson": string(content(takenLines)),
			".0-2_01JD8Y6G5V3X9Q2R7T4B1C0D5F.tmp":   "",
		},
		[]string{
			"names", "remove",
			"create", "write", "fsync", "close", "link", "remove", "remove",
			"open", "folder fsync",
			"read",
		},
		func(int) bool { return false },
		[][]byte{content(takenLines)},
	},
	{
		"recover",
		map[string]string{
			".0-1_01JD8Y6G5V3X9Q2R7T4B1C0D5E.rolling": string(content(takenLines)) + "{",
		},
		[]string{
			"names", "linked", "reopen", "fsync", "forget", "size", "read at", "truncate", "fsync", "close",
			"open", "linked", "link", "folder fsync", "remove", "folder fsync",
		},
		func(i int) bool { return i == 4 || i == 9 || i == 15 },
		[][]byte{content(takenLines)},
	},
	{
		"put back",
		map[string]string{
			".0-1_01JD8Y6G5V3X9Q2R7T4B1C0D5E.rolling": string(content(takenLines)),
			"0-1_01JD8Y6G5V3X9Q2R7T4B1C0D5F.ndjson":   string(content(takenLines)),
		},
		[]string{
			"names", "linked", "reopen", "fsync", "forget", "size", "read at", "close",
			"reopen", "create", "read at", "read", "fsync", "close", "remove",
			"open", "folder fsync", "remove", "close",
		},
		func(i int) bool { return i == 4 || i == 7 || i == 14 || i == 18 },
		[][]byte{content(takenLines)},
	},
	{
		"put back with more",
		map[string]string{
			".0-1_01JD8Y6G5V3X9Q2R7T4B1C0D5E.rolling": string(content(takenLines)),
			"0-1_01JD8Y6G5V3X9Q2R7T4B1C0D5F.ndjson":   string(content(takenLines[:2])),
		},
		[]string{
			"names", "linked", "reopen", "fsync", "forget", "size", "read at", "close",
			"reopen", "create", "read at", "read", "write", "fsync", "close",
			"open", "linked", "link", "folder fsync", "remove", "folder fsync", "remove", "close",
		},
		func(i int) bool { return i == 4 || i == 7 || i == 20 || i == 22 },
		[][]byte{content(takenLines[:2]), content(takenLines[2:])},
	},
}

var takenLines = numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 3)

// takeRun takes a shard under a plan, and then again without faults.
type takeRun struct {
	*testing.T
	dir  *Dir
	plan plan
	disk *faulty // of the last attempt
	want [][]byte

	recorded *recorded
}

func (k kindOfTake) begin(t *testing.T, p plan, err error) *takeRun {
	r := &takeRun{T: t, dir: openTestDir(t, memoryDir(t)), plan: p, want: k.want}
	fill(t, r.dir.path, k.files)
	r.recorded = newRecorded(t)
	r.recorded.lazy, r.recorded.cursor = true, noULID
	r.dir.Recorder = r.recorded
	r.dir.wrap = func(f folder) folder {
		r.disk = newFaultyFolder(t, f, func(i int, call string) verdict { return r.plan(i, call) }, err)
		return r.disk
	}
	return r
}

func (r *takeRun) take() error {
	s, err := r.dir.Shard(r.Context(), 0, func() { r.Fatal("the shard has an owner") })
	if err != nil {
		return err
	}
	return s.Close()
}

// checkRecovery fails unless the shard can be taken now, whole and clean.
func (r *takeRun) checkRecovery() {
	r.Helper()
	r.plan = at(-1, pass)
	s := takeShard(r, r.dir)
	checkFolder(r, r.dir.path, r.want...)
	if got := s.Rebuilt().IDs; got != len(takenLines) {
		r.Errorf("%d ids are known, want %d", got, len(takenLines))
	}
	// What the owner before published, and what was removed, is durable.
	if !slices.Contains(r.disk.calls, "folder fsync") {
		r.Errorf("the names are not durable after %q", r.disk.calls)
	}
	write(r, s, 0, takenLines...)
	r.recorded.record()
	r.recorded.checkRows(r.dir.path)
}

// eachCallOfATake runs test for every call of every kind of take.
func eachCallOfATake(t *testing.T, test func(t *testing.T, k kindOfTake, i int)) {
	for _, k := range kindsOfTake {
		for i, call := range k.calls {
			t.Run(fmt.Sprintf("%s/%d %s", k.name, i, call), func(t *testing.T) { test(t, k, i) })
		}
	}
}

func TestCallsOfATake(t *testing.T) {
	for _, k := range kindsOfTake {
		r := k.begin(t, at(-1, pass), nil)
		must(t, r.take())
		if !slices.Equal(r.disk.calls[:len(k.calls)], k.calls) {
			t.Errorf("got  %q\nwant %q", r.disk.calls, k.calls)
		}
		if got := r.disk.calls[len(r.disk.calls)-1]; got != "folder close" {
			t.Errorf("the last call is %q", got)
		}
	}
}

// TestFaultAtEveryCallOfATake: whatever fails, the shard is not taken, its lock is
// free, nothing is visible that was not, and the next attempt succeeds.
func TestFaultAtEveryCallOfATake(t *testing.T) {
	eachCallOfATake(t, func(t *testing.T, k kindOfTake, i int) {
		for _, v := range []verdict{fail, happened, short, torn} {
			if (v == short || v == torn) && k.calls[i] != "write" {
				continue
			}
			for _, fault := range []error{unix.EIO, unix.ENOSPC, unix.EROFS, unix.EDQUOT, unix.EMFILE, unix.ENFILE} {
				t.Run(fmt.Sprintf("%s/%s", v, unix.ErrnoName(fault.(unix.Errno))), func(t *testing.T) {
					r := k.begin(t, at(i, v), fault)
					err := r.take()
					want := fault
					switch {
					case k.spared(i):
						want = nil
					case v == short:
						want = io.ErrShortWrite
					}
					if !errors.Is(err, want) || (err != nil) != (want != nil) {
						t.Errorf("got error %v, want %v", err, want)
					}
					if want != nil && !strings.Contains(err.Error(), "shard-0") {
						t.Errorf("the error does not say where: %v", err)
					}
					if got := LacksSpace(err); got != (want != nil && want != unix.EIO && want != unix.EROFS && want != io.ErrShortWrite) {
						t.Errorf("lacks space: %v, of %v", got, err)
					}
					r.checkRecovery()
				})
			}
		}
	})
}

// TestSecondFaultOfATake lets the process die at each call, and at those that
// clean up a failure, or lets these fail as well.
func TestSecondFaultOfATake(t *testing.T) {
	eachCallOfATake(t, func(t *testing.T, k kindOfTake, i int) {
		for _, v := range []verdict{crashBefore, crashAfter} {
			t.Run(v.String(), func(t *testing.T) {
				r := k.begin(t, at(i, v), nil)
				_ = r.take() // a death behind the last call changes nothing
				r.checkRecovery()
			})
		}
		for _, first := range []verdict{fail, happened} {
			for distance, reached := 1, true; reached; distance++ {
				reached = false
				for _, second := range []verdict{fail, happened, crashBefore, crashAfter} {
					t.Run(fmt.Sprintf("%s/+%d/%s", first, distance, second), func(t *testing.T) {
						r := k.begin(t, secondFault(i, first, distance, second, &reached), unix.EIO)
						_ = r.take() // it may have been clean
						r.checkRecovery()
					})
				}
			}
		}
	})
}

// TestProbeIsAsLarge: where there was no room for a file of a size, the next
// owner has room for as much, or is none.
func TestProbeIsAsLarge(t *testing.T) { eachRoll(t, testProbeIsAsLarge) }

func testProbeIsAsLarge(t *testing.T, r Roll) {
	lines := numbered("a", 1000)
	d := openTestDir(t, t.TempDir())
	d.roll = r
	var full, probed int
	d.wrap = func(f folder) folder { // which has room for no file of more than full bytes, if that is not 0
		return hooked{f, func(step, name string, p []byte) error {
			if step != "write" {
				return nil
			}
			if strings.HasPrefix(name, ".probe_") {
				probed = len(p)
			}
			if full > 0 && len(p) > full {
				return unix.ENOSPC
			}
			return nil
		}}
	}
	s := takeShard(t, d)
	if probed != probeBytes {
		t.Errorf("a first probe of %d bytes", probed)
	}
	full = len(content(lines)) - 1
	if _, _, err := s.Write(t.Context(), worker, newBatch(lines...)); !LacksSpace(err) {
		t.Fatalf("got error %v", err)
	}
	mustWrite(t, s, newBatch("{}")) // there is room for that
	must(t, s.Close())
	if _, err := d.Shard(t.Context(), 0, nil); !LacksSpace(err) {
		t.Errorf("the shard was taken, or got error %v", err)
	}
	full = 0
	s = takeShard(t, d)
	if probed != len(content(lines)) {
		t.Errorf("a probe of %d bytes, want %d", probed, len(content(lines)))
	}
	mustWrite(t, s, newBatch(lines...))
	must(t, s.Close())
	if takeShard(t, d); probed != probeBytes {
		t.Errorf("after all was well a probe of %d bytes", probed)
	}
}
