package server

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"async-data-processor/event"
	"async-data-processor/message"
)

// kind is a kind of problem (RFC 9457). Clients decide by its type, which is
// problemTypes followed by the name, or by the status.
type kind struct {
	name   string
	title  string
	status int
	// retryAfter is sent as Retry-After, in seconds, if it is not 0.
	retryAfter int
}

const problemTypes = "urn:async-data-processor:problem:"

// Every kind of problem there is. The names are part of the HTTP contract.
var (
	// The body is not a valid submission; errors says where.
	invalidSubmission = kind{"invalid-submission", "The submission is invalid", http.StatusBadRequest, 0}
	// The body broke off, is badly framed, or cannot be decompressed.
	unreadableBody = kind{"unreadable-body", "The body cannot be read", http.StatusBadRequest, 0}
	// The Idempotency-Key is empty, too long, not visible ASCII, or sent twice.
	invalidKey = kind{"invalid-idempotency-key", "The Idempotency-Key is invalid", http.StatusBadRequest, 0}
	// A bearer token is missing or wrong.
	unauthorized = kind{"unauthorized", "A valid bearer token is required", http.StatusUnauthorized, 0}
	// The token is one of those there are, and may not do this.
	forbidden = kind{"forbidden", "The token may not do this", http.StatusForbidden, 0}
	// A page of another origin sent it, which may not.
	crossOrigin = kind{"cross-origin", "Pages of other origins may not do this", http.StatusForbidden, 0}
	// The Host is no name of this process.
	misdirected = kind{"misdirected-request", "The host is not served here", http.StatusMisdirectedRequest, 0}
	// There is nothing at this path.
	notFound = kind{"not-found", "There is no such resource", http.StatusNotFound, 0}
	// There is something at this path, but not for this method; see Allow.
	methodNotAllowed = kind{"method-not-allowed", "The resource has no such method", http.StatusMethodNotAllowed, 0}
	// The request took too long to arrive.
	bodyTimeout = kind{"body-timeout", "The request arrived too slowly", http.StatusRequestTimeout, 0}
	// The body, the number of entries or one of them is over its limit.
	tooLarge = kind{"too-large", "The submission is too large", http.StatusRequestEntityTooLarge, 0}
	// The Content-Type is none of JSON or lines of it; see Accept-Post.
	unsupportedMediaType = kind{"unsupported-media-type", "The media type is not supported", http.StatusUnsupportedMediaType, 0}
	// The Content-Encoding is not gzip, zstd or none; see Accept-Encoding.
	unsupportedEncoding = kind{"unsupported-content-encoding", "The content encoding is not supported", http.StatusUnsupportedMediaType, 0}
	// The request should open a WebSocket, and cannot.
	invalidHandshake = kind{"invalid-handshake", "The WebSocket cannot be opened", http.StatusBadRequest, 0}
	// This process holds too many bytes of other requests now.
	overloaded = kind{"overloaded", "Too much is in flight", http.StatusTooManyRequests, 1}
	// The address has sent too many wrong tokens.
	tooManyTries = kind{"too-many-tries", "Too many wrong tokens", http.StatusTooManyRequests, int(triesInterval / time.Second)}
	// A bug. The outcome may be unknown.
	internalError = kind{"internal-error", "The server made a mistake", http.StatusInternalServerError, 0}
	// The broker is down or refuses, or the output's disk is full; certainly
	// nothing was published.
	notPublished = kind{"not-published", "Nothing was published", http.StatusServiceUnavailable, 2}
	// The broker did not confirm everything in time; all, some or nothing of
	// the submission may be published.
	outcomeUnknown = kind{"outcome-unknown", "The outcome is unknown", http.StatusServiceUnavailable, 2}
	// As many WebSockets are open as there may be.
	tooManySockets = kind{"too-many-sockets", "Too many WebSockets are open", http.StatusServiceUnavailable, 2}
	// The process is stopping, so the client needs another one. Nothing was
	// published.
	draining = kind{"draining", "The server is stopping", http.StatusServiceUnavailable, 2}
	// An operator has paused the intake of all servers. Nothing was published.
	intakePaused = kind{"paused", "The intake is paused", http.StatusServiceUnavailable, 30}
)

// problem is a refusal: an error that knows its answer.
type problem struct {
	kind kind
	// detail says what was wrong and what to do; the client reads it.
	detail string
	// entries lists what is wrong with the body, for a 400 about it.
	entries []message.EntryError
	// cause is for the event, and never sent to the client.
	cause error
	// stack is where a handler panicked.
	stack []byte
}

func (p *problem) Error() string {
	if p.cause == nil {
		return p.kind.name + ": " + p.detail
	}
	return fmt.Sprintf("%s: %v", p.kind.name, p.cause)
}

func (p *problem) Unwrap() error { return p.cause }

// wholeBody is the list of errors for a body that has no entries to blame.
func wholeBody(detail string) []message.EntryError {
	return []message.EntryError{{Index: -1, Detail: detail}}
}

