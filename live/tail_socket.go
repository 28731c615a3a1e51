package live

import (
	"bytes"
	"context"
	"errors"
	"net/http"

	"async-data-processor/httpstream"
)

// Socket is a WebSocket whose client sends nothing.
type Socket interface {
	// Write sends each text as a frame. A client has 10 s to take 64 KiB.
	Write(texts ...[]byte) error
	// Done is closed when the client is gone.
	Done() <-chan struct{}
	// Draining is closed when the process begins to stop.
	Draining() <-chan struct{}
	// Close ends it with a code and a reason.
	Close(code int, reason string)
}

// Codes with which ServeSocket closes (RFC 6455, section 7.4; from 4000 on, ours).
const (
	closeLimit    = 1000 // Query.Limit is reached
	closeDrain    = 1001
	closeMistake  = 1011
	closeCrowded  = 1013 // all places are taken, or the client has more than its share
	closeBadQuery = 4400
)

var errGone = errors.New("the client is gone")

// ServeSocket shows the tail until the client goes or the process stops. It closes the
// WebSocket.
func (h *TailHandler) ServeSocket(s Socket, r *http.Request) {
	open, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	go func() {
		select {
		case <-s.Done():
			cancel(errGone)
		case <-s.Draining():
			cancel(ErrTailEnded)
		case <-open.Done():
		}
	}()
	ctx, v, p, err := h.take(open, r)
	switch {
	case errors.Is(err, ErrQuery):
		s.Close(closeBadQuery, err.Error())
		return
	case errors.Is(err, ErrTooManyViewers):
		s.Close(closeCrowded, err.Error())
		return
	case errors.Is(err, ErrTailEnded):
		s.Close(closeDrain, err.Error())
		return
	case err != nil:
		s.Close(closeMistake, err.Error())
		return
	}
	defer h.places.Leave(p)
	bye, err := show(ctx, v, &frames{socket: s})
	switch {
	case err != nil: // the client is gone: the Socket knows why
		s.Close(closeMistake, err.Error())
	case bye.Why == ByeLimit:
		s.Close(closeLimit, bye.Why)
	case bye.Why == byeShare:
		s.Close(closeCrowded, httpstream.ErrYielded.Error())
	default:
		s.Close(closeDrain, bye.Why)
	}
}

// frames are those that wait for a WebSocket.
type frames struct {
	socket Socket
	out    bytes.Buffer
	ends   []int // of each in out
}

func (s *frames) add(f Frame) error {
	if err := frame(&s.out, f, f.ID); err != nil {
		return err
	}
	s.out.Truncate(s.out.Len() - 1) // the newline
	s.ends = append(s.ends, s.out.Len())
	return nil
}

func (s *frames) waiting() int { return s.out.Len() }

func (s *frames) flush() error {
	texts, begin := make([][]byte, 0, len(s.ends)), 0
	for _, end := range s.ends {
		texts = append(texts, s.out.Bytes()[begin:end])
		begin = end
	}
	s.ends = s.ends[:0]
	defer s.out.Reset()
	if len(texts) == 0 {
		return nil
	}
	return s.socket.Write(texts...)
}

// alive does nothing: the server pings.
func (s *frames) alive() error { return nil }
