package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// writeTimeout is how long a client may take for writeChunk bytes of what is sent to it.
	writeTimeout = 10 * time.Second
	writeChunk   = 64 << 10
	// frameStall is how long nothing of a frame may arrive. After that long, the
	// rate is minRate at least. Whatever it is, a frame has readTimeout.
	frameStall = stallLooks * lookInterval
	// closeFrame is the first byte of a close frame (RFC 6455, section 5.2), which is short
	// enough to be written at once.
	closeFrame = 0x88
)

var (
	// errStopped is what a Read fails with after stopReading.
	errStopped   = errors.New("the server reads no more of this connection")
	errFrameSlow = fmt.Errorf("nothing of a frame arrived for %v, or less than %d bytes a second of it", frameStall, minRate)
)

// wire is the connection of a WebSocket. It bounds how long a write and the arrival of
// a frame may take, without a timer for each. What is written while it is corked
// leaves together.
type wire struct {
	net.Conn
	stopped atomic.Bool
	// lingers tells that Close reads what the client has still sent.
	lingers atomic.Bool
	// alive changes whenever the client, or what waits for room for it, makes progress.
	alive atomic.Int64

	// Only the goroutine that reads uses what follows.
	inFrame bool
	began   time.Time // of the first Read for the frame; zero if there was none
	arrived int64     // bytes of those Reads

	mu      sync.Mutex // guards what follows
	idle    sync.Cond  // writing has become false
	corks   int
	writing bool
	out     []byte // waits to be written
	err     error  // of a write; no other follows
}

// hijack has the wire take over the connection of a response.
func (w *wire) hijack(response http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(response).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.Conn = conn
	w.idle.L = &w.mu
	// out is the buffer. This one is for what the library writes of a frame by parts.
	return w, bufio.NewReadWriter(rw.Reader, bufio.NewWriterSize(w, 256)), nil
}

// Read implements net.Conn.
func (w *wire) Read(p []byte) (n int, err error) {
	if w.inFrame {
		if err := w.pace(); err != nil {
			return 0, err
		}
	}
	if w.stopped.Load() {
		return 0, errStopped
	}
	n, err = w.Conn.Read(p)
	w.alive.Add(1)
	w.arrived += int64(n)
	switch {
	case err == nil || !errors.Is(err, os.ErrDeadlineExceeded):
	case w.stopped.Load():
		err = errStopped
	case w.inFrame:
		err = errFrameSlow
	}
	return n, err
}

// pace bounds the next Read for a frame. It returns errFrameSlow if the frame takes too long.
func (w *wire) pace() error {
	now := time.Now()
	if w.began.IsZero() {
		w.began, w.arrived = now, 0
	}
	took := now.Sub(w.began)
	if took > readTimeout || w.arrived < int64((took-frameStall)/time.Second)*minRate {
		return errFrameSlow
	}
	return w.SetReadDeadline(now.Add(frameStall))
}

// beginFrame bounds how long the frame that has begun to arrive may take.
func (w *wire) beginFrame() { w.inFrame = true }

// endFrame lets the connection be silent again. Most frames had arrived before they
// were read, and cost no system call for that.
func (w *wire) endFrame() {
	w.inFrame = false
	if !w.began.IsZero() {
		w.began = time.Time{}
		_ = w.SetReadDeadline(time.Time{}) // an error means that the connection is gone
	}
}

// stopReading ends a Read that is under way, and those to come.
func (w *wire) stopReading() {
	w.stopped.Store(true) // first: see Read
	_ = w.SetReadDeadline(time.Now())
}

// lastReads lets the closing handshake read for so long, and then Close.
func (w *wire) lastReads(atMost time.Duration) {
	_ = w.SetReadDeadline(time.Now().Add(atMost))
	w.stopped.Store(false)
	w.lingers.Store(true)
}

// Close implements net.Conn. After lastReads it says that no more is to come, and reads
// until the client has heard that. To close a connection before what has arrived is read
// resets it (RFC 2525, section 2.17), and may take the close frame from the client.
func (w *wire) Close() error {
	if half, ok := w.Conn.(interface{ CloseWrite() error }); ok && w.lingers.Load() && half.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, w.Conn) // until the client closes, or lastReads is over
	}
	return w.Conn.Close()
}

// Write implements net.Conn. It does not wait for a write that is under way: what it is
// given then, such as a pong, follows that. But the library closes the connection after
// a close frame, so that has to be written before.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	if w.out == nil {
		w.out = *outs.Get().(*[]byte)
	}
	w.out = append(w.out, p...)
	last := p[0] == closeFrame
	for last && w.writing {
		w.idle.Wait()
	}
	if last || w.corks == 0 && !w.writing {
		w.flush()
	}
	return len(p), w.err
}

// cork holds back what is written until uncork.
func (w *wire) cork() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.corks++
}

// uncork writes what was held back, and returns when that is done.
func (w *wire) uncork() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.corks--
	for w.writing {
		w.idle.Wait()
	}
	w.flush()
	return w.err
}

// flush writes what waits. mu is held, except while it writes.
func (w *wire) flush() {
	w.writing = true
	for len(w.out) > 0 && w.err == nil {
		out := w.out
		w.out = nil
		w.mu.Unlock()
		err := w.send(out)
		w.mu.Lock()
		if err != nil {
			w.err = err
		}
		giveOut(out)
	}
	w.writing = false
	w.idle.Broadcast()
}

// send writes all of p. A client may be slow, but not stop to read.
func (w *wire) send(p []byte) error {
	for len(p) > 0 {
		if err := w.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		n, err := w.Conn.Write(p[:min(len(p), writeChunk)])
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// outs keeps empty buffers, for frames that are written together.
var outs = sync.Pool{New: func() any {
	b := make([]byte, 0, 4<<10)
	return &b
}}

func giveOut(b []byte) {
	if cap(b) <= writeChunk {
		b = b[:0]
		outs.Put(&b)
	}
}
