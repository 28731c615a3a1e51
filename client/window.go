package client

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"
)

// window is the batches that have not got their last answer, and which of them are on
// the connection. Session.mu guards it.
type window struct {
	limits Limits            // of the last handshake; zero before the first
	open   map[uint64]*frame // by reference
	bytes  int               // of open
	last   uint64            // reference

	waiting  []*frame      // to be written to the connection
	onWire   int           // frames written to it that have no answer
	wireSize int           // of them, in bytes
	drains   bool          // the server reads no more of it
	work     chan struct{} // has one element if there may be something to write
}

// frame is a batch on its way.
type frame struct {
	Batch
	ref      uint64
	text     []byte
	first    time.Time // when it was first written; zero before
	onWire   bool
	accepted bool
	unclear  bool // an earlier attempt may have been published
	id       string
}

func newWindow() window {
	return window{open: make(map[uint64]*frame), work: make(chan struct{}, 1)}
}

// room tells whether a frame of that size fits in.
func (w *window) room(size int) bool {
	return w.limits.Frame > 0 && len(w.open) < w.limits.Window && (w.bytes+size <= w.limits.WindowBytes || len(w.open) == 0)
}

// add takes a batch. It gives the frame its reference, and so its text: for good, as the
// server knows by these that it comes again.
func (w *window) add(b Batch) {
	w.last++
	f := &frame{Batch: b, ref: w.last, text: make([]byte, 0, len(b.Array)+frameRoom)}
	f.text = append(f.text, `{"ref":"`...)
	f.text = strconv.AppendUint(f.text, f.ref, 10)
	f.text = append(f.text, `","entries":`...)
	head := len(f.text)
	f.text = append(f.text, f.Array...)
	f.Array = f.text[head:len(f.text):len(f.text)]
	f.text = append(f.text, '}')
	w.open[f.ref] = f
	w.bytes += len(f.text)
	w.waiting = append(w.waiting, f)
	w.wake()
}

// remove ends a frame.
func (w *window) remove(f *frame) {
	w.leaveWire(f)
	delete(w.open, f.ref)
	w.bytes -= len(f.text)
}

// leaveWire: a frame has an answer on this connection.
func (w *window) leaveWire(f *frame) {
	if f.onWire {
		f.onWire = false
		w.onWire--
		w.wireSize -= len(f.text)
		w.wake()
	}
}

// wake has the writer look for work.
func (w *window) wake() {
	select {
	case w.work <- struct{}{}:
	default:
	}
}

// inOrder returns the open frames, in the order of their references.
func (w *window) inOrder() []*frame {
	return slices.SortedFunc(maps.Values(w.open), func(a, b *frame) int { return cmp.Compare(a.ref, b.ref) })
}

// begin has all frames written to a new connection, from the oldest on.
func (w *window) begin(limits Limits) {
	w.limits, w.drains, w.onWire, w.wireSize = limits, false, 0, 0
	w.waiting = w.inOrder()
	for _, f := range w.waiting {
		f.unclear = f.unclear || f.onWire
		f.onWire = false
	}
	w.wake()
}

// again has a frame written once more, if it is still open.
func (w *window) again(f *frame) {
	if w.open[f.ref] == f {
		w.waiting = append(w.waiting, f)
		w.wake()
	}
}

// next returns the frame to write next; nil if there is none, or no room for it on the
// connection.
func (w *window) next() *frame {
	for len(w.waiting) > 0 && !w.drains {
		f := w.waiting[0]
		if w.onWire > 0 && (w.onWire >= w.limits.Window || w.wireSize+len(f.text) > w.limits.WindowBytes) {
			return nil
		}
		w.waiting[0], w.waiting = nil, w.waiting[1:]
		if w.open[f.ref] != f || f.onWire {
			continue
		}
		if f.first.IsZero() {
			f.first = time.Now()
		}
		f.onWire = true
		w.onWire++
		w.wireSize += len(f.text)
		return f
	}
	return nil
}

// tooOld tells whether the server may have forgotten a frame that is sent again later.
func (f *frame) tooOld(dedupe, later time.Duration) bool {
	return dedupe > 0 && !f.first.IsZero() && time.Since(f.first)+later >= dedupe
}
