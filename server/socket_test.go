package server

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"async-data-processor/event"
)

// dial opens a WebSocket as a program does. header has pairs.
func (rg *rig) dial(path string, protocols []string, header ...string) (*websocket.Conn, *http.Response, error) {
	o := &websocket.DialOptions{HTTPClient: rg.client, Subprotocols: protocols, HTTPHeader: make(http.Header)}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			o.Host = header[i+1]
		} else {
			o.HTTPHeader.Add(header[i], header[i+1])
		}
	}
	ctx, cancel := context.WithTimeout(rg.t.Context(), time.Minute)
	defer cancel()
	c, res, err := websocket.Dial(ctx, "ws://"+rg.addr+path, o)
	if c != nil {
		c.SetReadLimit(-1)
		rg.t.Cleanup(func() { _ = c.CloseNow() })
	}
	return c, res, err
}

// mustDial is dial for a WebSocket that has to open.
func (rg *rig) mustDial(path string, protocols []string, header ...string) *websocket.Conn {
	rg.t.Helper()
	c, _, err := rg.dial(path, protocols, header...)
	must(rg.t, err)
	return c
}

// next returns the next frame.
func next(t testing.TB, c *websocket.Conn) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, text, err := c.Read(ctx)
	must(t, err)
	return string(text)
}

// wantClose reads until the WebSocket ends, and checks how.
func wantClose(t testing.TB, c *websocket.Conn, code int, reason string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		_, _, err := c.Read(ctx)
		if err == nil {
			continue
		}
		sent, ok := errors.AsType[websocket.CloseError](err)
		if !ok || int(sent.Code) != code || !strings.Contains(sent.Reason, reason) {
			t.Errorf("got %v, want the code %d and %q", err, code, reason)
		}
		return
	}
}

// socket opens a WebSocket in a bubble.
func (p pipes) socket(t *testing.T, path, protocol string) *websocket.Conn {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return p.dial(), nil },
	}}
	c, _, err := websocket.Dial(t.Context(), "ws://x"+path, &websocket.DialOptions{HTTPClient: client, Subprotocols: []string{protocol}})
	must(t, err)
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

// ignoreEvents takes them until the test ends, as there are more than the rig has room for.
func (rg *rig) ignoreEvents() {
	go func() {
		for {
			select {
			case <-rg.events:
			case <-rg.t.Context().Done():
				return
			}
		}
	}()
}

func bearerProtocol(token string) string {
	return tokenProtocol + base64.RawURLEncoding.EncodeToString([]byte(token))
}

// parrot is a route whose WebSockets say two things, then wait for their end.
func parrot(ended chan<- string) Route {
	return Route{
		Method: "GET", Path: "/live", For: Viewers, Protocol: "adp.live.v1",
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "plain") }),
		Socket: func(s *Socket, r *http.Request) {
			if s.Write([]byte("first "+r.URL.RawQuery), []byte("second")) != nil {
				ended <- "write"
				return
			}
			select {
			case <-s.Done():
				ended <- "done"
			case <-s.Draining():
				_ = s.Write([]byte("bye"))
				s.Close(closeGoingAway, "the process stops")
				ended <- "draining"
			}
		},
	}
}

