package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"async-data-processor/faults/lossyfs"
	"async-data-processor/faults/process"
	"async-data-processor/message"
)

// machine runs scripts on a disk that fails and loses power as the test wants. What a
// loss of power would leave is opened, again and again, and has to agree with what
// the scripts know of their envelopes.
type machine struct {
	*testing.T
	disk  *lossyfs.Disk
	rng   *rand.Rand
	mount string
	fail  func(lossyfs.Op) error

	mu      sync.Mutex
	fates   map[string]string
	last    int // the operation at which the process is killed; 0 for none
	ops     int // of the script
	victim  *exec.Cmd
	apart   int // of how many looks one is made
	looks   int
	renames int
	outcome map[string]int // how often a fate was told
}

func newMachine(t *testing.T, seed uint64) *machine {
	m := &machine{
		T: t, disk: lossyfs.New(), rng: rand.New(rand.NewPCG(seed, 2)), mount: t.TempDir(), apart: looksApart,
		fates: map[string]string{}, outcome: map[string]int{},
	}
	m.disk.SetHook(m.hook)
	return m
}

// run runs a script, up to its end or to a number of operations.
func (m *machine) run(round, last int) {
	m.Helper()
	mount, err := m.disk.Mount(m.mount)
	if errors.Is(err, fs.ErrPermission) {
		m.Skipf("run this test as root: %v", err)
	}
	if err != nil {
		m.Fatal(err)
	}
	defer mount.Unmount()
	if err := os.MkdirAll(filepath.Join(m.mount, "marks"), 0o700); err != nil {
		m.Fatal(err)
	}
	var out bytes.Buffer
	script := exec.Command(os.Args[0], "-test.run=^TestScript$", "-test.timeout=10m")
	script.Env = append(os.Environ(), fmt.Sprintf("LOCAL_SCRIPT=%s %d", m.mount, round))
	script.Stdout, script.Stderr = &out, &out
	m.mu.Lock()
	m.victim, m.ops, m.last = script, 0, last
	ended, err := process.Start(script)
	m.mu.Unlock()
	if err != nil {
		m.Fatal(err)
	}
	<-ended
	if killed := last > 0 && m.ops >= last; !killed && !script.ProcessState.Success() {
		m.Errorf("round %d: %s", round, &out)
	}
}

// hook is that of the disk.
func (m *machine) hook(op lossyfs.Op) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	mark, isMark := strings.CutPrefix(op.Path, "marks/")
	switch {
	case isMark && op.Kind == lossyfs.Mkdir && op.Done:
		words := strings.Fields(mark)
		m.fates[words[0]] = words[1]
		m.outcome[words[1]]++
		m.look(op, nil)
		return nil
	case !strings.HasPrefix(op.Path, "store"):
		return nil
	case m.last > 0 && m.ops >= m.last:
		return unix.EIO // the process is dead
	}
	if !op.Done {
		if m.ops++; m.ops == m.last {
			_ = m.victim.Process.Kill()
			return unix.EIO
		}
	}
	if m.fail != nil {
		if err := m.fail(op); err != nil {
			return err
		}
	}
	switch sync := op.Kind == lossyfs.Sync || op.Kind == lossyfs.SyncDir; {
	case op.Done && sync:
		m.look(op, nil)
	case op.Done && op.Kind == lossyfs.Rename:
		m.renames++
	case op.Done, op.Kind == lossyfs.Close, op.Kind == lossyfs.OpenDir:
	case op.Kind == lossyfs.SyncDir:
		for range 30 {
			m.look(op, m.rng)
		}
	default:
		m.look(op, m.rng)
	}
	return nil
}

// looksApart is the usual one: all are made, but for the race detector.
var looksApart = 1

// look opens what a loss of power would leave now.
func (m *machine) look(op lossyfs.Op, chance *rand.Rand) {
	if m.rng.IntN(m.apart) > 0 {
		return
	}
	m.looks++
	dir, err := os.MkdirTemp("/dev/shm", "local") // in memory, where an fsync is free
	defer os.RemoveAll(dir)
	for name, data := range m.disk.Survivors("store", chance) {
		path := filepath.Join(dir, name) // its end is not used yet
		err = errors.Join(err, os.WriteFile(path, bytes.TrimRight(data, "\x00"), 0o600), os.Truncate(path, int64(len(data))))
	}
	if err != nil {
		m.Error(err)
		return
	}
	before := fmt.Sprintf("operation %d, %s of %s, done %t, chance %t", m.ops, op.Kind, op.Path, op.Done, chance != nil)
	queued, dead, err := reopened(dir)
	if err != nil {
		m.Errorf("%s: %v", before, err)
		return
	}
	for id, fate := range m.fates {
		q, d := queued[id], dead[id]
		if ok := map[string]bool{
			publishing: q+d <= 1, unknown: q+d <= 1, settling: q+d <= 1, published: q+d == 1, burying: q+d == 1,
			buried: q == 0 && d == 1, rejected: q+d == 0, gone: q+d == 0,
		}[fate]; !ok { // what is lost again and again becomes a dead letter, too
			m.Errorf("%s: %s is %s, and %d times in its queue, %d times a dead letter", before, id, fate, q, d)
		}
	}
	maps.Copy(queued, dead)
	for id := range queued {
		if m.fates[id] == "" {
			m.Errorf("%s: %q was never published", before, id)
		}
	}
}

