package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"
)

// Bounds of a Writer.
const (
	// maxWaiting is how many bytes may wait for the output. As many again may be on
	// their way to it.
	maxWaiting = 2 << 20
	// atOnce is the longest write of several lines, in bytes: what a pipe takes
	// without mixing it with the lines of other processes (PIPE_BUF on Linux).
	atOnce = 4096
	// tellInterval is how often a Writer tells of lost lines, if more are.
	tellInterval = 10 * time.Second
	// fullPause is how long a Writer waits for an output that takes nothing and
	// does not block.
	fullPause = 20 * time.Millisecond
)

// Writer passes lines on to an output that may be slow, stuck or gone. Write never
// waits for it and never fails: what the output does not take is lost and counted.
// (zerolog's diode has no bound in bytes, and its Close waits for ever.)
type Writer struct {
	out   io.Writer
	ended chan struct{} // closed when run has returned

	mu      sync.Mutex // guards what follows
	news    sync.Cond  // of waiting and closing
	waiting []byte     // lines
	closing bool
	lost    uint64 // lines
	note    func(lost uint64, err error) []byte

	// Only used by run.
	spare  []byte    // takes the place of waiting
	torn   bool      // the output ends within a line
	err    error     // why it took no line, since that was told
	told   uint64    // lost, as last told
	toldAt time.Time // zero if never
}

// NewWriter returns a Writer to out. Its goroutine ends after Close.
func NewWriter(out io.Writer) *Writer {
	w := &Writer{out: out, ended: make(chan struct{}), note: plainNote}
	w.news.L = &w.mu
	go w.run()
	return w
}

func plainNote(lost uint64, _ error) []byte { return fmt.Appendf(nil, "%d lines are missing\n", lost) }

// OnLost gives the Writer the line by which it tells that lines are lost, once the
// output takes lines again: at most every ten seconds, and at the end. note gets how
// many are lost since the start, and an error of the output, nil if it was slow.
func (w *Writer) OnLost(note func(lost uint64, err error) []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note = note
}

// Write takes lines, each with its end. It keeps nothing of p.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closing || len(w.waiting)+len(p) > maxWaiting {
		w.lost += lines(p)
		return len(p), nil
	}
	w.waiting = append(w.waiting, p...)
	w.news.Signal()
	return len(p), nil
}

// Lost returns how many lines are lost.
func (w *Writer) Lost() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}

// Close has what waits written, and gives up after the time-out: false tells that
// the output has not taken all. What is written later is lost.
func (w *Writer) Close(timeout time.Duration) bool {
	w.mu.Lock()
	w.closing = true
	w.mu.Unlock()
	w.news.Signal()
	select {
	case <-w.ended:
		return true
	case <-time.After(timeout):
		return false
	}
}

func (w *Writer) run() {
	defer close(w.ended)
	for {
		text, more := w.take()
		if !more {
			w.tell()
			return
		}
		for len(text) > 0 {
			end := cut(text)
			taken := w.put(text[:end])
			text = text[end:]
			if taken {
				w.tell()
			}
		}
	}
}

// take returns what waits, once there is something, and whether more may come.
func (w *Writer) take() (text []byte, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.waiting) == 0 && !w.closing {
		w.news.Wait()
	}
	text = w.waiting
	w.waiting, w.spare = w.spare[:0], text
	return text, len(text) > 0
}

// cut returns how much of text is one write: a line, or some that are short.
func cut(text []byte) int {
	if len(text) <= atOnce {
		return len(text)
	}
	if end := bytes.LastIndexByte(text[:atOnce], '\n'); end >= 0 {
		return end + 1
	}
	if end := bytes.IndexByte(text, '\n'); end >= 0 {
		return end + 1
	}
	return len(text)
}

// put writes lines, and tells whether the output took them. After a failure within
// a line the next one begins anew.
func (w *Writer) put(text []byte) bool {
	if w.torn {
		_, err := w.write([]byte{'\n'})
		w.torn = err != nil
		if w.torn {
			return w.lose(text, err)
		}
	}
	n, err := w.write(text)
	if err == nil {
		return true
	}
	w.torn = n > 0 && text[n-1] != '\n'
	return w.lose(text[n:], err)
}

// write waits where another process, which shares the output with us, has made it
// non-blocking.
func (w *Writer) write(text []byte) (n int, err error) {
	for {
		m, err := w.out.Write(text[n:])
		n += m
		if !errors.Is(err, syscall.EAGAIN) {
			return n, err
		}
		time.Sleep(fullPause)
	}
}

func (w *Writer) lose(text []byte, err error) (taken bool) {
	w.err = err
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost += lines(text)
	return false
}

// tell tells of lost lines, if that is due.
func (w *Writer) tell() {
	w.mu.Lock()
	lost, note, closing := w.lost, w.note, w.closing
	w.mu.Unlock()
	if lost == w.told || !closing && !w.toldAt.IsZero() && time.Since(w.toldAt) < tellInterval {
		return
	}
	if line := note(lost, w.err); w.put(line) {
		w.told, w.toldAt, w.err = lost, time.Now(), nil
	}
}

// lines counts them; the last one may lack its end.
func lines(p []byte) uint64 {
	n := bytes.Count(p, []byte{'\n'})
	if len(p) > 0 && p[len(p)-1] != '\n' {
		n++
	}
	return uint64(n)
}