func TestSocketRoute(t *testing.T) {
	ended := make(chan string, 1)
	rg := start(t, Config{Loopback: true, Mount: []Route{parrot(ended)}}, func(s *Server) {
		// They are for requests, not for WebSockets.
		s.http.ReadTimeout, s.http.WriteTimeout = time.Second, time.Second
	})
	c, res, err := rg.dial("/live?a=b", []string{"other", "adp.live.v1"}, "X-Request-Id", "req-7")
	must(t, err)
	if c.Subprotocol() != "adp.live.v1" || res.Header.Get("X-Request-Id") != "req-7" || res.Header.Get("Sec-WebSocket-Extensions") != "" {
		t.Errorf("got the subprotocol %q and the header %v", c.Subprotocol(), res.Header)
	}
	if e := told[event.Served](rg); e.Status != 101 || e.Route != "/live" {
		t.Errorf("got %+v", e)
	}
	time.Sleep(1500 * time.Millisecond)
	if got := next(t, c) + ", " + next(t, c); got != "first a=b, second" {
		t.Errorf("got %q", got)
	}
	must(t, c.Close(websocket.StatusNormalClosure, "enough"))
	if why := <-ended; why != "done" {
		t.Errorf("the handler ended because of %s", why)
	}
	if e := told[event.SocketClosed](rg); e.Code != closeNormal || e.Reason != "enough" || e.ID != "req-7" || e.Err != nil || e.Elapsed < 1500*time.Millisecond {
		t.Errorf("got %+v", e)
	}

	if a := rg.do("GET", "/live", nil); string(a.body) != "plain" {
		t.Errorf("without Upgrade: got %q", a.body)
	}
	told[event.Served](rg)
	c = rg.mustDial("/live", []string{"adp.live.v1"})
	must(t, c.Write(t.Context(), websocket.MessageText, []byte("hello")))
	wantClose(t, c, closeNotProtocol, "takes no frames")
	<-ended
}

// TestSocketBroken has a client that goes away without a word.
func TestSocketBroken(t *testing.T) {
	ended := make(chan string, 1)
	rg := start(t, Config{Loopback: true, Mount: []Route{parrot(ended)}})
	c := rg.mustDial("/live", []string{"adp.live.v1"})
	told[event.Served](rg)
	must(t, c.CloseNow())
	<-ended
	if e := told[event.SocketClosed](rg); e.Code != closeBroken || e.Err == nil {
		t.Errorf("got %+v", e)
	}
}

func TestSocketPanic(t *testing.T) {
	rg := start(t, Config{Mount: []Route{{Method: "GET", Path: "/live", Protocol: "p", Socket: func(*Socket, *http.Request) { panic("boom") }}}})
	wantClose(t, rg.mustDial("/live", []string{"p"}), closeMistake, "a bug")
	told[event.Served](rg)
	if e := told[event.Refused](rg); !strings.Contains(string(e.Stack), "socket_test.go") || !strings.Contains(e.Err.Error(), "boom") {
		t.Errorf("got %+v", e)
	}
	rg.do("GET", "/livez", nil)
}

