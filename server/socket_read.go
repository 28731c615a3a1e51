package server

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/coder/websocket"
)

var errFrameKind = errors.New("the frame is of the wrong kind")

// Read returns the next frame that the client sends, which may be used until the next
// call. Pings are answered, and the end of the WebSocket is noticed, only while it is
// called, so the goroutine of the handler calls it again and again. Only that one may. An
// error means that the WebSocket has ended. A drain of the process does not end it.
func (s *Socket) Read() ([]byte, error) {
	if s.held.Load() { // what took so long between two calls is not the client's fault
		s.wire.alive.Add(1)
		s.held.Store(false)
	}
	defer s.held.Store(true)
	kind, r, err := s.conn.Reader(context.Background())
	if err != nil {
		s.readEnds(err)
		return nil, fmt.Errorf("read from a WebSocket: %w", err)
	}
	if wanted := s.binary; wanted != (kind == websocket.MessageBinary) {
		reason := "send text"
		if wanted {
			reason = "send binary frames, or offer a subprotocol"
		}
		s.stop(closeBinary, reason)
		return nil, errFrameKind
	}
	s.wire.beginFrame()
	s.frame, err = appendAll(s.frame[:0], r, s.limit)
	s.wire.endFrame()
	s.read++
	s.readBytes += len(s.frame)
	s.count(s.read, s.readBytes)
	switch {
	case errors.Is(err, errTooLong):
		s.stop(closeTooLong, fmt.Sprintf("frame %d is longer than %d bytes", s.read, s.limit))
		return nil, err
	case err != nil:
		s.readEnds(err)
		return nil, fmt.Errorf("read from a WebSocket: %w", err)
	}
	return s.frame, nil
}

// appendAll appends all of r to b, which has limit bytes at most then; else it returns
// errTooLong.
func appendAll(b []byte, r io.Reader, limit int) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):min(cap(b), limit+1)])
		b = b[:len(b)+n]
		switch {
		case len(b) > limit:
			return b, errTooLong
		case err == io.EOF:
			return b, nil
		case err != nil:
			return b, err
		}
	}
}
