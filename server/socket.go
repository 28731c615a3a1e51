package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"async-data-processor/event"
)

// Close codes of WebSockets (RFC 6455, section 7.4). They are part of the contract;
// those of 4000 and above are ours.
const (
	closeNormal      = int(websocket.StatusNormalClosure)
	closeGoingAway   = int(websocket.StatusGoingAway)
	closeProtocol    = int(websocket.StatusProtocolError)
	closeBinary      = int(websocket.StatusUnsupportedData)
	closeBroken      = int(websocket.StatusAbnormalClosure)
	closeForeign     = int(websocket.StatusPolicyViolation)
	closeTooLong     = int(websocket.StatusMessageTooBig)
	closeMistake     = int(websocket.StatusInternalError)
	closeOverloaded  = int(websocket.StatusTryAgainLater)
	closeNotProtocol = 4400 // what the client sent is not the protocol
	closeToken       = 4401 // the token is missing or wrong
	closeSlow        = 4408 // a frame, or the answer to a ping, took too long
	closeFlood       = 4429 // too many pings
)

const (
	pingInterval = 20 * time.Second
	pongTimeout  = 10 * time.Second
	// closeGrace is how long a client has to answer that a WebSocket is closed.
	closeGrace = 2 * time.Second
	// pingBurst is how many pings a client may send in a second.
	pingBurst = 50
	// maxReason is the longest reason of a close frame (RFC 6455, section 5.5), in bytes.
	maxReason = 123
)

// Socket is an open WebSocket. It is never compressed. The server pings the client,
// and ends a WebSocket whose client does not answer.
//
// Its methods may be called concurrently.
type Socket struct {
	// set before use, read-only after
	server *Server
	conn   *websocket.Conn
	wire   wire
	client string // see ClientKey
	// request is the one that opened it, and opened when that was.
	request event.Request
	opened  time.Time
	// limit is the longest frame that the handler of a Route reads, 0 if it reads none.
	// binary tells that there is no subprotocol, and so the frames are not text.
	limit  int
	binary bool
	// wake, unless nil, is called when the WebSocket ends, or has to. A read ends then, too.
	wake func()

	held     atomic.Bool   // the next frame waits for room
	draining chan struct{} // closed when the process begins to stop
	done     chan struct{} // closed when the WebSocket has ended, or has to
	closing  sync.Once

	// Only the goroutine that reads uses what follows.
	pings     int // since pingsFrom
	pingsFrom time.Time
	frame     []byte // that Read has returned
	read      int    // frames, and bytes of them, that Read has returned
	readBytes int

	mu     sync.Mutex // guards what follows
	pinger *time.Timer
	drains bool // draining is closed
	ended  bool // done is closed
	code   int  // why it ended, 0 if only Close says so
	reason string
	err    error // why the connection broke, if it did
	frames int   // for the event
	bytes  int
}

// Done is closed when the client is gone, or does not keep the rules. Then the
// handler returns.
func (s *Socket) Done() <-chan struct{} { return s.done }

// Draining is closed when the process begins to stop. The handler may send a last
// word, and returns soon.
func (s *Socket) Draining() <-chan struct{} { return s.draining }

// Bare tells that the client has offered no subprotocol: see Route.
func (s *Socket) Bare() bool { return s.binary }

// Write sends each text as a frame, all of them together. A client has 10 s to take
// 64 KiB. An error means that the WebSocket has ended.
func (s *Socket) Write(texts ...[]byte) error { return s.writeAll(slices.Values(texts)) }

// writeAll is Write. A text may change when the next one is asked for.
func (s *Socket) writeAll(texts iter.Seq[[]byte]) error {
	var err error
	kind := websocket.MessageText
	if s.binary {
		kind = websocket.MessageBinary
	}
	s.wire.cork()
	for text := range texts {
		if err = s.conn.Write(context.Background(), kind, text); err != nil {
			break
		}
	}
	if e := s.wire.uncork(); err == nil {
		err = e
	}
	if err != nil {
		s.breakOff(err)
		return fmt.Errorf("write to a WebSocket: %w", err)
	}
	return nil
}

// Close ends the WebSocket with a code of RFC 6455, section 7.4, and a reason, which is
// cut after 123 bytes. If it has to end for another reason, that is told. Close waits for
// the client's answer, 2 s at most. Only the first call does anything.
func (s *Socket) Close(code int, reason string) {
	s.closing.Do(func() {
		s.mu.Lock()
		if s.code != 0 {
			code, reason = s.code, s.reason
		}
		s.end(code, reason)
		s.pinger.Stop()
		e := event.SocketClosed{Request: s.request, Code: code, Reason: reason, Frames: s.frames}
		e.Bytes, e.Err = s.bytes, s.err
		s.mu.Unlock()
		if code == closeBroken {
			_ = s.wire.Close() // there is nothing to say any more
			_ = s.conn.CloseNow()
		} else {
			s.wire.lastReads(closeGrace)
			_ = s.conn.Close(websocket.StatusCode(code), clip(reason, maxReason-len("…")))
		}
		e.Elapsed = time.Since(s.opened)
		s.server.cfg.Events.Send(e)
		s.server.sockets.remove(s) // a shutdown waits for it
	})
}

