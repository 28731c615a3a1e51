// Package server is the HTTP side of the pipeline. It promises that
//
//   - a submission is answered with 201 only after every one of its envelopes is
//     durable at the broker;
//   - a refused one (4xx) was not published at all;
//   - a client can tell the two from "unknown" (503), after which a retry with the
//     same Idempotency-Key is safe.
//
// What a client may hold of this process is bounded: a body by MaxBodyBytes
// after decompression, all bodies together by Config.MaxInFlight, those of one
// client by Config.MaxInFlightPerClient, connections by Config.MaxConnections, a
// request by its time-outs, and its arrival by a least rate.
//
// The package never logs: it sends events.
package server

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"async-data-processor/event"
	"async-data-processor/message"
)

// MaxBodyBytes is the longest body of a submission, in bytes after
// decompression. It is part of the HTTP contract.
const MaxBodyBytes = 10 << 20

// Defaults of Config.
const (
	// DefaultPublishTimeout is how long a client waits for a silent broker.
	DefaultPublishTimeout = 5 * time.Second
	// DefaultMaxInFlight is 64 MiB: six of the largest bodies, or 4,096 small
	// ones. Decoding and publishing copy a body, so the memory of the process
	// may grow by about five times as much.
	DefaultMaxInFlight = 64 << 20
	// DefaultMaxSockets is how many WebSockets there may be.
	DefaultMaxSockets = 1024
	// DefaultIdleTimeout is more than the minute after which many load balancers
	// close an idle connection. The one that closes it first must be the one that
	// sends requests: else a request may meet a connection that was just closed.
	DefaultIdleTimeout = 75 * time.Second
)

// Submitter is the server's view of a publisher. Its methods may be called
// concurrently, and give an outcome soon after ctx ends.
type Submitter interface {
	// Submit returns the number of messages per shard, in the order of the shards,
	// once every envelope of the submission is durable at the broker. An error that wraps
	// message.ErrNotPublished means that nothing of it was published; after any
	// other error the outcome may be unknown.
	//
	// After the return, with or without an error, nothing refers to the
	// submission's messages: their memory is used again.
	Submit(ctx context.Context, s message.Submission) (shards []message.ShardCount, err error)
	// Start is Submit that does not wait. It calls done, once, with what Submit would
	// return: on a goroutine of its own, which must not be blocked, or before it returns.
	//
	// After the return of Start nothing refers to the submission's messages.
	Start(ctx context.Context, s message.Submission, done func(shards []message.ShardCount, err error))
}

// Check is one condition of being ready.
type Check struct {
	// Name is unique among the checks, for example "broker".
	Name string
	// Err is nil if the condition holds. /readyz?verbose shows its text to those who
	// may view, so it must hold no credentials.
	Err error
	// Aside tells that it is shown, and the process ready without it.
	Aside bool
}

// Route is a resource of another part of the process. The context of its requests
// ends when Shutdown begins.
type Route struct {
	Method string
	// Path is matched exactly, or as a prefix if it ends with "/*". It is without
	// Config.Base, and so is the URL that the handler gets. A Location that the handler
	// answers with, and that begins with "/", gets the base.
	Path    string
	Handler http.Handler
	// Socket, unless nil, gets the requests that open a WebSocket, with the
	// subprotocol Protocol, which the client has to offer. It may go on after Shutdown
	// began, to send a last word: see Socket. The WebSocket is closed when it returns.
	// The context of its request has ended.
	Socket   func(*Socket, *http.Request)
	Protocol string
	// Reads is the longest frame that a client may send, in bytes, which Socket reads by
	// Socket.Read; 0 if it may send none.
	Reads int
	// Bare lets in clients that offer no subprotocol at all, too. Their frames are binary,
	// both ways; those of the others are text.
	Bare bool
	// For says who may use it. But for Everybody, no page of another origin may.
	For Role
}

// Role says who may use a Route.
type Role uint8

const (
	// Everybody needs no token.
	Everybody Role = iota
	// Clients may submit, or view.
	Clients
	// Viewers may see the inside of the process.
	Viewers
	// Admins may change the process. Client tells the handler who it is.
	Admins
	// Runners may connect to be given work.
	Runners
)

