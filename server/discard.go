package server

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

const (
	// discardLimit is how much of a refused body is read on, in bytes. Many clients
	// send all of it before they look at the answer; if the connection was closed
	// before, they would see only that.
	discardLimit = 32 << 20
	// discardTimeout is how long that may take. A shutdown waits for less.
	discardTimeout = bodyGrace
	// discardFirst is how much is read before the answer, so that the connection can
	// go on to be used. It is as much as net/http would read.
	discardFirst = 256 << 10
)

// leaves prepares for the answer err, which leaves a part of the body unread. It
// returns true if the body has to be read on after the answer. Nothing is kept of
// what is read, so it counts for no budget.
func (c *call) leaves(err error) bool {
	r := c.Request()
	if r.Body == nil || r.Body == http.NoBody || r.ProtoMajor != 1 {
		return false // HTTP/2 ends the stream alone
	}
	if r.Header.Get("Expect") != "" || errors.Is(err, os.ErrDeadlineExceeded) {
		return false // the client waits before it sends, or its time was over
	}
	// net/http sets it anew for the next request. An error means that the connection
	// is gone.
	_ = http.NewResponseController(c.Response()).SetReadDeadline(time.Now().Add(discardTimeout))
	if r.ContentLength <= discardFirst {
		if _, err := io.CopyN(io.Discard, r.Body, discardFirst); err == io.EOF {
			return false
		}
	}
	c.Response().Header().Set("Connection", "close")
	return true
}

// discard sends the answer and reads on.
func (c *call) discard() {
	if http.NewResponseController(c.Response()).Flush() == nil {
		_, _ = io.CopyN(io.Discard, c.Request().Body, discardLimit) // as far as the client sends
	}
}
