package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// terminal is an output that may be stuck, or fail with an error after some bytes.
type terminal struct {
	free chan struct{} // closed when it takes lines; nil if it always does

	mu     sync.Mutex
	err    error
	takes  int // bytes, before it fails
	text   bytes.Buffer
	writes []string
}

func (o *terminal) Write(p []byte) (n int, err error) {
	if o.free != nil {
		<-o.free
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	n = len(p)
	if err = o.err; err != nil {
		n = min(n, o.takes)
		o.takes -= n
	}
	o.text.Write(p[:n])
	o.writes = append(o.writes, string(p[:n]))
	return n, err
}

// fails makes it fail with err, after it has taken so many bytes; nil ends that.
func (o *terminal) fails(err error, after int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err, o.takes = err, after
}

func noted(lost uint64, err error) []byte { return fmt.Appendf(nil, "lost %d: %v\n", lost, err) }

// TestWriterNeverWaits: Write returns and Close gives up, though the output takes
// nothing. What waits is bounded; what was lost is told when the output takes lines.
func TestWriterNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &terminal{free: make(chan struct{})}
		w := NewWriter(out)
		w.OnLost(noted)
		line := []byte(strings.Repeat("x", 99) + "\n")
		fmt.Fprintln(w, "first")
		synctest.Wait() // it is on its way
		const sent = 3 * maxWaiting / 100
		for range sent {
			if n, err := w.Write(line); n != len(line) || err != nil {
				t.Fatal(n, err)
			}
		}
		lost := w.Lost()
		if want := uint64(sent - maxWaiting/100); lost != want {
			t.Errorf("%d lines are lost, want %d", lost, want)
		}
		began := time.Now()
		if w.Close(time.Second) || time.Since(began) != time.Second {
			t.Error("Close does not give up")
		}
		close(out.free)
		<-w.ended
		if text := out.text.String(); strings.Count(text, string(line))+int(lost) != sent ||
			strings.Count(text, fmt.Sprintf("lost %d: <nil>\n", lost)) != 1 {
			t.Errorf("the output has %d lines, and does not tell of %d lost", strings.Count(text, "\n"), lost)
		}
		for _, write := range out.writes {
			if len(write) > atOnce || !strings.HasSuffix(write, "\n") {
				t.Fatalf("a write of %d bytes, not of whole lines", len(write))
			}
		}
	})
}

// TestWriterCountsWhatFails: a failure costs the lines of the write, is told of once
// the output takes lines again, and those begin on a line of their own.
func TestWriterCountsWhatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &terminal{}
		w := NewWriter(out)
		w.OnLost(noted)
		write := func(line string) {
			fmt.Fprintln(w, line)
			synctest.Wait()
		}
		write("whole")
		out.fails(errors.New("disk full"), 2)
		write("torn")
		write("gone")
		out.fails(nil, 0)
		write("again")
		out.fails(errors.New("gone"), 0)
		write("gone") // soon after it was told
		out.fails(nil, 0)
		write("more")
		if !w.Close(time.Second) {
			t.Error("Close gives up")
		}
		fmt.Fprintln(w, "late")
		want := "whole\nto\nagain\nlost 2: disk full\nmore\nlost 3: gone\n"
		if got := out.text.String(); got != want {
			t.Errorf("the output has %q, want %q", got, want)
		}
		if lost := w.Lost(); lost != 4 {
			t.Errorf("%d lines are lost, want 4", lost)
		}
	})
}

// TestWriterGone: an output that never takes anything again costs nothing but lines.
func TestWriterGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &terminal{err: syscall.EPIPE}
		w := NewWriter(out)
		for range 100 {
			fmt.Fprintln(w, "line")
			synctest.Wait()
		}
		if !w.Close(time.Second) || w.Lost() < 100 || out.text.Len() > 0 {
			t.Errorf("%d lines are lost, want 100 or more", w.Lost())
		}
	})
}

// TestWriterNonBlocking: another process may make the output that it shares with this
// one non-blocking. That costs no line.
func TestWriterNonBlocking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &terminal{err: syscall.EAGAIN, takes: 3}
		w := NewWriter(out)
		fmt.Fprintln(w, "one line")
		time.Sleep(time.Second)
		out.fails(nil, 0)
		if !w.Close(time.Second) || out.text.String() != "one line\n" || w.Lost() != 0 {
			t.Errorf("the output has %q, %d lines are lost", &out.text, w.Lost())
		}
	})
}

// TestWriterLongLine: a line that is longer than a write of several goes out whole.
func TestWriterLongLine(t *testing.T) {
	out := &terminal{}
	w := NewWriter(out)
	long := strings.Repeat("x", 3*atOnce) + "\n"
	for _, line := range []string{"short\n", long, "short\n"} {
		if _, err := w.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	if !w.Close(time.Minute) || out.text.String() != "short\n"+long+"short\n" {
		t.Errorf("the output has %d bytes", out.text.Len())
	}
}
