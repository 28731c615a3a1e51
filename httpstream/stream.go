// Package httpstream serves HTTP answers that have no end by themselves.
package httpstream

import (
	"bytes"
	"context"
	"net/http"
	"time"
)

const (
	// KeepAlive is the longest silence of a stream.
	KeepAlive = 15 * time.Second
	// TakeTimeout is how long a client may take for what is written at once.
	TakeTimeout = 10 * time.Second
	// ByeTimeout is what it has for the last word, when the process stops.
	ByeTimeout = 500 * time.Millisecond
)

// Stream is an answer to a request. What is added to Out waits until Flush.
type Stream struct {
	Out     bytes.Buffer
	w       http.ResponseWriter
	control *http.ResponseController
	ctx     context.Context // ends when the client has to hurry
}

// New returns the stream that answers a request. Its client has to hurry once ctx has
// ended. An error means that the connection is gone.
func New(ctx context.Context, w http.ResponseWriter) (*Stream, error) {
	s := &Stream{w: w, control: http.NewResponseController(w), ctx: ctx}
	return s, s.control.SetReadDeadline(time.Time{}) // net/http would end the request at the old one
}

// Hurrying calls write. Once the context has ended, the client has ByeTimeout for what is
// written.
func (s *Stream) Hurrying(write func()) {
	hurried := make(chan struct{})
	unhook := context.AfterFunc(s.ctx, func() {
		defer close(hurried)
		s.hurry()
	})
	write()
	if !unhook() {
		<-hurried // it must not use the response any more
	}
}

// Ended is closed when the client has to hurry.
func (s *Stream) Ended() <-chan struct{} { return s.ctx.Done() }

// Flush writes what was added, and bounds the time for it.
func (s *Stream) Flush() error {
	if s.Out.Len() == 0 {
		return nil
	}
	if err := s.control.SetWriteDeadline(time.Now().Add(TakeTimeout)); err != nil {
		return err
	}
	if s.ctx.Err() != nil {
		s.hurry() // as it may have been called just before
	}
	_, err := s.Out.WriteTo(s.w)
	if err == nil {
		err = s.control.Flush()
	}
	return err
}

// hurry bounds the write that is under way, and the next.
func (s *Stream) hurry() { _ = s.control.SetWriteDeadline(time.Now().Add(ByeTimeout)) }
