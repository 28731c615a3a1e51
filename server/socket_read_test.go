package server

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"async-data-processor/event"
)

// repeater is a route whose WebSockets answer each frame with the same one.
func repeater(bare bool) Route {
	return Route{
		Method: "GET", Path: "/echo", For: Viewers, Protocol: "adp.echo.v1", Reads: 1000, Bare: bare,
		Handler: http.NotFoundHandler(),
		Socket: func(s *Socket, _ *http.Request) {
			for {
				frame, err := s.Read()
				if err != nil || s.Write(frame) != nil {
					return
				}
			}
		},
	}
}

// TestSocketReads: a route may read frames of a bounded length and one kind.
func TestSocketReads(t *testing.T) {
	long := strings.Repeat("x", 1001)
	for name, c := range map[string]struct {
		bare      bool
		protocols []string
		kind      websocket.MessageType
		frame     string
		code      int // with which it ends
	}{
		"text":               {false, []string{"adp.echo.v1"}, websocket.MessageText, "hello", 0},
		"longest":            {false, []string{"adp.echo.v1"}, websocket.MessageText, long[1:], 0},
		"too long":           {false, []string{"adp.echo.v1"}, websocket.MessageText, long, closeTooLong},
		"empty":              {false, []string{"adp.echo.v1"}, websocket.MessageText, "", 0},
		"binary":             {false, []string{"adp.echo.v1"}, websocket.MessageBinary, "hello", closeBinary},
		"bare":               {true, nil, websocket.MessageBinary, "\x00\xff", 0},
		"bare with text":     {true, nil, websocket.MessageText, "hello", closeBinary},
		"may be bare, isn't": {true, []string{"adp.echo.v1"}, websocket.MessageText, "hello", 0},
	} {
		t.Run(name, func(t *testing.T) {
			rg := start(t, Config{Loopback: true, Mount: []Route{repeater(c.bare)}})
			conn := rg.mustDial("/echo", c.protocols)
			must(t, conn.Write(t.Context(), c.kind, []byte(c.frame)))
			if c.code != 0 {
				wantClose(t, conn, c.code, "")
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			kind, got, err := conn.Read(ctx)
			must(t, err)
			if kind != c.kind || !bytes.Equal(got, []byte(c.frame)) {
				t.Errorf("got %v %q", kind, got)
			}
			must(t, conn.Close(websocket.StatusNormalClosure, ""))
			got1 := <-rg.events // event.Served comes before it or behind it
			e, ok := got1.(event.SocketClosed)
			if !ok {
				e = told[event.SocketClosed](rg)
			}
			if e.Frames != 1 || e.Bytes != len(c.frame) || e.Code != closeNormal {
				t.Errorf("got %+v", e)
			}
		})
	}
}

// TestSocketBare: a client without a subprotocol is let in only where that is meant to
// be, and one with other subprotocols nowhere.
func TestSocketBare(t *testing.T) {
	for name, c := range map[string]struct {
		bare      bool
		protocols []string
		opens     bool
	}{
		"bare":            {true, nil, true},
		"another":         {true, []string{"other"}, false},
		"bare, not meant": {false, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			rg := start(t, Config{Loopback: true, Mount: []Route{repeater(c.bare)}})
			conn, _, err := rg.dial("/echo", c.protocols)
			if err == nil && c.opens {
				must(t, conn.Close(websocket.StatusNormalClosure, ""))
				return
			}
			must(t, err) // it is opened to tell why it is closed
			wantClose(t, conn, closeNotProtocol, "offer the subprotocol adp.echo.v1")
		})
	}
}
