// Package server is the HTTP side of the pipeline. It promises that a
// submission is answered with 201 only after every one of its envelopes is
// durable at the broker, that a refused one (4xx) was not published at all,
// and that a client can tell the two from "unknown" (503), after which a retry
// with the same Idempotency-Key is safe.
//
// What a client may hold of this process is bounded: a body by MaxBodyBytes
// after decompression, all bodies together by Config.MaxInFlight, a request by
// its time-outs.
//
// The package never logs: what there is to tell goes to Config.Observe and
// Config.ErrorLog.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

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
)

// Submitter is the server's view of what is behind it. Submit may be called
// concurrently and must return soon after ctx ends.
type Submitter interface {
	// Submit returns the number of messages per shard once every envelope of
	// the submission is durable at the broker. An error that wraps
	// message.ErrNotPublished means that nothing of it was published; after any other
	// error the outcome may be unknown.
	//
	// Once it has returned, with or without an error, nothing refers to the
	// submission's messages: their memory is another's.
	Submit(ctx context.Context, s message.Submission) (shards map[int]int, err error)
}

// Check is one condition of being ready.
type Check struct {
	// Name is unique among the checks, for example "broker".
	Name string
	// Err is nil if the condition holds. Its text is shown to anybody who asks
	// /readyz?verbose, so credentials must be redacted already.
	Err error
}

// Access is what can be told about one finished request. It holds nothing of
// the body, the query or the credentials.
type Access struct {
	// RequestID is the X-Request-Id of the response.
	RequestID string
	// Peer is the address of the connection's other end, which may be a proxy.
	Peer string
	// Method and Path are the client's, shortened, the path escaped.
	Method, Path string
	// Status is the HTTP status of the response, whether or not it arrived.
	Status int
	// Submission is the id given to the body, empty if it was not read.
	Submission string
	// Accepted is the number of messages answered with 201.
	Accepted int
	// Bytes is the length of the body after decompression.
	Bytes int
	// Elapsed is the time from the end of the request's header to the answer.
	Elapsed time.Duration
	// Err is why the status is not 2xx, or why the answer could not be
	// written; nil otherwise.
	Err error
	// Stack is where the handler panicked; nil if it did not.
	Stack []byte
}

// Config is what a server needs. The zero value of a field means its default.
type Config struct {
	// Submitter takes the submissions; required by New, ignored by NewAdmin.
	Submitter Submitter
	// Tokens are the bearer tokens (RFC 6750) that may submit, any of them.
	// None means that everybody may; an empty string among them lets nobody in.
	Tokens []string
	// MaxInFlight bounds the bytes of bodies, as received and decompressed,
	// that are held from their arrival to their answer; beyond it requests are
	// answered with 429. Every request counts for at least 16 KiB. It is raised
	// to what one body of the largest size needs. Default DefaultMaxInFlight.
	MaxInFlight int64
	// PublishTimeout is the time that Submit gets. Default DefaultPublishTimeout.
	PublishTimeout time.Duration
	// Ready returns the checks behind /readyz. It is called for each request,
	// concurrently, and must not block. Default: no checks, always ready.
	Ready func() []Check
	// Observe is told about each request after its answer. It is called
	// concurrently, on the request's goroutine, and must not block. Default:
	// nobody is told.
	Observe func(Access)
	// Profiles serves /debug/pprof/ beside the health resources. Whoever can reach
	// it may look into the process, so it is not for other people's networks.
	Profiles bool
	// ErrorLog gets what net/http has to say about connections that never
	// became a request. Default: nobody gets it.
	ErrorLog *log.Logger
}

// Time-outs of a connection.
const (
	headerTimeout = 5 * time.Second
	idleTimeout   = 60 * time.Second
	// readTimeout bounds the arrival of a whole request, so that a client that
	// trickles its body cannot hold a connection and its share of MaxInFlight
	// for ever. The largest body needs 1.4 Mbit/s to make it.
	readTimeout = 60 * time.Second
	// answerTimeout is left for writing the answer of a request that used up
	// the time-outs of reading and publishing.
	answerTimeout = 10 * time.Second
	// bodyGrace is what an upload still under way gets when the server shuts
	// down: enough for one that moves, not for one that trickles.
	bodyGrace = 5 * time.Second
)

