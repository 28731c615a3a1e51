package local

import (
	"errors"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/faults/process"
	"async-data-processor/message"
)

// crash leaves a store as a kill -9 does.
func (s *File) crash(t *testing.T) {
	t.Helper()
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := errors.Join(s.closeDB(), s.handOuts.Close(), s.lock.Close()); err != nil {
		t.Fatal(err)
	}
}

func putOf(queue int, seq uint64) Put {
	id := strconv.FormatUint(seq, 10)
	return Put{queue, &Item{Seq: seq, Envelope: message.Envelope{ID: id, Shard: queue, Count: 1, Body: []byte(id)}}}
}

// TestReturnAndSettle: an envelope may come back and be settled before a commit.
func TestReturnAndSettle(t *testing.T) {
	dir := t.TempDir()
	file, _ := openedFile(t, dir)
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	file, _ = openedFile(t, dir)
	place := Place{Queue: 0, Seq: 1, Returned: true}
	for _, c := range []*Change{
		{Put: []Put{putOf(0, 1), putOf(0, 2)}},
		{Returns: []Return{{place, 1}}, Delete: []Place{place}},
	} {
		if err := file.Commit(c); err != nil {
			t.Fatal(err)
		}
	}
	file.crash(t)
	if r, err := Check(t.Context(), dir, nil); err != nil || r.Clean {
		t.Errorf("after a crash: %+v, %v", r, err)
	}
	file, contents := openedFile(t, dir)
	if q := contents[0]; q.Depth != 1 || q.First != 2 || len(q.Returns) > 0 {
		t.Errorf("got %+v, want number 2 alone", q)
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
}

// TestPoison: an envelope whose delivery kills its process becomes a dead letter in
// the end, also if the process had stopped in order before and never commits again.
// What it is delivered with is delivered.
func TestPoison(t *testing.T) {
	dir := t.TempDir()
	file, _ := openedFile(t, dir)
	if err := file.Commit(&Change{Put: []Put{putOf(0, 1), putOf(0, 2), putOf(1, 1)}}); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	kills := 0
	for ; ; kills++ {
		if kills > broker.DeliveryLimit+1 {
			t.Fatal("no end of kills")
		}
		file, _ := openedFile(t, dir)
		e := started(t, file)
		told := 0
		c := e.Client(2, func(ev event.Event) {
			if d, ok := ev.(event.DeadLettered); ok && d.Envelope == "1" {
				told++
			}
		})
		deliveries, stop := consume(t, c, 1)
		d := <-deliveries
		stop()
		e.work.Wait()
		if d.ID == "2" {
			if kills != broker.DeliveryLimit+1 || d.Redelivered {
				t.Errorf("the other one comes after %d kills, redelivered %t", kills, d.Redelivered)
			}
			var dead []broker.DeadLetter
			err := c.DeadLetters(t.Context(), func(l broker.DeadLetter) broker.Verdict {
				dead = append(dead, l)
				return broker.Keep
			})
			if told != 1 {
				t.Errorf("the dead letter is told of %d times", told)
			}
			if err != nil || len(dead) != 1 || dead[0].Envelope.ID != "1" || dead[0].Reason != "delivery_limit" {
				t.Errorf("dead letters %+v, %v", dead, err)
			}
			if err := e.Close(); err != nil {
				t.Error(err)
			}
			return
		}
		if d.Redelivered != (kills > 0) {
			t.Errorf("after %d kills: redelivered %t", kills, d.Redelivered)
		}
		file.crash(t)
	}
}

// TestTaken: a store whose file, lock or folder was taken away takes no envelope
// more, and says so; what took its place stays as it is.
func TestTaken(t *testing.T) {
	for name, take := range map[string]func(dir string) error{
		"lock":     func(dir string) error { return os.Remove(filepath.Join(dir, lockName)) },
		"file":     func(dir string) error { return os.Remove(filepath.Join(dir, FileName)) },
		"folder":   func(dir string) error { return os.Rename(dir, dir+".old") },
		"replaced": func(dir string) error { return copyOver(dir) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			b, err := Open(t.Context(), FileConfig{Dir: dir, Shards: 1})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := OpenFile(dir, nil); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
				t.Errorf("a second owner: %v", err)
			}
			if err := publishOne(b.Client, "1", nil); err != nil {
				t.Fatal(err)
			}
			if err := take(dir); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(filepath.Join(dir, FileName))
			if err := publishOne(b.Client, "2", nil); !errors.Is(err, broker.ErrRejected) || !strings.Contains(err.Error(), dir) {
				t.Errorf("published: %v", err)
			}
			for err = b.Ready(); err == nil; err = b.Ready() {
			}
			if !strings.Contains(err.Error(), dir) {
				t.Errorf("it is not ready: %v", err)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			after, _ := os.ReadFile(filepath.Join(dir, FileName))
			if string(before) != string(after) {
				t.Error("the file has changed")
			}
		})
	}
}

