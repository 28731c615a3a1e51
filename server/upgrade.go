package server

import (
	"bufio"
	"fmt"
	"iter"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/labstack/echo/v4"
)

// maxRefused is how many WebSockets may be open only to tell a client why they are
// closed. Beyond that the answer is a problem.
const maxRefused = 64

// opensSocket tells whether a request wants to open a WebSocket (RFC 6455, section 4.1).
// HTTP/2 has no Upgrade, and a browser opens a connection of HTTP/1.1 for it.
func opensSocket(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ProtoMajor == 1 &&
		slices.ContainsFunc(r.Header["Upgrade"], func(v string) bool { return strings.EqualFold(v, "websocket") })
}

// protocols are the subprotocols that a client offers.
func protocols(h http.Header) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range h["Sec-Websocket-Protocol"] {
			for protocol := range strings.SplitSeq(line, ",") {
				if !yield(strings.TrimSpace(protocol)) {
					return
				}
			}
		}
	}
}

// orSocket is the handler of a route that has a Socket.
func (r Route) orSocket(other echo.HandlerFunc) echo.HandlerFunc {
	return func(ctx echo.Context) error {
		c := ctx.(*call)
		if !opensSocket(c.Request()) {
			return other(ctx)
		}
		socket, protocol := newSocket(c.server), r.Protocol
		if r.Bare && c.Request().Header["Sec-Websocket-Protocol"] == nil {
			protocol = ""
		}
		socket.limit, socket.binary = r.Reads, protocol == ""
		if err := c.upgrade(socket, protocol); err != nil {
			return err
		}
		go socket.serve(r.Socket, c.Request())
		return nil
	}
}

// upgrade opens a WebSocket with a subprotocol, or without one if it is empty, on the
// connection of a request. The caller has checked the client's token. An error is the
// answer.
func (c *call) upgrade(socket *Socket, protocol string) error {
	s, r := c.server, c.Request()
	if err := s.gate.opens(r); err != nil {
		return err
	}
	if protocol != "" && !offers(r.Header, protocol) {
		return &problem{kind: invalidHandshake, detail: "offer the subprotocol " + protocol}
	}
	client := clientOf(c.client, r)
	switch err := s.sockets.reserve(client); err {
	case nil:
	case errDraining:
		return &problem{kind: draining, detail: "the server is stopping, try again"}
	case errSocketShare:
		return &problem{kind: overloaded, detail: fmt.Sprintf("this client has %d WebSockets, half of those that there may be; close one", s.sockets.share()), cause: err}
	default:
		return &problem{kind: tooManySockets, detail: fmt.Sprintf("%d WebSockets are open, as many as there may be; try again", s.sockets.limit), cause: err}
	}
	if err := socket.open(c, protocol); err != nil {
		s.sockets.cancel(client)
		return err
	}
	socket.client, socket.request, socket.opened = client, c.request, time.Now()
	socket.request.Status = http.StatusSwitchingProtocols
	socket.mu.Lock()
	socket.pinger = time.AfterFunc(s.pingInterval, socket.ping)
	socket.mu.Unlock()
	s.sockets.keep(socket)
	return nil
}

func newSocket(of *Server) *Socket {
	return &Socket{server: of, draining: make(chan struct{}), done: make(chan struct{})}
}

func offers(h http.Header, wanted string) bool {
	for protocol := range protocols(h) {
		if strings.EqualFold(protocol, wanted) {
			return true
		}
	}
	return false
}

// open answers a handshake with 101, and has the WebSocket take the connection over;
// net/http has lifted the time-outs of the request then.
func (s *Socket) open(c *call, protocol string) error {
	w := &upgrading{ResponseWriter: c.Response(), wire: &s.wire}
	options := websocket.AcceptOptions{InsecureSkipVerify: true, OnPingReceived: s.pinged} // the gate has verified it
	if protocol != "" {
		options.Subprotocols = []string{protocol}
	}
	conn, err := websocket.Accept(w, c.Request(), &options)
	if err != nil {
		c.Response().Header().Del("Content-Type") // of the library's text
		return &problem{kind: invalidHandshake, detail: strings.TrimSpace(string(w.text)), cause: err}
	}
	s.conn = conn
	return nil
}

// upgrading is a response that may become a WebSocket. Why not it keeps, for a problem.
type upgrading struct {
	http.ResponseWriter
	wire   *wire
	failed bool
	text   []byte
}

// WriteHeader implements http.ResponseWriter.
func (w *upgrading) WriteHeader(status int) {
	if w.failed = status != http.StatusSwitchingProtocols; !w.failed {
		w.ResponseWriter.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (w *upgrading) Write(text []byte) (int, error) {
	w.text = append(w.text, text...)
	return len(text), nil
}

// Hijack implements http.Hijacker.
func (w *upgrading) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.wire.hijack(w.ResponseWriter)
}

// closeCode is how a WebSocket ends that is refused for the problem, 0 if it is not opened.
func (k kind) closeCode() int {
	switch k {
	case unauthorized, forbidden:
		return closeToken
	case crossOrigin, misdirected:
		return closeForeign
	case invalidHandshake:
		return closeNotProtocol
	}
	return 0
}

// closes tells a page why it gets no WebSocket, if that is what it wants: the browser
// does not show it the answer to a handshake that fails, only the code of a close.
func (c *call) closes(p *problem) bool {
	code := p.kind.closeCode()
	if code == 0 || !opensSocket(c.Request()) {
		return false
	}
	select {
	case c.server.refused <- struct{}{}:
	default:
		return false
	}
	s := newSocket(c.server)
	protocol := "" // the page wants to hear one of those that it offers
	for offered := range protocols(c.Request().Header) {
		if !strings.HasPrefix(offered, tokenProtocol) {
			protocol = offered
			break
		}
	}
	if s.open(c, protocol) != nil {
		<-c.server.refused
		return c.Response().Committed
	}
	c.status = p.kind.status
	go func() {
		defer func() { <-c.server.refused }()
		s.wire.lastReads(closeGrace)
		_ = s.conn.Close(websocket.StatusCode(code), clip(p.kind.name+": "+p.detail, maxReason-len("…")))
	}()
	return true
}