// reopened opens a store, uses it, and closes it. It returns how often each envelope
// was found.
func reopened(dir string) (queued, dead map[string]int, err error) {
	file, err := OpenFile(dir, nil)
	if err != nil {
		return nil, nil, err
	}
	contents, err := file.Recover(context.Background())
	queued, dead = map[string]int{}, map[string]int{}
	for n, c := range contents {
		items, readErr := file.Read(n, 0, 1<<20)
		err = errors.Join(err, readErr)
		if len(items) != c.Depth {
			err = errors.Join(err, fmt.Errorf("%s: %d items, not %d", QueueText(n), len(items), c.Depth))
		}
		for _, it := range items {
			if !bytes.Equal(it.Envelope.Body, bodyOf(it.Envelope.ID)) {
				err = errors.Join(err, fmt.Errorf("the body of %q", it.Envelope.ID))
			}
			if n == Dead {
				dead[it.Envelope.ID]++
			} else {
				queued[it.Envelope.ID]++
			}
		}
	}
	if err == nil {
		probe := &Item{Seq: contents[0].Given + 1, Envelope: message.Envelope{ID: "probe", Body: []byte("x")}}
		err = file.Commit(&Change{Put: []Put{{Queue: 0, Item: probe}}})
	}
	if err = errors.Join(err, file.Close()); err == nil {
		_, err = Check(context.Background(), dir, nil)
	}
	return queued, dead, err
}

// rounds is how many scripts a test runs; LOCAL_ROUNDS asks for others.
func rounds(t *testing.T, usual int) int {
	if n, err := strconv.Atoi(os.Getenv("LOCAL_ROUNDS")); err == nil {
		return n
	}
	return usual
}

// TestPowerLoss lets power go before and after each operation of the making of a
// store, of commits, of the growth of the file and of its compaction; the first
// process ends by itself, the others are killed or lose power, and the next goes on.
func TestPowerLoss(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	m := newMachine(t, seed)
	last := 0
	for round := range rounds(t, 3) {
		m.run(round, last)
		if last == 0 && m.renames < 2 {
			t.Error("no file was made smaller")
		}
		if m.Failed() {
			return
		}
		switch round % 3 {
		case 1:
			m.disk.PowerLoss(m.rng)
		case 2:
			m.disk.PowerLoss(nil)
		}
		last = 1 + m.rng.IntN(m.ops)
	}
	t.Logf("%d openings, %v", m.looks, m.outcome)
}

// TestFailingDisk lets the disk fail now and then, at any operation: once, before or
// after it has happened, or with no space for a while. The engine goes on by itself,
// and what it says of an envelope is true, whenever power is lost.
func TestFailingDisk(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	m := newMachine(t, seed)
	pause, full, unsynced, failures := 40, 0, false, map[string]int{}
	m.fail = func(op lossyfs.Op) error {
		writes := op.Kind == lossyfs.Write || op.Kind == lossyfs.Truncate || op.Kind == lossyfs.Create
		if writes && !op.Done && full > 0 {
			full--
			failures["no space"]++
			return unix.ENOSPC
		}
		if pause--; pause > 0 && (!unsynced || op.Kind != lossyfs.Sync || op.Done) {
			return nil
		}
		unsynced = false
		if pause <= 0 {
			pause = m.rng.IntN(120)
			switch m.rng.IntN(3) {
			case 0:
				full = 1 + m.rng.IntN(8)
				return nil
			case 1:
				unsynced = true // the next one fails
				return nil
			}
		}
		failures[fmt.Sprintf("%s, %t", op.Kind, op.Done)]++
		return unix.EIO
	}
	for round := range rounds(t, 2) {
		m.run(round, 0)
		if round%2 == 1 {
			m.disk.PowerLoss(m.rng)
		}
	}
	t.Logf("%d openings, %v, failures: %v", m.looks, m.outcome, failures)
	if len(failures) < 4 || m.outcome[rejected] == 0 {
		t.Error("that was no failing disk")
	}
}

// TestFailingRecovery lets an fsync fail while a store is opened after a crash, at each
// in turn. What follows, up to the close, costs nothing that is stored.
func TestFailingRecovery(t *testing.T) {
	for nth := range 5 {
		m := newMachine(t, uint64(nth))
		m.apart = 1 << 30
		m.run(nth, 100)
		m.apart = min(looksApart, 4)
		syncs := 0
		m.fail = func(op lossyfs.Op) error {
			if op.Kind == lossyfs.Sync && !op.Done && op.Path == "store/"+FileName {
				if syncs++; syncs == nth+1 {
					return unix.EIO
				}
			}
			return nil
		}
		m.run(nth+100, 60)
		if syncs <= nth {
			t.Errorf("%d times fsync, too few", syncs)
		}
	}
}
