package rabbitmq

import (
	"net"
	"slices"
	"sync"
	"time"

	"async-data-processor/broker/conn"
)

const (
	// maxCorked is how many bytes a corked socket gathers, at most.
	maxCorked = 256 << 10
	// maxPiece is how many bytes it sends at once, each time with the full timeout:
	// a link that is slow keeps its connection.
	maxPiece = 32 << 10
)

// socket is the connection below AMQP and TLS.
//
// It bounds every write, which the library does not: a broker that stops reading
// would hold it for ever. After an error nothing is written any more, since part
// of a frame may be on its way.
//
// The library flushes each frame by itself. Between cork and uncork the socket
// gathers what any of its goroutines writes, and sends it together.
type socket struct {
	conn.Socket
	timeout time.Duration

	mu       sync.Mutex // orders the writes, and guards what follows
	corked   bool
	gathered []byte
	failed   error // of the first write that did
}

func newSocket(c net.Conn, timeout time.Duration) *socket {
	return &socket{Socket: conn.Socket{Conn: c}, timeout: timeout}
}

func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.corked && s.failed == nil {
		if len(s.gathered)+len(p) <= maxCorked {
			s.gathered = append(s.gathered, p...)
			return len(p), nil
		}
		s.flush()
	}
	return s.write(p)
}

// cork keeps back what is written until uncork. It has one caller at a time.
func (s *socket) cork() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corked = true
}

// uncork sends what was gathered. The error is that of any write before: what was
// written since cork may have been sent, or not, or in part.
func (s *socket) uncork() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corked = false
	s.flush()
	return s.failed
}

// flush sends what is gathered. mu is held.
func (s *socket) flush() {
	for piece := range slices.Chunk(s.gathered, maxPiece) {
		_, _ = s.write(piece) // an error is kept in failed, and ends it
	}
	s.gathered = s.gathered[:0]
}

// write sends p; mu is held.
func (s *socket) write(p []byte) (n int, err error) {
	if s.failed != nil {
		return 0, s.failed
	}
	if err = s.SetWriteDeadline(time.Now().Add(s.timeout)); err == nil {
		n, err = s.Conn.Write(p)
	}
	if err != nil {
		s.failed = err
		_ = s.Close()
	}
	return n, err
}
