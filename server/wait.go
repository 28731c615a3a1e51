package server

import (
	"net/http"
	"strconv"
	"time"

	"async-data-processor/message"
)

// ReceiptPath, with the id of a submission behind it, is the resource that tells what
// became of the submission. It is part of the HTTP contract.
const ReceiptPath = "/submissions/"

// wait is a client that waits until its submission is done.
type wait struct {
	Waiting
	atMost time.Duration
	done   chan struct{}
}

// awaits begins to watch the submission if the client prefers to wait for it; nil if it
// does not, or if as many are watched as may be. It is called before the publish, so that
// nothing is missed.
func (c *call) awaits(id string) *wait {
	atMost, asked := PreferWait(c.Request().Header)
	waiter := c.server.cfg.Waiter
	if !asked || waiter == nil {
		return nil
	}
	w := &wait{atMost: atMost, done: make(chan struct{})}
	var ok bool
	if w.Waiting, ok = waiter.Await(id, clientOf(c.client, c.Request()), func(Progress) { close(w.done) }); !ok {
		return nil
	}
	return w
}

// until waits until the submission is done, the time is up, the client is gone or the
// server shuts down. It returns what is known then.
func (w *wait) until(c *call, shards []message.ShardCount) Progress {
	w.Accepted(shards)
	if w.atMost > 0 {
		// Else the time-outs of the server would end it. net/http sets them anew for the
		// next request. An error means that the connection is gone.
		control := http.NewResponseController(c.Response())
		_ = control.SetReadDeadline(time.Time{})
		_ = control.SetWriteDeadline(time.Now().Add(w.atMost + answerTimeout))
		select {
		case <-w.done:
		case <-time.After(w.atMost):
		case <-c.Request().Context().Done():
		case <-c.server.closing.Done():
		}
	}
	c.Response().Header().Set("Preference-Applied", "wait="+strconv.Itoa(int(w.atMost/time.Second)))
	return w.Progress()
}
