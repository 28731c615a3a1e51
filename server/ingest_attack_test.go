package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"async-data-processor/event"
	"async-data-processor/message"
)

// TestIngestWindow: beyond the window the server reads no more, and closes nothing.
func TestIngestWindow(t *testing.T) {
	large := `{"ref":"%d","entries":[` + strings.TrimSuffix(strings.Repeat(`{"timestamp":"2019-10-12T08:10:54Z","x":"`+strings.Repeat("x", 250<<10)+`"},`, 4), ",") + `]}`
	for name, tc := range map[string]struct {
		frame      string
		send, most int
	}{
		"frames": {`{"ref":"%d","entries":` + entry + `}`, windowFrames + 100, windowFrames},
		"bytes":  {large, 14, 9}, // a bit less than 1 MiB each
	} {
		t.Run(name, func(t *testing.T) {
			rg := start(t, Config{PublishTimeout: time.Minute})
			release := make(chan struct{})
			rg.then = func(context.Context, message.Submission) error { <-release; return nil }
			c := rg.ingest("")
			go func() {
				for i := range tc.send {
					if c.Write(context.Background(), websocket.MessageText, fmt.Appendf(nil, tc.frame, i)) != nil {
						return
					}
				}
			}()
			for deadline := time.Now().Add(time.Minute); len(rg.submissions()) < tc.most && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(50 * time.Millisecond)
			rg.wantSubmitted(tc.most)
			close(release)
			for range tc.send {
				if r := c.next(); r.Type != "accepted" {
					t.Fatalf("got %+v", r)
				}
			}
		})
	}
}

// TestIngestDrain: a drain reads no more, sends the answers to what was read, says so,
// and is not held up.
func TestIngestDrain(t *testing.T) {
	rg := start(t, Config{})
	entered, release := rg.hold()
	c := rg.ingest("")
	c.send(framed("1"), framed("2"))
	<-entered
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- rg.server.Shutdown(context.Background()) }()
	<-rg.server.closing.Done()
	time.Sleep(50 * time.Millisecond)
	c.send(framed("3"))
	time.Sleep(50 * time.Millisecond)
	close(release)
	c.wantReplies("accepted 1", "accepted 2")
	if r := c.next(); r.Type != "drain" {
		t.Errorf("got %+v, want drain", r)
	}
	wantClose(t, c.Conn, closeGoingAway, "stopping")
	must(t, <-stopped)
	rg.wantSubmitted(2)
}