// Config is what a server needs. The zero value of a field means its default.
type Config struct {
	// Submitter takes the submissions; required by New, ignored by NewAdmin.
	Submitter Submitter
	// Tokens are the bearer tokens (RFC 6750) that may submit, any of them, as for
	// ParseToken. Each name, or token without one, has its own Idempotency-Keys. None
	// means that every client may; what cannot be read never matches.
	Tokens []string
	// ViewTokens are the bearer tokens that may view: see why a check fails, and
	// routes for Viewers. Without any, a client may view if Loopback is set and there
	// are no Tokens.
	ViewTokens []string
	// AdminTokens are the bearer tokens that may do all: routes for Admins, and what
	// Tokens and ViewTokens may. Without any, a client may use routes for Admins if
	// Loopback is set and there are no other tokens.
	AdminTokens []string
	// RunnerTokens are the bearer tokens for routes for Runners, and for nothing else; those
	// of AdminTokens are for them, too. Without any, these routes are for Admins.
	RunnerTokens []string
	// Loopback tells that only programs on this machine reach the server.
	Loopback bool
	// Certificate makes the server speak TLS; nil for plain HTTP.
	Certificate *Certificate
	// Hosts are the names that requests may be sent to, beside localhost and IP
	// addresses, as for CheckHost. Requests to others are answered with 421.
	Hosts []string
	// Origins are the origins whose pages may post, as for CheckOrigin; other pages
	// in a browser may not.
	Origins []string
	// MaxInFlight bounds the bytes of bodies, as received and decompressed, that
	// are held from their arrival to their answer; beyond it requests are answered
	// with 429. Every request counts for at least 16 KiB. It is never less than
	// MinInFlight. Default DefaultMaxInFlight.
	MaxInFlight int64
	// MaxInFlightPerClient bounds the same bytes for one client: a token or, without
	// tokens, an address. It is never less than MinInFlight, so that one client can
	// always send the largest body. Default: half of MaxInFlight.
	MaxInFlightPerClient int64
	// MaxConnections bounds the open connections, and half of it those of one
	// address; 0 is no limit.
	MaxConnections int
	// Node returns the name of the process, which a WebSocket learns. Default: none.
	Node func() string
	// Dedupe is how long an id that was written is remembered, at most. A WebSocket
	// learns it. Default a day.
	Dedupe time.Duration
	// MaxSockets bounds the open WebSockets; half of MaxConnections does, too. A client has
	// half of them. Default DefaultMaxSockets.
	MaxSockets int
	// IdleTimeout is how long a connection may wait for its next request. Default
	// DefaultIdleTimeout.
	IdleTimeout time.Duration
	// Rules say what an entry has to have. Default message.Strict.
	Rules *message.Rules
	// Waiter knows which messages are in files; nil if a client cannot wait for that.
	Waiter Waiter
	// PublishTimeout is the time that Submit gets. Default DefaultPublishTimeout.
	PublishTimeout time.Duration
	// Ready returns the checks behind /readyz, the most important first: answers
	// and events keep the order. It is called for each request, concurrently, and
	// must not block. Default: no checks, always ready.
	Ready func() []Check
	// Base is the path below which everything is served, as for CheckBase. The health
	// resources are also at their own paths, as a probe asks the process, not its proxy.
	Base string
	// Mount is what is served beside the server's own resources.
	Mount []Route
	// Events is sent one event for each answered request: event.Submitted,
	// Refused, Probed or Served; and event.ConnectionFailed.
	Events event.Sink
}

// Time-outs of a connection.
const (
	headerTimeout = 5 * time.Second
	// readTimeout bounds the arrival of a whole request. So a client that trickles
	// its body cannot hold its connection and its share of MaxInFlight for ever.
	// The largest body needs 1.4 Mbit/s to arrive in time.
	readTimeout = 60 * time.Second
	// answerTimeout is left for writing the answer of a request that used up
	// the time-outs of reading and publishing.
	answerTimeout = 10 * time.Second
	// bodyGrace is what an upload still under way gets when the server shuts
	// down: enough for one that moves, not for one that trickles.
	bodyGrace = 5 * time.Second
	// answerGrace is how long a shutdown waits for clients to take their answers, when
	// no submission is under way any more. One that reads nothing would hold it up.
	answerGrace = 2 * time.Second
)

// maxHeaderBytes is a bit more than 1 MiB. So a token of a megabyte is refused
// with 401 and a problem, not with net/http's bare 431.
const maxHeaderBytes = 1<<20 + 64<<10

// Server answers HTTP requests. Its methods may be called concurrently.
type Server struct {
	// Intake pauses the submissions.
	Intake Intake

	// set by New, read-only after
	cfg Config
	*access
	resources string // those there are, for the answer to a wrong path

	budget  budget
	clients *clients // by what they have of the budget
	// inflaters has a slot for each body that may be decompressed at a time.
	inflaters chan struct{}
	sockets   sockets
	// refused has a slot for each WebSocket that is opened to tell why it is closed.
	refused chan struct{}

	http *http.Server
	// draining tells that new submissions are refused.
	draining atomic.Bool
	// closing ends when Shutdown begins.
	closing   context.Context
	shutDown  context.CancelFunc
	bodyGrace time.Duration
	// pingInterval is the time from the beginning of a WebSocket, or an answered ping, to
	// the next ping; pongTimeout is how long that may take.
	pingInterval, pongTimeout time.Duration

	mu sync.Mutex // guards what follows
	// arriving are the requests whose body arrives.
	arriving map[http.ResponseWriter]*arrival
	looks    *time.Timer // calls look; nil before the first body
	looking  bool        // it is set
	// patience ends when the requests that began before renewal have waited too
	// long for the Submitter.
	patience context.Context
	renewal  time.Time
}

