package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// maxEncodedBytes is the longest compressed body. What a format cannot compress
	// it stores in blocks, with a header each: so a body of MaxBodyBytes may be a
	// bit longer on the wire.
	maxEncodedBytes = MaxBodyBytes + 64<<10
	// firstChunk is the room for a body before its first byte is read, and so what
	// each request counts for at least.
	firstChunk = 16 << 10
	// MinInFlight is the least Config.MaxInFlight, about 20 MiB: it admits the
	// largest body, compressed as badly as can be. The extra byte of each form
	// shows that a body is too long.
	MinInFlight = maxEncodedBytes + 1 + MaxBodyBytes + 1
	// maxPooled is the largest buffer that is kept for another body. Few bodies
	// are longer, and those should not stay in memory.
	maxPooled = 1 << 20
)

var (
	errTooLong    = errors.New("the body is too long")
	errOverBudget = errors.New("too many bytes in flight")
	errOverShare  = errors.New("too many bytes of one client in flight")
	errCorrupt    = errors.New("corrupt compressed data")
)

// budget bounds the bytes of bodies held by the process.
type budget struct {
	limit int64 // set before use, read-only after
	share int64 // of one client, the same
	used  atomic.Int64
}

// share is what one request has taken of the budget. Only the request's goroutine
// uses it. It may outlive the buffers that it was taken for.
type share struct {
	of     *budget
	client *atomic.Int64 // what the client's requests have taken
	bytes  int64
}

// take fails with errOverShare or errOverBudget.
func (s *share) take(n int64) error {
	if !within(s.client, n, s.of.share) {
		return errOverShare
	}
	if !within(&s.of.used, n, s.of.limit) {
		s.client.Add(-n)
		return errOverBudget
	}
	s.bytes += n
	return nil
}

func (s *share) give(n int64) {
	s.bytes -= n
	s.of.used.Add(-n)
	s.client.Add(-n)
}

// buffer holds a body, compressed or not.
type buffer struct {
	data []byte
	// room is how long data may get with what was taken of the budget. The
	// capacity may be larger, because buffers are pooled.
	room int64
	arrival
}

// buffers keeps *buffer with a capacity of at most maxPooled.
var buffers = sync.Pool{New: func() any { return &buffer{data: make([]byte, 0, firstChunk)} }}

func newBuffer() *buffer { return buffers.Get().(*buffer) }

// recycle gives the buffer back; its data must not be used after.
func (b *buffer) recycle() {
	if cap(b.data) <= maxPooled {
		b.data, b.room = b.data[:0], 0
		buffers.Put(b)
	}
}