// copyOver replaces the file of a store by a copy of it.
func copyOver(dir string) error {
	path := filepath.Join(dir, FileName)
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path+".copy", data, 0o600)
	}
	return errors.Join(err, os.Rename(path+".copy", path))
}

// TestCloseOfDeadDisk: Close ends on a disk that does not answer who looks at it.
func TestCloseOfDeadDisk(t *testing.T) {
	b, err := Open(t.Context(), FileConfig{Dir: t.TempDir(), Shards: 1})
	if err != nil {
		t.Fatal(err)
	}
	b.engine.cfg.CloseTimeout = 10 * time.Millisecond
	b.file.reading.Lock()
	time.Sleep(watchInterval + 100*time.Millisecond)
	closed := make(chan error, 1)
	go func() { closed <- b.Close() }()
	select {
	case err := <-closed:
		if err == nil {
			t.Error("it says that all is stored")
		}
	case <-time.After(time.Minute):
		t.Error("it does not end")
	}
	b.file.reading.Unlock()
	b.watched.Wait()
}

// TestCompactBeside: a commit beside a compaction is not lost, and no file is left.
func TestCompactBeside(t *testing.T) {
	dir := t.TempDir()
	file, _ := openedFile(t, dir)
	seq, smaller := uint64(0), 0
	put := func(n, size int) *Change {
		c := &Change{}
		for range n {
			seq++
			p := putOf(0, seq)
			p.Item.Envelope.Body = make([]byte, size)
			c.Put = append(c.Put, p)
		}
		return c
	}
	const each = 20
	for range 10 {
		large := put(100, 10_000)
		gone := &Change{}
		for _, p := range large.Put {
			gone.Delete = append(gone.Delete, Place{Queue: 0, Seq: p.Item.Seq})
		}
		if err := errors.Join(file.Commit(large), file.Commit(gone)); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			var err error
			for range each {
				err = errors.Join(err, file.Commit(put(1, 10)))
			}
			done <- err
		}()
		before := file.info
		err := errors.Join(file.Compact(0), <-done, file.Compact(0))
		if _, missing := os.Stat(filepath.Join(dir, newFileName)); err != nil || !errors.Is(missing, os.ErrNotExist) {
			t.Fatal(err, missing)
		}
		if !os.SameFile(before, file.info) {
			smaller++
		}
	}
	file.crash(t)
	file, contents := openedFile(t, dir)
	if contents[0].Depth != 10*each || smaller == 0 {
		t.Errorf("%d envelopes, want %d; made smaller %d times", contents[0].Depth, 10*each, smaller)
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
}

