package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/coder/websocket"
)

const (
	// dialTimeout bounds the way to a handshake.
	dialTimeout = 10 * time.Second
	// lastWord is how long a connection is read that cannot be written to any more.
	lastWord = time.Second
	// maxAnswer bounds a frame of the server, in bytes.
	maxAnswer = 4 << 20
	// defaultPing is the time between signs of life if the server tells none.
	defaultPing = 20 * time.Second
	// maxAsked bounds the pause that a server may ask for.
	maxAsked = time.Minute
	// The limits of what a server may tell.
	leastPing, mostPing = time.Second, 5 * time.Minute
)

// connect makes a connection and works with it until it ends. answered tells whether
// the server has done anything for this session meanwhile.
func (s *Session) connect() (answered bool, err error) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var w watch
	ws, h, err := s.greet(ctx, &w)
	if err != nil {
		return false, err
	}
	defer ws.CloseNow()
	// A silent server is a dead one, or one that cannot be reached.
	w.start(2*h.Ping, ws)
	defer w.timer.Stop()
	s.begin(ws, h)
	if s.cfg.Connected != nil {
		s.cfg.Connected(h)
	}
	writer := make(chan error, 1)
	go func() {
		err := s.write(ctx, ws)
		// The server may have said why before it stopped reading.
		time.AfterFunc(lastWord, cancel)
		writer <- err
	}()
	answered, err = s.read(ctx, ws, &w)
	cancel()
	wrote := <-writer
	if s.ctx.Err() == nil && errors.Is(err, context.Canceled) {
		err = wrote // why the reading has ended
	}
	return answered, w.explain(Refusal(err))
}

// greet dials and reads the handshake.
func (s *Session) greet(ctx context.Context, w *watch) (_ *websocket.Conn, h Handshake, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, dialTimeout, fmt.Errorf("no handshake within %v", dialTimeout))
	defer cancel()
	ws, err := Dial(ctx, DialConfig{
		HTTP: s.cfg.HTTP, URL: s.url, Token: s.cfg.Token, Subprotocol: Subprotocol, Sign: w.sign,
	})
	if err != nil {
		return nil, h, err
	}
	defer func() {
		if err != nil {
			_ = ws.CloseNow()
		}
	}()
	ws.SetReadLimit(maxAnswer)
	m, err := receive(ctx, ws)
	if err != nil {
		return nil, h, Refusal(cmp.Or(context.Cause(ctx), err))
	}
	if m.Type != "handshake" {
		return nil, h, fmt.Errorf("%w: the server begins with %q, not with a handshake", ErrRefused, m.Type)
	}
	h = Handshake{Node: m.Node, Dedupe: seconds(m.Dedupe), Ping: min(max(seconds(m.Ping), leastPing), mostPing)}
	if m.Ping <= 0 {
		h.Ping = defaultPing
	}
	h.Limits, err = m.Limits.within()
	return ws, h, err
}

func seconds(n int64) time.Duration {
	return time.Duration(min(max(n, 0), 1<<32)) * time.Second
}

// receive reads a frame. It may be cut short: the library takes the end of a connection,
// within a frame, for the end of that. So the error is one of the connection then, too.
func receive(ctx context.Context, ws *websocket.Conn) (m message, err error) {
	_, text, err := ws.Read(ctx)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("the server sends no JSON, or it was cut off: %w", err)
	}
	return m, nil
}

// read takes what the server says until the connection ends.
func (s *Session) read(ctx context.Context, ws *websocket.Conn, w *watch) (answered bool, err error) {
	for {
		m, err := receive(ctx, ws)
		if err != nil {
			return answered, err
		}
		w.sign()
		answered = answered || m.Type == "accepted" || m.Type == "rejected"
		if err := s.take(m); err != nil {
			return answered, err
		}
	}
}

// write writes frames until the connection ends.
func (s *Session) write(ctx context.Context, ws *websocket.Conn) error {
	for {
		s.mu.Lock()
		f := s.window.next()
		s.mu.Unlock()
		if f == nil {
			select {
			case <-s.window.work:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := ws.Write(ctx, websocket.MessageText, f.text); err != nil {
			return err
		}
	}
}

// watch closes a connection on which nothing has come for too long.
type watch struct {
	limit time.Duration
	timer *time.Timer // nil before start
	fired chan struct{}
}

func (w *watch) start(limit time.Duration, ws *websocket.Conn) {
	w.limit, w.fired = limit, make(chan struct{})
	w.timer = time.AfterFunc(limit, func() {
		close(w.fired)
		_ = ws.CloseNow()
	})
}

// sign takes note that something has come.
func (w *watch) sign() {
	if w.timer != nil && w.timer.Stop() {
		w.timer.Reset(w.limit)
	}
}

// explain returns the error of a connection that ended with err.
func (w *watch) explain(err error) error {
	select {
	case <-w.fired:
		return fmt.Errorf("nothing has come from the server for %v", w.limit)
	default:
		return err
	}
}
