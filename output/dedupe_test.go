package output

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"async-data-processor/output/committed"
)

func TestDuplicates(t *testing.T) { eachRoll(t, testDuplicates) }

func testDuplicates(t *testing.T, r Roll) {
	path := t.TempDir()
	s := rollingShard(t, path, r)
	a, b := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 7), numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5F", 3)
	foreign := []string{`{"message_id":"order-1","value":"A"}`, `{"message_id":"order-2","value":"A"}`}

	write(t, s, 5, a[:5]...)
	write(t, s, 0, a[:5]...)                         // redelivered
	write(t, s, 3, a[3], a[4], a[5], a[6], b[0])     // in other company
	write(t, s, 1, b[0], b[1], b[0], b[1])           // twice in one batch
	write(t, s, 2, slices.Concat(foreign, b[:2])...) // of another program
	write(t, s, 1, foreign[1], b[2], foreign[0])

	// The next owner knows all of it, too.
	must(t, s.Close())
	checkOnce(t, path, slices.Concat(a, b, foreign)...)
	s = rollingShard(t, path, r)
	write(t, s, 0, slices.Concat(a, b, foreign)...)
	checkOnce(t, path, slices.Concat(a, b, foreign)...)
}

// waitingWrite starts a Write that has to wait for another.
func waitingWrite(t *testing.T, ctx context.Context, s *Shard, lines ...string) <-chan string {
	t.Helper()
	outcome := make(chan string, 1)
	go func() {
		_, written, err := s.Write(ctx, "0-3", newBatch(lines...))
		outcome <- fmt.Sprint(len(written), err)
	}()
	synctest.Wait()
	if len(outcome) > 0 {
		t.Errorf("it did not wait: %s", <-outcome)
	}
	return outcome
}

// TestInTwoBatchesAtOnce: a batch with a message that another one is about to
// publish waits for the outcome, and then writes what is left.
func TestInTwoBatchesAtOnce(t *testing.T) {
	for name, tt := range map[string]struct {
		call    string
		verdict verdict
		written int
	}{
		"published":                {"fsync", pass, 1},
		"published at the end":     {"folder fsync", pass, 1},
		"failed before the link":   {"fsync", fail, 3},
		"failed behind the link":   {"folder fsync", fail, 3},
		"failed, but has happened": {"link", happened, 3},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s := openShard(t, path)
				defer s.Close()
				lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 6)
				first := holdUp(t, s, tt.call, tt.verdict, lines[:5]...)
				outcome := waitingWrite(t, t.Context(), s, lines[5], lines[4], lines[3])
				first.resume()
				if err := <-first.result; (err == nil) != (tt.verdict == pass) {
					t.Errorf("the first one: %v", err)
				}
				if got, want := <-outcome, fmt.Sprint(tt.written, error(nil)); got != want {
					t.Errorf("the second one: %s, want %s", got, want)
				}
				if _, _, err := s.Write(t.Context(), worker, first.batch); err != nil {
					t.Error(err)
				}
				checkOnce(t, path, lines...)
			})
		})
	}
}

// TestAbandonedFreesItsMessages: once a batch is abandoned, no other waits for its
// writer, which may hang for ever.
func TestAbandonedFreesItsMessages(t *testing.T) {
	path := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openShard(t, path)
		defer s.Close()
		lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 6)
		first := holdUp(t, s, "fsync", pass, lines[:5]...)
		outcome := waitingWrite(t, t.Context(), s, lines[4], lines[5])
		if !first.batch.Abandon() {
			t.Fatal("the right to publish was asked for before the fsync")
		}
		if got := <-outcome; got != "2 <nil>" {
			t.Errorf("the batch that waited: %s", got)
		}
		write(t, s, 4, lines[:5]...)
		first.resume()
		if err := <-first.result; !errors.Is(err, ErrAbandoned) {
			t.Errorf("got error %v, want %v", err, ErrAbandoned)
		}
		write(t, s, 0, lines...)
		checkOnce(t, path, lines...)
	})
}

// TestWaitIsBounded: by the context, and by a time after which the worker had
// better hold its batch. A batch that was granted the right may never end.
func TestWaitIsBounded(t *testing.T) {
	path := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openShard(t, path)
		defer s.Close()
		lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 2)
		first := holdUp(t, s, "link", pass, lines[0])
		if first.batch.Abandon() {
			t.Fatal("abandoned while it is published")
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		outcome := waitingWrite(t, ctx, s, lines...)
		cancel(errors.New("drain"))
		if got := <-outcome; got != "0 write to shard-0: drain" {
			t.Errorf("cancelled: %s", got)
		}
		if got := <-waitingWrite(t, t.Context(), s, lines...); got != "0 write to shard-0: "+committed.ErrPending.Error() {
			t.Errorf("waited for long: %s", got)
		}
		write(t, s, 1, lines[1]) // the others are not held up
		first.resume()
		must(t, <-first.result)
		checkOnce(t, path, lines...)
	})
}