// TestBacklog: the memory for what waits is bounded, however much it is, and a long
// check tells how far it is. LOCAL_BACKLOG is how much, 100,000 envelopes unless set.
func TestBacklog(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("LOCAL_BACKLOG"))
	if err != nil {
		n = 100_000
	}
	dir := t.TempDir()
	file, _ := openedFile(t, dir)
	for seq := 1; seq <= n; {
		c := &Change{}
		for ; len(c.Put) < 10_000; seq++ {
			p := putOf(seq%5, uint64(seq))
			p.Item.Envelope.ID = "01M8KH3T2VDAKG9NK0TQMXT5NY"
			p.Item.Envelope.Body = make([]byte, 120)
			c.Put = append(c.Put, p)
		}
		if err := file.Commit(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	usage := func() int { return process.UsageOf(os.Getpid()).Anonymous >> 10 }
	for _, end := range []string{"a stop in order", "a kill"} {
		debug.FreeOSMemory()
		before, most, done := usage(), 0, make(chan struct{})
		var watch sync.WaitGroup
		watch.Go(func() {
			for running := true; running; most = max(most, usage()) {
				select {
				case <-time.After(20 * time.Millisecond):
				case <-done:
					running = false
				}
			}
		})
		began, told := time.Now(), 0
		file, err := OpenFile(dir, func(int64, int64) { told++ })
		if err != nil {
			t.Fatal(err)
		}
		e := started(t, file)
		ready := time.Since(began)
		deliveries, stop := consume(t, e.Client(5, nil), 500)
		<-deliveries
		first := time.Since(began)
		for range 400 {
			_ = (<-deliveries).Settle(message.Outcome{})
		}
		stop()
		close(done)
		watch.Wait()
		e.work.Wait()
		t.Logf("%d envelopes, after %s: ready in %v, first delivery in %v; %d MiB before, %d at most; told %d times",
			n, end, ready.Round(time.Millisecond), first.Round(time.Millisecond), before, most, told)
		if most-before > 100 || ready > 4*time.Second && told == 0 {
			t.Error("too much memory, or no word of the check")
		}
		file.crash(t)
	}
}

// TestFullHandOuts: a disk that has no room for the hand-outs does not keep the store
// from being opened.
func TestFullHandOuts(t *testing.T) {
	dir := t.TempDir()
	s, _ := openedFile(t, dir)
	s.crash(t)
	path := filepath.Join(dir, handOutsName)
	if err := errors.Join(os.Remove(path), os.Symlink("/dev/full", path)); err != nil {
		t.Fatal(err)
	}
	s, _ = openedFile(t, dir)
	s.HandOut(1, 1)
	_ = s.Close()
}

// TestChangedInUse: a file that another program cuts, or puts an older copy into, is
// an error, and takes nothing more.
func TestChangedInUse(t *testing.T) {
	for name, change := range map[string]func(path string, older []byte) error{
		"emptied": func(path string, _ []byte) error { return os.Truncate(path, 0) },
		"cut": func(path string, _ []byte) error {
			info, err := os.Stat(path)
			return errors.Join(err, os.Truncate(path, info.Size()-1))
		},
		"older copy": func(path string, older []byte) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt(older, 0)
			return errors.Join(err, f.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := openedFile(t, t.TempDir())
			older, err := os.ReadFile(s.path())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Commit(&Change{Put: []Put{putOf(0, 1)}}); err != nil {
				t.Fatal(err)
			}
			if err := change(s.path(), older); err != nil {
				t.Fatal(err)
			}
			_ = s.Compact(0) // whatever it says, it comes back
			if err := s.Commit(&Change{Put: []Put{putOf(0, 2)}}); !errors.Is(err, ErrDamaged) {
				t.Errorf("%v, want ErrDamaged", err)
			}
			if _, err := s.Recover(t.Context()); !errors.Is(err, ErrDamaged) {
				t.Errorf("%v, want ErrDamaged", err)
			}
			_ = s.Close()
		})
	}
}

// TestNewStoreIsTold: a mistake in the folder's name makes an empty store, which the
// log has to show.
func TestNewStoreIsTold(t *testing.T) {
	dir, told := filepath.Join(t.TempDir(), "new"), 0
	for range 2 {
		b, err := Open(t.Context(), FileConfig{Dir: dir, Shards: 1, Events: func(e event.Event) {
			if c, ok := e.(event.StoreCreated); ok && c.Dir == dir {
				told++
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if told != 1 {
			t.Errorf("told %d times, want once", told)
		}
	}
}