// call is one request on its way through the handlers: echo's context, and what
// the event about it will tell.
type call struct {
	echo.Context
	server     *Server
	request    event.Request
	kind       string    // of the problem that was the answer, if one was
	submission string    // its id, empty if the body was not read
	accepted   int       // how many messages were published
	location   [1]string // of the answer to a submission
	client     string    // its scope of keys, once its token is known
	stack      []byte    // where the handler panicked
	// probe tells that a health resource answered, readiness that it was asked
	// whether the process is ready.
	probe, readiness bool
	// status is that of the problem, if a WebSocket was closed to tell it.
	status int
	// unread tells that the answer left a part of the body unread.
	unread bool
}

// event returns what to tell about the answered request.
func (c *call) event() event.Event {
	switch {
	case c.probe:
		return event.Probed{Request: c.request, Readiness: c.readiness}
	case c.stack != nil || c.request.Status >= http.StatusBadRequest:
		return event.Refused{Request: c.request, Kind: c.kind, Submission: c.submission, Stack: c.stack}
	case c.accepted > 0:
		return event.Submitted{Request: c.request, Submission: c.submission, Accepted: c.accepted}
	default:
		return event.Served{Request: c.request}
	}
}

// observe is the outermost middleware: it gives the request its id, answers for
// a handler that failed or panicked, and sends the event.
func (s *Server) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(ctx echo.Context) error {
		start := time.Now()
		r, w := ctx.Request(), ctx.Response()
		c := &call{Context: ctx, server: s, request: event.Request{
			ID:     requestID(r.Header),
			Peer:   r.RemoteAddr,
			Method: clip(r.Method, 16),
			Path:   clip(r.URL.EscapedPath(), 128),
			Route:  ctx.Path(),
		}}
		w.Header().Set("X-Request-Id", c.request.ID)
		if s.draining.Load() {
			// The next request needs a connection to another process.
			w.Header().Set("Connection", "close")
		}
		answered, err := s.gate.admit(c)
		if err == nil && !answered {
			err = guard(c, next)
		}
		if err != nil {
			c.request.Err = err
			c.fail(err)
		}
		c.request.Status = cmp.Or(c.status, w.Status)
		c.request.Elapsed = time.Since(start)
		s.cfg.Events.Send(c.event())
		if c.unread {
			c.discard()
		}
		return nil
	}
}

// guard turns a panic of the handler into an error, so that it costs one
// request: left to net/http, it would cut the connection without an answer.
func guard(c *call, next echo.HandlerFunc) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &problem{
				kind:   internalError,
				detail: "a bug, recorded under this request_id; the outcome may be unknown, a retry with the same Idempotency-Key is safe",
				cause:  fmt.Errorf("panic: %v", v),
				stack:  debug.Stack(),
			}
		}
	}()
	return next(c)
}

// fail answers with the problem that err is, unless the answer has begun.
func (c *call) fail(err error) {
	p, ok := errors.AsType[*problem](err)
	if !ok {
		p = c.routing(err)
	}
	c.stack, c.kind = p.stack, p.kind.name
	if c.Response().Committed || c.closes(p) {
		return
	}
	c.unread = c.leaves(err)
	if p.kind.retryAfter > 0 {
		c.Response().Header().Set("Retry-After", strconv.Itoa(p.kind.retryAfter))
	}
	text, err := p.marshal(c.request.ID)
	if err == nil {
		text = append(text, '\n') // for terminals
		// Else it would be sent in chunks if it is sent before the handler ends.
		c.Response().Header().Set("Content-Length", strconv.Itoa(len(text)))
		err = c.Blob(p.kind.status, "application/problem+json", text)
	}
	if err != nil {
		c.request.Err = errors.Join(c.request.Err, fmt.Errorf("write the answer: %w", err))
	}
}

// marshal returns the problem as RFC 9457 has it.
func (p *problem) marshal(request string) ([]byte, error) {
	return json.Marshal(struct {
		Type      string               `json:"type"`
		Title     string               `json:"title"`
		Status    int                  `json:"status"`
		Detail    string               `json:"detail"`
		RequestID string               `json:"request_id"`
		Errors    []message.EntryError `json:"errors,omitempty"`
	}{problemTypes + p.kind.name, p.kind.title, p.kind.status, p.detail, request, p.entries})
}

// routing returns the problem for an error of echo's router, which sets Allow.
func (c *call) routing(err error) *problem {
	switch {
	case errors.Is(err, echo.ErrNotFound):
		c.request.Route = "" // echo names the one that is most like it
		return &problem{kind: notFound, detail: "there are " + c.server.listed() + "; paths are matched exactly, without a slash at the end"}
	case errors.Is(err, echo.ErrMethodNotAllowed):
		return &problem{kind: methodNotAllowed, detail: "the methods of this path are " + c.Response().Header().Get("Allow")}
	default:
		return &problem{kind: internalError, detail: "a bug, recorded under this request_id"}
	}
}