// fill reads src to its end. It makes room, and takes it from the budget, while
// bytes arrive: a client that only announces a long body takes no room from
// others. It never reads more than limit+1 bytes; hint is the expected length, or
// -1.
//
// It fails with errTooLong, errOverBudget, errOverShare or the error of src.
func (b *buffer) fill(src io.Reader, hint, limit int64, s *share) error {
	for {
		have := int64(len(b.data))
		if have == b.room {
			most := limit + 1
			if have <= hint {
				most = hint + 1
			}
			room := max(firstChunk, min(2*b.room, most))
			if err := s.take(room - b.room); err != nil {
				return err
			}
			b.room = room
			if int64(cap(b.data)) < room {
				// Exactly so much: append would round up, beyond the budget.
				b.data = append(make([]byte, 0, room), b.data...)
			}
		}
		n, err := src.Read(b.data[have:b.room])
		b.data = b.data[:have+int64(n)]
		b.arrived.Store(have + int64(n))
		switch {
		case int64(len(b.data)) > limit:
			return errTooLong
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// readBody returns the request's body, decompressed, or why it is refused. The
// caller recycles it, and gives back what it has taken of the budget; the room of
// the compressed form is given back here.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, c coding, taken *share) (*buffer, error) {
	limit := int64(MaxBodyBytes)
	if c != identity {
		limit = maxEncodedBytes
	}
	if r.ContentLength > limit {
		// Not a byte of it is kept.
		return nil, s.refuseBody(errTooLong, c)
	}
	b := newBuffer()
	err := s.receive(b, w, r, limit, taken)
	if err == nil && c != identity {
		encoded := b
		b = newBuffer()
		err = s.inflate(b, encoded.data, c, taken)
		taken.give(encoded.room)
		encoded.recycle()
	}
	if err != nil {
		b.recycle()
		return nil, s.refuseBody(err, c)
	}
	return b, nil
}

// refuseBody turns an error of readBody into the answer.
func (s *Server) refuseBody(err error, c coding) *problem {
	p := &problem{cause: err}
	switch {
	case errors.Is(err, errTooLong) && c == identity:
		p.kind, p.detail = tooLarge, fmt.Sprintf("the body is longer than %d MiB; send it in parts", MaxBodyBytes>>20)
	case errors.Is(err, errTooLong):
		p.kind, p.detail = tooLarge, fmt.Sprintf("to hold the body decompressed, or its window, takes more than %d MiB; send it in parts", MaxBodyBytes>>20)
	case errors.Is(err, errOverBudget):
		p.kind, p.detail = overloaded, "this process holds as many bodies as it may; nothing was published, try again"
	case errors.Is(err, errOverShare):
		p.kind, p.detail = overloaded, "this process holds as many bodies of one client as it may; nothing was published, try again"
	case errors.Is(err, errCorrupt):
		p.kind, p.detail = unreadableBody, fmt.Sprintf("the body is not what its Content-Encoding %s says", c)
		p.entries = wholeBody("the body cannot be decompressed")
	case errors.Is(err, errStalled):
		p.kind, p.detail = bodyTimeout, fmt.Sprintf("%v; nothing was published", errStalled)
	case errors.Is(err, errSlow):
		p.kind, p.detail = bodyTimeout, fmt.Sprintf("%v; nothing was published", errSlow)
	case errors.Is(err, os.ErrDeadlineExceeded) && s.closing.Err() != nil:
		p.kind, p.detail = draining, "the server is stopping and the body was still on its way; nothing was published, try again"
	case errors.Is(err, os.ErrDeadlineExceeded):
		p.kind, p.detail = bodyTimeout, fmt.Sprintf("the request did not arrive within %v; nothing was published", s.http.ReadTimeout)
	default:
		p.kind, p.detail = unreadableBody, "the body broke off, or its chunks are malformed"
		p.entries = wholeBody("the body cannot be read")
	}
	return p
}

// inflate decompresses encoded, which has arrived completely, into b. Few requests
// do that at a time. So no client that trickles its body holds a decompressor's
// window, which for zstd is as large as the client says; and the number of windows
// does not grow with the number of requests.
func (s *Server) inflate(b *buffer, encoded []byte, c coding, taken *share) error {
	s.inflaters <- struct{}{}
	defer func() { <-s.inflaters }()

	var err error
	switch c {
	case gzipped:
		z := gunzippers.Get().(*gunzipper)
		defer z.recycle()
		z.src.Reset(encoded)
		if err = z.Reset(&z.src); err == nil {
			err = b.fill(z, -1, MaxBodyBytes, taken)
		}
	default:
		z := unzstds.Get().(*zstd.Decoder)
		defer func() {
			_ = z.Reset(nil) // drops encoded; it cannot fail on an open decoder
			unzstds.Put(z)
		}()
		if err = z.Reset(bytes.NewReader(encoded)); err == nil {
			err = b.fill(z, -1, MaxBodyBytes, taken)
		}
	}
	switch {
	case err == nil, errors.Is(err, errTooLong), errors.Is(err, errOverBudget), errors.Is(err, errOverShare):
		return err
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, zstd.ErrWindowSizeExceeded):
		return fmt.Errorf("%w: %w", errTooLong, err)
	default:
		return fmt.Errorf("%w: %w", errCorrupt, err)
	}
}

// gunzipper is a gzip.Reader with its source, because a gzip.Reader cannot drop
// its source.
type gunzipper struct {
	gzip.Reader
	src bytes.Reader
}

func (z *gunzipper) recycle() {
	z.src.Reset(nil)
	gunzippers.Put(z)
}

var gunzippers = sync.Pool{New: func() any { return new(gunzipper) }}

// unzstds keeps *zstd.Decoder. Without goroutines they need no Close.
var unzstds = sync.Pool{New: func() any {
	z, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1), // no goroutines
		// For a stream this bounds the window. RFC 9659 allows 8 MiB. But the window
		// of a frame with one segment is as large as its content, which costs no
		// more than a body.
		zstd.WithDecoderMaxMemory(MaxBodyBytes),
	)
	if err != nil {
		panic(err) // the options are constants
	}
	return z
}}