// end closes done. mu is held. The first call decides the code, and returns true.
func (s *Socket) end(code int, reason string) bool {
	if s.ended {
		return false
	}
	s.ended, s.code, s.reason = true, code, reason
	close(s.done)
	return true
}

// stop has the WebSocket end with a code, without waiting for that.
func (s *Socket) stop(code int, reason string) {
	s.mu.Lock()
	first := s.end(code, reason)
	s.mu.Unlock()
	if first { // else it may be about to read the client's answer to a close
		s.interrupt()
	}
}

// interrupt ends what the handler waits for.
func (s *Socket) interrupt() {
	s.wire.stopReading()
	if s.wake != nil {
		s.wake()
	}
}

// breakOff has the WebSocket end, as its connection is of no more use.
func (s *Socket) breakOff(err error) {
	s.mu.Lock()
	if !s.ended {
		s.err = err
	}
	s.end(closeBroken, "the connection broke")
	s.mu.Unlock()
	_ = s.wire.Close()
	s.interrupt()
}

// drain tells the handler that the process stops.
func (s *Socket) drain() {
	s.mu.Lock()
	if !s.drains {
		s.drains = true
		close(s.draining)
	}
	ended := s.ended
	s.mu.Unlock()
	if s.wake != nil && !ended { // a handler without wake reads on until it closes
		s.interrupt()
	}
}

func (s *Socket) isDraining() bool {
	select {
	case <-s.draining:
		return true
	default:
		return false
	}
}

// count tells what the client has sent.
func (s *Socket) count(frames, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames, s.bytes = frames, bytes
}

// readEnds has the WebSocket end because a read has failed.
func (s *Socket) readEnds(err error) {
	sent, closed := errors.AsType[websocket.CloseError](err)
	switch {
	case errors.Is(err, errStopped): // stop says why, or the drain
	case closed:
		s.mu.Lock()
		s.end(int(sent.Code), clip(sent.Reason, maxReason))
		s.mu.Unlock()
	case errors.Is(err, errFrameSlow):
		s.stop(closeSlow, errFrameSlow.Error())
	case broken(err):
		s.breakOff(err)
	default: // what the library found; it quotes nothing of a frame's content
		s.stop(closeProtocol, "the frames are not those of RFC 6455")
	}
}

// broken tells whether a read failed because of the connection.
func broken(err error) bool {
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// pinged tells whether a ping is answered.
func (s *Socket) pinged(context.Context, []byte) bool {
	if now := time.Now(); now.Sub(s.pingsFrom) > time.Second {
		s.pings, s.pingsFrom = 0, now
	}
	s.pings++
	if s.pings > pingBurst {
		s.stop(closeFlood, fmt.Sprintf("more than %d pings in a second", pingBurst))
		return false
	}
	return true
}

// ping finds out whether the client is there. A frame shows that, too; and its pong
// may be behind frames for which there is no room yet.
func (s *Socket) ping() {
	before := s.wire.alive.Load()
	ctx, cancel := context.WithTimeout(context.Background(), s.server.pongTimeout)
	defer cancel()
	if s.conn.Ping(ctx) != nil && s.wire.alive.Load() == before && !s.held.Load() {
		s.stop(closeSlow, fmt.Sprintf("no pong within %v", s.server.pongTimeout))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.pinger.Reset(s.server.pingInterval)
	}
}

// serve runs a handler of Config.Mount. If that does not read, serve does, so that pings
// and the end of the WebSocket are noticed. The client may send nothing else then.
func (s *Socket) serve(h func(*Socket, *http.Request), r *http.Request) {
	var reading sync.WaitGroup
	if s.limit > 0 {
		s.conn.SetReadLimit(-1) // Read has its own
	} else {
		reading.Go(func() {
			_, _, err := s.conn.Reader(context.Background())
			if err != nil {
				s.readEnds(err)
				return
			}
			s.stop(closeNotProtocol, "this WebSocket takes no frames")
		})
	}
	defer reading.Wait()
	defer s.recovered()
	h(s, r)
	s.Close(closeNormal, "")
}

// recovered ends the WebSocket, and nothing else, if its goroutine panics.
func (s *Socket) recovered() {
	if v := recover(); v != nil {
		e := event.Refused{Request: s.request, Kind: internalError.name, Stack: debug.Stack()}
		e.Err = fmt.Errorf("panic: %v", v)
		s.server.cfg.Events.Send(e)
		s.Close(closeMistake, "a bug, recorded under "+s.request.ID)
	}
}