// TestIngestDrainUnderLoad: what is published in a drain is answered, on every WebSocket.
func TestIngestDrainUnderLoad(t *testing.T) {
	rg := start(t, Config{})
	rg.ignoreEvents()
	rg.then = func(context.Context, message.Submission) error { time.Sleep(time.Millisecond); return nil }
	var clients sync.WaitGroup
	var accepted atomic.Int64
	for range 8 {
		c := rg.ingest("")
		go func() {
			for i := 0; c.Write(context.Background(), websocket.MessageText, []byte(framed(fmt.Sprint(i)))) == nil; i++ {
				time.Sleep(50 * time.Microsecond)
			}
		}()
		clients.Go(func() {
			drained := false
			for {
				_, text, err := c.Read(context.Background())
				switch {
				case err != nil:
					if websocket.CloseStatus(err) != websocket.StatusGoingAway || !drained {
						t.Errorf("got %v, drained: %v", err, drained)
					}
					return
				case strings.Contains(string(text), `"accepted"`) && !drained:
					accepted.Add(1)
				case strings.Contains(string(text), `"drain"`):
					drained = true
				default:
					t.Errorf("got %s", text)
				}
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	began := time.Now()
	must(t, rg.server.Shutdown(t.Context()))
	clients.Wait()
	if took := time.Since(began); took > time.Minute { // on a machine that is busy
		t.Errorf("the drain took %v", took)
	}
	rg.wantSubmitted(int(accepted.Load()))
}

// TestIngestSlowFrames has clients whose frame does not arrive, and one whose frame is
// slow but fast enough.
func TestIngestSlowFrames(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		head, rest string
		pace       time.Duration
	}{
		"half a frame":   {head: masked(1, entry)[:20]},
		"half a header":  {head: masked(1, framed(strings.Repeat("r", 100)))[:12], rest: " ", pace: 100 * time.Millisecond},
		"empty fragment": {head: string([]byte{0x01, 0x80, 0, 0, 0, 0}), rest: string([]byte{0x00, 0x80, 0, 0, 0, 0}), pace: 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rg := start(t, Config{})
			c, r := rg.rawSocket()
			began := time.Now() // the server may have it before this goroutine goes on
			if _, err := io.WriteString(c, masked(1, entry)+tc.head); err != nil {
				t.Fatal(err)
			}
			if tc.rest != "" {
				go func() {
					for {
						if _, err := io.WriteString(c, tc.rest); err != nil {
							return
						}
						time.Sleep(tc.pace)
					}
				}()
			}
			if opcode, text := rawFrame(t, r); opcode != 1 || !strings.Contains(string(text), `"accepted"`) {
				t.Errorf("got %d %s", opcode, text)
			}
			wantRawClose(t, r, closeSlow)
			if took := time.Since(began); took < frameStall-time.Second || took > 3*frameStall {
				t.Errorf("closed after %v", took)
			}
			if used := rg.server.budget.used.Load(); used != 0 {
				t.Errorf("%d bytes of the budget are held", used)
			}
		})
	}
}

// TestIngestSlowReader has a client that sends and never reads: what is held for it is
// bounded, and then it is cut off.
func TestIngestSlowReader(t *testing.T) {
	t.Parallel()
	rg := start(t, Config{})
	c, _ := rg.rawSocket()
	bad := masked(1, "["+strings.TrimSuffix(strings.Repeat("1,", 100), ",")+"]") // a long answer
	var sent atomic.Int64
	go func() {
		for {
			if _, err := io.WriteString(c, bad); err != nil {
				return
			}
			sent.Add(1)
		}
	}()
	refused, most := 0, int64(0)
	for deadline := time.After(3 * writeTimeout); ; {
		select {
		case e := <-rg.events:
			if _, ok := e.(event.Refused); ok {
				refused++
			}
			most = max(most, rg.server.budget.used.Load())
			if e, ok := e.(event.SocketClosed); ok {
				if e.Code != closeBroken || e.Err == nil {
					t.Errorf("got %+v", e)
				}
				// What the system takes in its buffers was answered.
				if most > windowFrames*(20<<10) {
					t.Errorf("%d bytes of the budget were taken for %d frames", most, sent.Load())
				}
				return
			}
		case <-deadline:
			t.Fatalf("not cut off after %d frames, %d answered", sent.Load(), refused)
		}
	}
}

// TestIngestOverload: a frame for which there is no room waits, and does not for ever.
func TestIngestOverload(t *testing.T) {
	for name, counter := range map[string]func(*rig) *atomic.Int64{
		"budget": func(rg *rig) *atomic.Int64 { return &rg.server.budget.used },
		"client": func(rg *rig) *atomic.Int64 { return rg.server.clients.ofAddress("127.0.0.1:1") },
	} {
		t.Run(name, func(t *testing.T) {
			rg := start(t, Config{PublishTimeout: time.Minute})
			c := rg.ingest("")
			used := counter(rg)
			used.Add(rg.server.budget.limit)
			time.AfterFunc(100*time.Millisecond, func() { used.Add(-rg.server.budget.limit) })
			c.send(entry)
			c.wantReplies("accepted 1")

			rg = start(t, Config{PublishTimeout: 300 * time.Millisecond})
			c, used = rg.ingest(""), counter(rg)
			used.Add(rg.server.budget.limit)
			defer used.Add(-rg.server.budget.limit)
			c.send(entry)
			wantClose(t, c.Conn, closeOverloaded, "in flight")
		})
	}
	t.Run("answer", func(t *testing.T) {
		rg := start(t, Config{})
		c := rg.ingest("")
		free := int64(4 << 10)
		rg.server.budget.used.Add(rg.server.budget.limit - free)
		defer rg.server.budget.used.Add(free - rg.server.budget.limit)
		c.send("["+strings.TrimSuffix(strings.Repeat("1,", 100), ",")+"]", "[1]")
		got := c.wantReplies("failed 1", "rejected 2")["failed 1"]
		if got.Kind != "overloaded" || got.RetryMS != 1000 {
			t.Errorf("got %+v", got)
		}
	})
}

// TestIngestGone: what a client has sent before it went is published all the same, and
// told.
func TestIngestGone(t *testing.T) {
	rg := start(t, Config{})
	entered, release := rg.hold()
	c := rg.ingest("")
	told[event.Served](rg)
	c.send(entry)
	<-entered
	must(t, c.CloseNow())
	time.Sleep(20 * time.Millisecond)
	close(release)
	if e := told[event.Submitted](rg); e.Accepted != 1 {
		t.Errorf("got %+v", e)
	}
	if e := told[event.SocketClosed](rg); e.Frames != 1 {
		t.Errorf("got %+v", e)
	}
}

// TestIngestSessions: one session on two WebSockets at a time is one submission for each
// ref.
func TestIngestSessions(t *testing.T) {
	rg := start(t, Config{})
	ids := make([]map[string]string, 2)
	var clients sync.WaitGroup
	for i := range ids {
		c := rg.ingest("?session=" + session)
		ids[i] = make(map[string]string)
		clients.Go(func() {
			for n := range 100 {
				c.send(framed(fmt.Sprint(n)))
				r := c.next()
				ids[i][r.Ref] = r.ID
			}
		})
	}
	clients.Wait()
	if fmt.Sprint(ids[0]) != fmt.Sprint(ids[1]) || len(ids[0]) != 100 {
		t.Errorf("got the ids %v and %v, want the same", ids[0], ids[1])
	}
}

// TestIngestTLS: a browser opens a WebSocket over TLS by HTTP/1.1; it drains as others do.
func TestIngestTLS(t *testing.T) {
	rg := startTLS(t, Config{})
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: rg.client.Transport.(*http.Transport).TLSClientConfig.Clone()}}
	client.Transport.(*http.Transport).TLSClientConfig.NextProtos = []string{"http/1.1"}
	defer client.CloseIdleConnections()
	conn, _, err := websocket.Dial(t.Context(), "wss://"+rg.addr+"/message", &websocket.DialOptions{HTTPClient: client, Subprotocols: []string{ingestProtocol}})
	must(t, err)
	defer conn.CloseNow()
	c := &ingestClient{conn, t, next(t, conn)}
	c.send(framed("1"))
	c.wantReplies("accepted 1")
	go func() { _ = rg.server.Shutdown(context.Background()) }()
	if r := c.next(); r.Type != "drain" {
		t.Errorf("got %+v", r)
	}
	wantClose(t, conn, closeGoingAway, "")
}