// maxHeaderBytes is a bit more than 1 MiB, so that a token of a megabyte is
// refused with the 401 that it deserves instead of net/http's bare 431.
const maxHeaderBytes = 1<<20 + 64<<10

// Server answers HTTP requests. Its methods may be called concurrently.
type Server struct {
	cfg    Config // set by New, read-only after
	tokens tokens // set by New, read-only after
	budget budget
	// inflaters has a slot for each body that may be decompressed at a time.
	inflaters chan struct{}

	http *http.Server
	// draining tells that new submissions are refused.
	draining atomic.Bool
	// closing ends when Shutdown begins.
	closing   context.Context
	shutDown  context.CancelFunc
	bodyGrace time.Duration
}

// New returns the server of the whole HTTP contract: POST /message, /livez,
// /readyz and /health.
func New(cfg Config) *Server {
	s, e := newServer(cfg)
	e.POST("/message", s.submit)
	return s
}

// NewAdmin returns a server of /livez, /readyz and /health only, for processes
// that take no submissions.
func NewAdmin(cfg Config) *Server {
	s, _ := newServer(cfg)
	return s
}

func newServer(cfg Config) (*Server, *echo.Echo) {
	if cfg.MaxInFlight == 0 {
		cfg.MaxInFlight = DefaultMaxInFlight
	}
	if cfg.PublishTimeout == 0 {
		cfg.PublishTimeout = DefaultPublishTimeout
	}
	if cfg.Ready == nil {
		cfg.Ready = func() []Check { return nil }
	}
	if cfg.Observe == nil {
		cfg.Observe = func(Access) {}
	}
	if cfg.ErrorLog == nil {
		// A nil logger would make net/http write to stderr by itself.
		cfg.ErrorLog = log.New(io.Discard, "", 0)
	}

	s := &Server{
		cfg:       cfg,
		tokens:    hashTokens(cfg.Tokens),
		budget:    budget{limit: max(cfg.MaxInFlight, MinInFlight)},
		inflaters: make(chan struct{}, runtime.GOMAXPROCS(0)),
		bodyGrace: bodyGrace,
	}
	s.cfg.Tokens = nil // the hashes are enough, and cannot leak
	s.closing, s.shutDown = context.WithCancel(context.Background())

	e := echo.New()
	e.Logger.SetOutput(io.Discard) // it would write to stdout
	e.Use(s.observe)
	s.routeHealth(e)
	if cfg.Profiles {
		s.routeProfiles(e)
	}
	s.http = &http.Server{
		Handler:           e,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      readTimeout + cfg.PublishTimeout + answerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          cfg.ErrorLog,
		// "OPTIONS *" is answered like everything else, with a request id.
		DisableGeneralOptionsHandler: true,
	}
	return s, e
}

// Serve answers requests on l, which it closes, until Shutdown is called; then
// it returns nil, before Shutdown does. Any other end is an error.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %v: %w", l.Addr(), err)
	}
	return nil
}

// Drain makes the server not ready and refuse new submissions. The listener
// stays open, so that load balancers see why; submissions under way go on.
func (s *Server) Drain() { s.draining.Store(true) }

// Shutdown drains the server, closes its listeners and idle connections, and
// returns nil once every request under way has been answered. Bodies that are
// still arriving get a few seconds, then 503. If ctx ends first, Shutdown
// closes the connections and returns an error that wraps the context's cause;
// what is being published is still bounded by the publish time-out.
//
// It may be called more than once, and before Serve.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Drain()
	s.shutDown()
	if err := s.http.Shutdown(ctx); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx) // it says whose deadline passed
		}
		return fmt.Errorf("shut down HTTP: %w", errors.Join(err, s.http.Close()))
	}
	return nil
}
