package event

import "time"

// Request describes an answered HTTP request. It holds nothing of the body, the
// query or the credentials.
type Request struct {
	// ID is the X-Request-Id of the response.
	ID string
	// Peer is the address of the connection's other end, which may be a proxy.
	Peer string
	// Method and Path are the client's, shortened, the path escaped.
	Method, Path string
	// Route is the resource: a path of the server's own, as it was registered. It is
	// empty if there is none.
	Route string
	// Status is the HTTP status of the response, which may not have arrived. Of a frame
	// of a WebSocket, or one that was refused by closing it, it is that of a response.
	Status int
	// Bytes is the length of the body after decompression.
	Bytes int
	// Elapsed is the time from the end of the request's header to the answer.
	Elapsed time.Duration
	// Err is why the status is not 2xx, or why the answer could not be written;
	// nil otherwise.
	Err error
}

// Submitted tells that a submission was published and answered with 201.
type Submitted struct {
	Request
	// Submission is its id, and Accepted the number of its messages.
	Submission string
	Accepted   int
}

// Refused tells that a request was answered with an error.
type Refused struct {
	Request
	// Kind is the name of the problem that was the answer, for example "draining";
	// empty if the answer was not a problem.
	Kind string
	// Submission is the id given to the body, empty if it was not read.
	Submission string
	// Stack is where the handler panicked; nil if it did not.
	Stack []byte
}

// Served tells that another request was answered without an error, for example
// one for a profile.
type Served struct{ Request }

// SocketClosed tells that a WebSocket has ended. Request is the one that opened it, for
// which Served was told. Bytes and Frames are what the client sent, Elapsed is how
// long it was open. Err is why the connection broke, nil if it did not.
type SocketClosed struct {
	Request
	// Code is the close code (RFC 6455, section 7.4): the client's, or else the one that
	// was sent to it. It is 1006 if the connection broke. Reason goes with it.
	Code   int
	Reason string
	Frames int
}

// Probed tells that a health endpoint has answered.
type Probed struct {
	Request
	// Readiness tells that the question was whether the process is ready, not only
	// whether it answers. Err is why it is not.
	Readiness bool
}

// ConnectionFailed tells what net/http reports about a connection, most often one
// on which no request arrived.
type ConnectionFailed struct{ Err error }

func (Submitted) event()        {}
func (Refused) event()          {}
func (Served) event()           {}
func (SocketClosed) event()     {}
func (Probed) event()           {}
func (ConnectionFailed) event() {}
