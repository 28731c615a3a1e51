package server

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"async-data-processor/event"
	"async-data-processor/message"
)

// waiter is a Waiter that tells when the test has it tell.
type waiter struct {
	mu    sync.Mutex
	most  int
	waits map[string]*waiting
	calls []string
	asked map[string]bool // clients that a submission was watched for
}

type waiting struct {
	of       *waiter
	id       string
	told     func(Progress)
	accepted []message.ShardCount
	ended    bool
}

func newWaiter(most int) *waiter {
	return &waiter{most: most, waits: make(map[string]*waiting), asked: make(map[string]bool)}
}

func (w *waiter) Await(id, client string, told func(Progress)) (Waiting, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[client] = true
	w.calls = append(w.calls, "await "+id)
	if len(w.waits) >= w.most {
		return nil, false
	}
	w.waits[id] = &waiting{of: w, id: id, told: told}
	return w.waits[id], true
}

func (w *waiting) Accepted(shards []message.ShardCount) {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	w.accepted = shards
}

func (w *waiting) Progress() Progress { return Progress{} }

func (w *waiting) End() {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	w.ended = true
	delete(w.of.waits, w.id)
}

// tell tells a submission's end, from another goroutine.
func (w *waiter) tell(t testing.TB, id string, p Progress) {
	t.Helper()
	w.mu.Lock()
	wait := w.waits[id]
	w.mu.Unlock()
	if wait == nil {
		t.Fatalf("nothing waits for %s", id)
	}
	done := make(chan bool)
	go func() {
		wait.told(p)
		close(done)
	}()
	<-done
}

func (w *waiter) wantWaits(t testing.TB, n int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		w.mu.Lock()
		got := len(w.waits)
		w.mu.Unlock()
		if got == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d submissions are waited for, want %d", got, n)
		}
	}
}

func TestIngestWritten(t *testing.T) {
	w := newWaiter(10)
	rg := start(t, Config{Waiter: w})
	c := rg.ingest("?want=written")
	if !strings.Contains(c.handshake, `"waits":1024}`) {
		t.Errorf("got the handshake %s", c.handshake)
	}
	c.send(framed("1"), framed("2"))
	got := c.wantReplies("accepted 1", "accepted 2")
	w.tell(t, got["accepted 2"].ID, Progress{Written: 1, Done: true})
	if r := c.next(); r.Type != "written" || r.Ref != "2" || r.ID != got["accepted 2"].ID {
		t.Errorf("got %+v", r)
	}
	w.tell(t, got["accepted 1"].ID, Progress{Written: 3, Dead: 2, Done: true})
	if r := c.next(); r.Type != "dead" || r.Ref != "1" || r.ID != got["accepted 1"].ID || r.Dead != 2 {
		t.Errorf("got %+v", r)
	}
	w.wantWaits(t, 0)
	c.send(framed("2")) // its answers have come
	c.wantReplies("accepted 2")
	w.wantWaits(t, 1)
	must(t, c.Close(websocket.StatusNormalClosure, ""))
	w.wantWaits(t, 0) // a client that is gone waits for nothing
}

// TestIngestWrittenFirst: what is written before its publisher knows has its answers in
// order, and the wait begins before the publish.
func TestIngestWrittenFirst(t *testing.T) {
	w := newWaiter(10)
	rg := start(t, Config{Waiter: w})
	rg.then = func(_ context.Context, s message.Submission) error {
		w.tell(t, s.ID, Progress{Written: 1, Done: true})
		return nil
	}
	c := rg.ingest("?want=written")
	for i := range 20 {
		c.send(framed(fmt.Sprint(i)))
		if first, second := c.next(), c.next(); first.Type != "accepted" || second.Type != "written" || second.Ref != fmt.Sprint(i) {
			t.Fatalf("got %+v and %+v", first, second)
		}
	}
	w.wantWaits(t, 0)
}

// TestIngestUnawaited: a frame that cannot be waited for is accepted, and says so.
func TestIngestUnawaited(t *testing.T) {
	for name, tc := range map[string]struct{ most, send int }{
		"process": {1, 2}, "WebSocket": {2 * maxWaits, maxWaits + 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWaiter(tc.most)
			rg := start(t, Config{Waiter: w})
			rg.ignoreEvents()
			c := rg.ingest("?want=written")
			var last reply
			for i := range tc.send {
				c.send(framed(fmt.Sprint(i)))
				if last.Want != "" {
					t.Fatalf("got %+v", last)
				}
				last = c.next()
			}
			if last.Type != "accepted" || last.Want != "unavailable" {
				t.Errorf("got %+v", last)
			}
			c.send(framed(last.Ref)) // nothing else will come for it
			if r := c.next(); r.Want != "unavailable" {
				t.Errorf("got %+v", r)
			}
			w.wantWaits(t, tc.send-1)
			must(t, rg.server.Shutdown(t.Context())) // it does not wait for second answers
			w.wantWaits(t, 0)
		})
	}
}

// TestIngestNotAccepted: what failed is not waited for, and what is rejected never was.
func TestIngestNotAccepted(t *testing.T) {
	w := newWaiter(10)
	rg := start(t, Config{Waiter: w})
	c := rg.ingest("?want=written")
	told[event.Served](rg)
	c.send(`[1]`)
	c.wantReplies("rejected 1")
	if len(w.calls) > 0 {
		t.Errorf("got the calls %q", w.calls)
	}
	rg.then = func(context.Context, message.Submission) error { return message.ErrNotPublished }
	c.send(framed("1"))
	c.wantReplies("failed 1")
	w.wantWaits(t, 0)
	c.send(framed("1"))
	c.wantReplies("failed 1")
}

// TestWaitsOfClients: each wait is one of the client's, whatever it uses to submit.
func TestWaitsOfClients(t *testing.T) {
	for name, tt := range map[string]struct {
		cfg    Config
		header []string
		want   string
	}{
		"token":   {Config{Tokens: []string{"ann:a"}}, []string{"Authorization", "Bearer a"}, "ann"},
		"address": {Config{}, nil, "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWaiter(10)
			tt.cfg.Waiter = w
			rg := start(t, tt.cfg)
			want201(t, rg.post(entry, append([]string{"Prefer", "wait=0"}, tt.header...)...), 1)
			c := rg.ingest("?want=written", tt.header...)
			c.send(framed("1"))
			c.wantReplies("accepted 1")
			if len(w.calls) != 2 || len(w.asked) != 1 || !w.asked[tt.want] {
				t.Errorf("waits of %v, want two of %s", w.asked, tt.want)
			}
		})
	}
}
