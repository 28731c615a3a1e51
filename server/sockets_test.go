package server

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"async-data-processor/message"
)

// rawSocket opens a WebSocket whose bytes the test writes and reads.
func (rg *rig) rawSocket() (net.Conn, *bufio.Reader) {
	rg.t.Helper()
	c := rg.conn("GET /message HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: adp.ingest.v1\r\n\r\n")
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	must(rg.t, err)
	if res.StatusCode != http.StatusSwitchingProtocols {
		rg.t.Fatalf("got %d", res.StatusCode)
	}
	rawFrame(rg.t, r) // the handshake
	return c, r
}

// rawFrame reads a frame of the server.
func rawFrame(t testing.TB, r io.Reader) (opcode byte, payload []byte) {
	t.Helper()
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatal(err)
	}
	n := int(head[1])
	if n == 126 {
		long := make([]byte, 2)
		if _, err := io.ReadFull(r, long); err != nil {
			t.Fatal(err)
		}
		n = int(binary.BigEndian.Uint16(long))
	}
	payload = make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		t.Fatal(err)
	}
	return head[0] & 0xf, payload
}

// wantRawClose reads up to the close frame, and checks its code.
func wantRawClose(t testing.TB, r io.Reader, code int) {
	t.Helper()
	for {
		opcode, payload := rawFrame(t, r)
		if opcode != 8 {
			continue
		}
		if got := int(binary.BigEndian.Uint16(payload)); got != code {
			t.Errorf("closed with %d %s, want %d", got, payload[2:], code)
		}
		return
	}
}

// masked is a frame of a client, with a masking key that changes nothing.
func masked(opcode byte, payload string) string {
	head := []byte{0x80 | opcode, 0x80}
	if len(payload) < 126 {
		head[1] |= byte(len(payload))
	} else {
		head[1] |= 127
		head = binary.BigEndian.AppendUint64(head, uint64(len(payload)))
	}
	return string(append(head, 0, 0, 0, 0)) + payload
}

func TestSocketPings(t *testing.T) {
	short := func(s *Server) { s.pingInterval, s.pongTimeout = 50*time.Millisecond, 500*time.Millisecond }
	t.Run("no pong", func(t *testing.T) {
		rg := start(t, Config{}, short)
		_, r := rg.rawSocket()
		if opcode, _ := rawFrame(t, r); opcode != 9 { // it is not answered
			t.Errorf("got the opcode %d, want a ping", opcode)
		}
		wantRawClose(t, r, closeSlow)
	})
	t.Run("pongs", func(t *testing.T) {
		inBubble(t, Config{}, func(t *testing.T, _ *Server, p pipes) {
			c := p.socket(t, "/message", ingestProtocol)
			next(t, c) // the handshake
			go func() {
				time.Sleep(time.Hour)
				_ = c.Write(context.Background(), websocket.MessageText, []byte(entry))
			}()
			_, text, err := c.Read(context.Background()) // it reads meanwhile, and so sends pongs
			if err != nil || !strings.Contains(string(text), `"accepted"`) {
				t.Errorf("got %s, %v", text, err)
			}
		})
	})
	t.Run("no room", func(t *testing.T) { // for a frame, behind which its pongs wait
		rg := start(t, Config{PublishTimeout: time.Minute}, short, func(s *Server) { s.pongTimeout = 2 * time.Second })
		release := make(chan struct{})
		rg.then = func(context.Context, message.Submission) error { <-release; return nil }
		c := rg.ingest("")
		for range windowFrames + 1 {
			c.send(entry)
		}
		time.AfterFunc(4*time.Second, func() { close(release) })
		for range windowFrames + 1 {
			if r := c.next(); r.Type != "accepted" {
				t.Fatalf("got %+v", r)
			}
		}
	})
	t.Run("flood", func(t *testing.T) {
		rg := start(t, Config{})
		c, r := rg.rawSocket()
		go func() {
			for {
				if _, err := io.WriteString(c, masked(9, "x")); err != nil {
					return
				}
			}
		}()
		wantRawClose(t, r, closeFlood)
	})
}