// New returns the server of the whole HTTP contract: /message, by POST and by
// WebSocket, /livez, /readyz and /health, and what Config.Mount adds.
func New(cfg Config) *Server {
	s, e := newServer(cfg)
	e.POST(submitPath, s.submit)
	e.GET(submitPath, ingestSocket)
	s.resources = "POST " + submitPath + ", " + s.resources
	return s
}

// NewAdmin returns the same server without POST /message, for processes that
// take no submissions.
func NewAdmin(cfg Config) *Server {
	s, _ := newServer(cfg)
	return s
}

func newServer(cfg Config) (*Server, *echo.Echo) {
	cfg.MaxInFlight = cmp.Or(cfg.MaxInFlight, DefaultMaxInFlight)
	cfg.PublishTimeout = cmp.Or(cfg.PublishTimeout, DefaultPublishTimeout)
	cfg.IdleTimeout = cmp.Or(cfg.IdleTimeout, DefaultIdleTimeout)
	cfg.MaxSockets = cmp.Or(cfg.MaxSockets, DefaultMaxSockets)
	if cfg.MaxConnections > 0 {
		cfg.MaxSockets = min(cfg.MaxSockets, max(1, cfg.MaxConnections/2))
	}
	cfg.Dedupe = cmp.Or(cfg.Dedupe, 24*time.Hour)
	cfg.Rules = cmp.Or(cfg.Rules, message.Strict)
	if cfg.Node == nil {
		cfg.Node = func() string { return "" }
	}
	if cfg.Ready == nil {
		cfg.Ready = func() []Check { return nil }
	}

	s := &Server{
		cfg:       cfg,
		access:    newAccess(cfg),
		clients:   newClients(),
		inflaters: make(chan struct{}, runtime.GOMAXPROCS(0)),
		sockets:   sockets{limit: cfg.MaxSockets, of: make(map[string]int), open: make(map[*Socket]struct{}), none: make(chan struct{})},
		refused:   make(chan struct{}, maxRefused),
		bodyGrace: bodyGrace, pingInterval: pingInterval, pongTimeout: pongTimeout,
		arriving: make(map[http.ResponseWriter]*arrival),
	}
	s.budget.limit = max(cfg.MaxInFlight, MinInFlight)
	s.budget.share = max(cmp.Or(cfg.MaxInFlightPerClient, s.budget.limit/2), MinInFlight)
	s.cfg.Tokens, s.cfg.ViewTokens, s.cfg.AdminTokens, s.cfg.RunnerTokens = nil, nil, nil, nil // the hashes are enough, and cannot leak
	s.closing, s.shutDown = context.WithCancel(context.Background())

	e := echo.New()
	e.Logger.SetOutput(io.Discard) // it would write to stdout
	e.Use(s.observe)
	s.routeHealth(e)
	s.resources = "GET /livez, GET /readyz, GET /health"
	if len(s.sessions.holders) > 0 {
		routeSessions(e)
		s.resources += ", POST " + sessionPath
	}
	for _, r := range cfg.Mount {
		s.list(r)
		e.Add(r.Method, r.Path, s.mount(r))
	}
	s.http = &http.Server{
		Handler:           s.below(e),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      readTimeout + cfg.PublishTimeout + answerTimeout,
		IdleTimeout:       cfg.IdleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          log.New(connectionErrors(cfg.Events), "", 0),
		// "OPTIONS *" is answered like everything else, with a request id.
		DisableGeneralOptionsHandler: true,
	}
	if cfg.Certificate != nil {
		cfg.Certificate.secure(s.http)
	}
	return s, e
}

// list adds a route to those that the answer to a wrong path names. Those of one root,
// such as /api, are named once.
func (s *Server) list(r Route) {
	name := r.Method + " " + r.Path
	if root := strings.Index(r.Path[1:], "/"); root >= 0 {
		name = r.Path[:root+1] + "/…"
	}
	if r.Method != http.MethodHead && !strings.Contains(s.resources+",", ", "+name+",") { // HEAD goes with GET
		s.resources += ", " + name
	}
}

var errClosing = errors.New("the process is stopping")

// untilShutdown ends the context of a request when Shutdown begins. Shutdown
// would otherwise wait for a recording of half a minute, or a stream without end.
func (s *Server) untilShutdown(h http.Handler) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx, cancel := context.WithCancelCause(c.Request().Context())
		defer cancel(nil)
		defer context.AfterFunc(s.closing, func() { cancel(errClosing) })()
		h.ServeHTTP(c.Response(), c.Request().WithContext(ctx))
		return nil
	}
}

// connectionErrors makes events of the lines that net/http wants to log.
type connectionErrors event.Sink

func (c connectionErrors) Write(line []byte) (int, error) {
	event.Sink(c).Send(event.ConnectionFailed{Err: errors.New(string(bytes.TrimSpace(line)))})
	return len(line), nil
}

// Serve answers requests on l, which it closes, until Shutdown is called; then
// it returns nil, before Shutdown does. Any other end is an error.
func (s *Server) Serve(l net.Listener) error {
	serve := s.http.Serve
	if s.cfg.Certificate != nil {
		serve = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }
	}
	if err := serve(s.bound(l)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %v: %w", l.Addr(), err)
	}
	return nil
}