// TestSocketRefused: a page learns by the close code why it gets no WebSocket, others
// by the problem.
func TestSocketRefused(t *testing.T) {
	const page = "https://app.example"
	for name, tc := range map[string]struct {
		path      string
		protocols []string
		header    []string
		kind      kind
		code      int
		reason    string
	}{
		"no token":               {"/live", []string{"adp.live.v1"}, nil, unauthorized, closeToken, "send a bearer token"},
		"wrong token":            {"/live", []string{"adp.live.v1", bearerProtocol("wrong")}, nil, unauthorized, closeToken, "not known here"},
		"token that submits":     {"/live", []string{"adp.live.v1", bearerProtocol("sends")}, nil, forbidden, closeToken, "VIEW_TOKENS"},
		"token of two":           {"/live", []string{"adp.live.v1", bearerProtocol("eye"), bearerProtocol("eye")}, nil, unauthorized, closeToken, "not known"},
		"token in both":          {"/live", []string{"adp.live.v1", bearerProtocol("eye")}, []string{"Authorization", "Bearer eye"}, unauthorized, closeToken, "not known"},
		"token not base64":       {"/live", []string{"adp.live.v1", tokenProtocol + "%%%"}, nil, unauthorized, closeToken, "not known"},
		"token alone":            {"/live", []string{bearerProtocol("eye")}, nil, invalidHandshake, closeNotProtocol, "offer the subprotocol"},
		"no subprotocol":         {"/live", nil, []string{"Authorization", "Bearer eye"}, invalidHandshake, closeNotProtocol, "offer the subprotocol"},
		"foreign page":           {"/live", []string{"adp.live.v1", bearerProtocol("eye")}, []string{"Origin", "https://evil.example"}, crossOrigin, closeForeign, "another origin"},
		"page that may post":     {"/live", []string{"adp.live.v1", bearerProtocol("eye")}, []string{"Origin", page}, crossOrigin, closeForeign, "another origin"},
		"sandboxed page":         {"/live", []string{"adp.live.v1", bearerProtocol("eye")}, []string{"Origin", "null"}, crossOrigin, closeForeign, "another origin"},
		"foreign, as fetch says": {"/live", []string{"adp.live.v1", bearerProtocol("eye")}, []string{"Sec-Fetch-Site", "cross-site"}, crossOrigin, closeForeign, "another origin"},
		"rebound name":           {"/live", []string{"adp.live.v1", bearerProtocol("eye")}, []string{"Host", "evil.example", "Origin", "http://evil.example"}, misdirected, closeForeign, "not served here"},
	} {
		t.Run(name, func(t *testing.T) {
			rg := start(t, Config{Tokens: []string{"sends"}, ViewTokens: []string{"eye"}, Origins: []string{page}, Mount: []Route{parrot(nil)}})
			wantClose(t, rg.mustDial(tc.path, tc.protocols, tc.header...), tc.code, tc.reason)
			if e := told[event.Refused](rg); e.Status != tc.kind.status || e.Kind != tc.kind.name {
				t.Errorf("got %+v", e)
			}
			for range maxRefused { // of what is open only to tell why
				rg.server.refused <- struct{}{}
			}
			_, res, err := rg.dial(tc.path, tc.protocols, tc.header...)
			if err == nil || res == nil || res.StatusCode != tc.kind.status || res.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("beside too many: got %v and %+v, want a problem", err, res)
			}
		})
	}
}

// TestSocketToken: a page sends its token as a subprotocol.
func TestSocketToken(t *testing.T) {
	ended := make(chan string, 2)
	rg := start(t, Config{ViewTokens: []string{"ey.~/+="}, Mount: []Route{parrot(ended)}})
	for _, c := range []*websocket.Conn{
		rg.mustDial("/live", []string{bearerProtocol("ey.~/+="), "adp.live.v1"}, "Origin", "http://"+rg.addr),
		rg.mustDial("/live", []string{"adp.live.v1"}, "Authorization", "Bearer ey.~/+="),
	} {
		if c.Subprotocol() != "adp.live.v1" || next(t, c) != "first " {
			t.Errorf("got the subprotocol %q", c.Subprotocol())
		}
		must(t, c.Close(websocket.StatusNormalClosure, ""))
		<-ended
	}
	// Only a handshake has its token there.
	if a := rg.do("GET", "/live", nil, "Sec-Websocket-Protocol", bearerProtocol("ey.~/+=")); a.StatusCode != 401 {
		t.Errorf("without Upgrade: got %d", a.StatusCode)
	}
}

func TestSocketHandshake(t *testing.T) {
	rg := start(t, Config{Loopback: true, Mount: []Route{parrot(nil)}})
	good := map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "adp.live.v1",
	}
	for name, value := range map[string]string{"Connection": "close", "Sec-WebSocket-Version": "8", "Sec-WebSocket-Key": "short"} {
		var text strings.Builder
		text.WriteString("GET /live HTTP/1.1\r\nHost: x\r\n")
		for n, v := range good {
			if n == name {
				v = value
			}
			text.WriteString(n + ": " + v + "\r\n")
		}
		wantProblem(t, rg.raw(text.String()+"\r\n"), invalidHandshake)
		if e := told[event.Refused](rg); e.Kind != invalidHandshake.name || e.Status != 400 {
			t.Errorf("a wrong %s: got %+v", name, e)
		}
	}
	if n := len(rg.server.sockets.open) + rg.server.sockets.pending; n != 0 {
		t.Errorf("%d WebSockets count as open", n)
	}
}