// TestSocketsMany: one client has 512, then it gets 429. With another one's 1,024 are open,
// and all get 503; then 1,000 come and go.
func TestSocketsMany(t *testing.T) {
	rg := start(t, Config{Tokens: []string{"a", "b"}})
	rg.ignoreEvents()
	var open []*websocket.Conn
	for _, tt := range []struct {
		token    string
		opens    int
		refusals int // the status of the others
	}{
		{"a", DefaultMaxSockets / 2, http.StatusTooManyRequests},
		{"b", DefaultMaxSockets / 2, http.StatusServiceUnavailable},
		{"a", 0, http.StatusServiceUnavailable},
	} {
		for i := range tt.opens + 5 {
			c, res, err := rg.dial("/message", []string{ingestProtocol}, "Authorization", "Bearer "+tt.token)
			switch {
			case err == nil && i < tt.opens:
				open = append(open, c)
			case res == nil || i < tt.opens || res.StatusCode != tt.refusals || res.Header.Get("Retry-After") == "":
				t.Fatalf("WebSocket %d of client %s: %v, %+v", i, tt.token, err, res)
			}
		}
	}
	for _, c := range open {
		_ = c.CloseNow()
	}
	rg.wantNoSockets()
	before := runtime.NumGoroutine()
	began := time.Now()
	for i := range 1000 {
		c, _, err := rg.dial("/message", []string{ingestProtocol}, "Authorization", "Bearer a")
		must(t, err)
		if i%2 == 0 {
			must(t, c.Write(t.Context(), websocket.MessageText, []byte(entry)))
		}
		_ = c.CloseNow()
	}
	t.Logf("1,000 came and went in %v", time.Since(began))
	rg.wantNoSockets()
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > before+20; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines are left, there were %d", runtime.NumGoroutine(), before)
		}
	}
}

// wantNoSockets waits until none is open.
func (rg *rig) wantNoSockets() {
	rg.t.Helper()
	o := &rg.server.sockets
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		o.mu.Lock()
		n := len(o.open) + o.pending + len(o.of)
		o.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			rg.t.Fatalf("%d WebSockets are open", n)
		}
	}
}

// BenchmarkIdleSockets tells the memory of a WebSocket that waits for a frame, both ends
// together: 10,000 of them, or as many as there may be files.
func BenchmarkIdleSockets(b *testing.B) {
	var files syscall.Rlimit
	must(b, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files))
	n := min(10_000, int(files.Cur-100)/2)
	for b.Loop() {
		rg := start(b, Config{MaxSockets: 2 * n})
		rg.ignoreEvents()
		before := memoryInUse()
		open := make([]net.Conn, n)
		for i := range open {
			open[i], _ = rg.rawSocket()
		}
		b.ReportMetric((memoryInUse()-before)/float64(n), "B/socket")
		b.ReportMetric(float64(n), "sockets")
		for _, c := range open {
			_ = c.Close()
		}
		rg.wantNoSockets()
	}
}

// memoryInUse is what the heap and the stacks take.
func memoryInUse() float64 {
	for range 3 { // what a finalizer or a pool still holds
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse + m.StackInuse)
}

// TestSocketWriteTimesOut: a client that does not read costs the handler no more
// than the write time-out, and memory for one write.
func TestSocketWriteTimesOut(t *testing.T) {
	client, server := net.Pipe() // without a buffer
	defer client.Close()
	w := &wire{Conn: deadlines{server, 50 * time.Millisecond}}
	w.idle.L = &w.mu
	began := time.Now()
	w.cork()
	_, err := w.Write(make([]byte, 3*writeChunk))
	must(t, err)
	if err := w.uncork(); err == nil || time.Since(began) > 5*time.Second {
		t.Errorf("got %v after %v, want a time-out", err, time.Since(began))
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("it can be written to after that")
	}
}

// deadlines is a connection with deadlines that are earlier.
type deadlines struct {
	net.Conn
	most time.Duration
}

func (d deadlines) SetWriteDeadline(t time.Time) error {
	if until := time.Until(t); until < writeTimeout/2 || until > writeTimeout {
		return fmt.Errorf("the deadline is in %v", until)
	}
	return d.Conn.SetWriteDeadline(time.Now().Add(d.most))
}