// TestStillVisibleElsewhere: the messages of an attempt that could not be
// undone come in another batch, which waited for it: that one undoes it first.
func TestStillVisibleElsewhere(t *testing.T) {
	path := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openShard(t, path)
		defer s.Close()
		lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 5)
		resume, failing := make(chan struct{}), true
		newFaulty(t, s, func(i int, kind string) verdict {
			switch {
			case i == slices.Index(cleanCalls, "folder fsync"):
				<-resume
				return fail
			case kind == "remove" && i > slices.Index(cleanCalls, "folder fsync") && failing:
				failing = false // only the undo fails
				return fail
			}
			return pass
		}, unix.EIO)
		result := startWrite(t.Context(), s, newBatch(lines...))
		synctest.Wait()
		outcome := waitingWrite(t, t.Context(), s, lines[1:]...)
		close(resume)
		if err := <-result; !errors.Is(err, ErrStillVisible) {
			t.Errorf("got error %v, want %v", err, ErrStillVisible)
		}
		if got := <-outcome; got != "4 <nil>" {
			t.Errorf("the other batch: %s", got)
		}
		checkNoneTwice(t, path)
		write(t, s, 1, lines...)
		checkOnce(t, path, lines...)
	})
}

// TestEachOnce lets writers with overlapping batches race over a disk that
// fails now and then, some of them abandoned and their messages delivered
// again, through several owners: every message ends up in one file.
func TestEachOnce(t *testing.T) { eachRoll(t, testEachOnce) }

func testEachOnce(t *testing.T, r Roll) {
	path := memoryDir(t)
	rnd := rand.New(rand.NewPCG(7, 7))
	lines := slices.Concat(numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 120), numbered("order", 40))
	for range 4 {
		s := rollingShard(t, path, r)
		var mu sync.Mutex // guards rnd
		draw := func(n int) int {
			mu.Lock()
			defer mu.Unlock()
			return rnd.IntN(n)
		}
		newFaulty(t, s, func(int, string) verdict {
			if n := draw(40); n < 2 {
				return []verdict{fail, happened}[n]
			}
			return pass
		}, unix.EIO)
		var writers sync.WaitGroup
		for w := range 6 {
			writers.Go(func() {
				for range 25 {
					var some []string
					for from := draw(len(lines)); len(some) < 5; from += 1 + draw(3) {
						some = append(some, lines[from%len(lines)])
					}
					b := newBatch(some...)
					if draw(4) == 0 {
						writers.Go(func() { b.Abandon() })
					}
					for range 20 {
						_, _, err := s.Write(t.Context(), fmt.Sprintf("0-%d", w), b)
						if err == nil || errors.Is(err, ErrAbandoned) {
							break
						}
					}
				}
			})
		}
		writers.Wait()
		// A failed attempt may be left visible only until the next Write.
		s.dir.folder.(*faulty).plan = func(int, string) verdict { return pass }
		must(t, s.Close())
		s = openShard(t, path)
		checkNoneTwice(t, path)
		must(t, s.Close())
	}
	s := openShard(t, path)
	mustWrite(t, s, newBatch(lines...))
	checkOnce(t, path, lines...)
}

func checkNoneTwice(t *testing.T, path string) {
	t.Helper()
	seen := make(map[string]string)
	visible, _ := folderNames(t, path)
	for _, name := range visible {
		for _, line := range linesOf(t, filepath.Join(path, "shard-0", name)) {
			if other, ok := seen[line]; ok {
				t.Errorf("%s is in %s and %s", line, other, name)
			}
			seen[line] = name
		}
	}
}

// TestTakeOver: a process that stood by while another one wrote and was killed
// knows what that one has written.
func TestTakeOver(t *testing.T) { eachWay(t, testTakeOver) }

func testTakeOver(t *testing.T, how string) {
	path := t.TempDir()
	child, kill := startChild(t, how, path)
	promised := map[string]bool{}
	read := func() {
		_, id, _ := strings.Cut(child.Text(), " ")
		promised[id] = true
	}
	if !child.Scan() {
		t.Fatal("the child is gone")
	}
	read()
	s, err := openTestDir(t, path).Shard(t.Context(), 0, func() {
		for range 50 {
			if !child.Scan() {
				t.Error("the child is gone")
				return
			}
			read()
		}
		kill()
	})
	must(t, err)
	defer s.Close()
	if r := s.Rebuilt(); r.IDs < 5*len(promised) || how == "write" && r.Files < len(promised) || r.Damaged+r.Foreign != 0 {
		t.Errorf("rebuilt %+v, want %d batches at least", r, len(promised))
	}
	for id := range promised {
		write(t, s, 0, numbered(id, 5)...)
	}
	checkNoneTwice(t, path)
}