// TestSocketLimit: those beyond the limit get 503, before the handshake.
func TestSocketLimit(t *testing.T) {
	ended := make(chan string, 3)
	rg := start(t, Config{ViewTokens: []string{"a", "b", "c"}, MaxSockets: 2, Mount: []Route{parrot(ended)}})
	var open []*websocket.Conn
	for _, token := range []string{"a", "b"} {
		open = append(open, rg.mustDial("/live", []string{"adp.live.v1"}, "Authorization", "Bearer "+token))
	}
	_, res, err := rg.dial("/live", []string{"adp.live.v1"}, "Authorization", "Bearer c")
	if err == nil || res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Fatalf("got %v and %+v, want 503", err, res)
	}
	must(t, open[0].Close(websocket.StatusNormalClosure, ""))
	<-ended
	for {
		if _, ok := (<-rg.events).(event.SocketClosed); ok {
			break
		}
	}
	if next(t, rg.mustDial("/live", []string{"adp.live.v1"}, "Authorization", "Bearer c")) != "first " {
		t.Error("none opens in place of one that was closed")
	}
	if s := New(Config{MaxConnections: 10}); s.sockets.limit != 5 {
		t.Errorf("with 10 connections there may be %d WebSockets, want half", s.sockets.limit)
	}
}

// TestSocketDrain: a shutdown waits for a last word, not for a handler or a client
// that says none.
func TestSocketDrain(t *testing.T) {
	ended := make(chan string, 1)
	stuck := parrot(nil)
	stuck.Path, stuck.Socket = "/stuck", func(s *Socket, _ *http.Request) { <-s.Done() }
	for name, tc := range map[string]struct {
		path   string
		listen bool
	}{
		"last word":        {"/live", true},
		"deaf client":      {"/live", false},
		"deaf handler too": {"/stuck", false},
	} {
		t.Run(name, func(t *testing.T) {
			rg := start(t, Config{Loopback: true, Mount: []Route{parrot(ended), stuck}})
			c := rg.mustDial(tc.path, []string{"adp.live.v1"})
			told[event.Served](rg)
			heard := make(chan []string, 1)
			if tc.listen {
				go func() {
					var got []string
					for {
						_, text, err := c.Read(context.Background())
						if err != nil {
							heard <- append(got, fmt.Sprint(int(websocket.CloseStatus(err))))
							return
						}
						got = append(got, string(text))
					}
				}()
			}
			began := time.Now()
			if err := rg.server.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			// The machine may be busy. A write that waits for the client takes longer.
			if took := time.Since(began); took > writeTimeout {
				t.Errorf("the shutdown took %v", took)
			}
			if tc.listen {
				if got := <-heard; !slices.Equal(got, []string{"first ", "second", "bye", "1001"}) {
					t.Errorf("the client heard %q", got)
				}
			}
			if tc.path == "/live" {
				<-ended
			}
			if _, _, err := rg.dial(tc.path, []string{"adp.live.v1"}); err == nil {
				t.Error("a WebSocket opens after the shutdown")
			}
		})
	}
}

// TestSocketDrainAtOnce: when the last word is said, a shutdown waits for nothing more.
func TestSocketDrainAtOnce(t *testing.T) {
	ended := make(chan string, 1)
	inBubble(t, Config{Loopback: true, Mount: []Route{parrot(ended)}}, func(t *testing.T, s *Server, p pipes) {
		c := p.socket(t, "/live", "adp.live.v1")
		for _, want := range []string{"first ", "second"} {
			if got := next(t, c); got != want {
				t.Errorf("the client heard %q, want %q", got, want)
			}
		}
		go func() {
			for {
				if _, _, err := c.Read(context.Background()); err != nil {
					return
				}
			}
		}()
		began := time.Now()
		must(t, s.Shutdown(t.Context()))
		if took := time.Since(began); took > 0 {
			t.Errorf("the shutdown took %v", took)
		}
		if got := <-ended; got != "draining" {
			t.Errorf("the handler ended by %q", got)
		}
	})
}
