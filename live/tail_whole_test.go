package live

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	tailclient "async-data-processor/client"
	"async-data-processor/dashboard/openapitest"
	"async-data-processor/httpstream/streamtest"
)

// cutConn is a connection that breaks after so many bytes were read.
type cutConn struct {
	net.Conn
	left int
}

func (c *cutConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		_ = c.Close()
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// TestTailResumedWhole: a client of ours sees each message once and in the order of its
// shard, however often and wherever its connection breaks.
func TestTailResumedWhole(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			r := newTailRig(t)
			tail, _ := r.node("n")
			p := make(streamtest.Pipes)
			s := &http.Server{Handler: openapitest.Handler(t, NewTailHandler(tail, byHost))}
			go func() { _ = s.Serve(p) }()
			defer s.Close()
			rng, cuts := rand.New(rand.NewPCG(seed, 0)), rand.New(rand.NewPCG(seed, 1))
			transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				p <- theirs
				return &cutConn{ours, 500 + cuts.IntN(20_000)}, nil
			}}
			defer transport.CloseIdleConnections()

			const messages = 2000
			enough := errors.New("enough")
			ctx, end := context.WithCancelCause(t.Context())
			var next [2]int
			seen, lost := 0, 0
			go func() {
				for r.passed[0]+r.passed[1] < messages {
					time.Sleep(10 * time.Millisecond)
					if tail.Watched(StageWritten) { // before there is a viewer, there is none to see it
						r.pass(tail, rng.IntN(2), 1, "")
					}
				}
				time.Sleep(time.Minute)
				end(enough)
			}()
			err := tailclient.Listen(ctx, tailclient.ListenConfig{
				URL: "http://tail", HTTP: &http.Client{Transport: transport}, Query: url.Values{"rate": {"0"}},
				Frame: func(f tailclient.Frame) error {
					switch f.Type {
					case "message":
						var shard, n int
						at := bytes.Index(f.JSON, []byte(`"id":"s`))
						if _, err := fmt.Sscanf(string(f.JSON[at:]), `"id":"s%d.%d"`, &shard, &n); err != nil || n != next[shard] {
							t.Errorf("seed %d: %s, want number %d", seed, f.JSON, next[shard])
						}
						next[shard] = n + 1
						seen++
					case "gap", "reset":
						t.Errorf("seed %d: %s", seed, f.JSON)
					}
					return nil
				},
				Lost: func(error, time.Duration) { lost++ },
			})
			if !errors.Is(err, enough) || seen != messages || lost < 5 {
				t.Errorf("seed %d: %v: %d messages seen of %d, over %d lost connections", seed, err, seen, messages, lost)
			}
		})
	}
}

// TestTailFull: there are 64 viewers and no more, by whatever way they come; one that goes
// makes room.
func TestTailFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTailRig(t)
		tail, _ := r.node("n")
		h := NewTailHandler(tail, byHost)
		var sockets []*fakeSocket
		look := func() *fakeSocket {
			s := newFakeSocket()
			go h.ServeSocket(s, httptest.NewRequest("GET", "/live", nil))
			synctest.Wait()
			sockets = append(sockets, s)
			return s
		}
		for i := range MaxViewers {
			if s := look(); s.code != 0 || len(s.texts) == 0 {
				t.Errorf("viewer %d: closed with %d %s", i, s.code, s.reason)
			}
		}
		if s := look(); s.code != closeCrowded || len(s.texts) > 0 {
			t.Errorf("one more: closed with %d after %q", s.code, s.texts)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/live", nil))
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "too-many-viewers") {
			t.Errorf("one more by HTTP: %d %v %s", w.Code, w.Header(), w.Body)
		}
		close(sockets[0].done)
		synctest.Wait()
		if s := look(); s.code != 0 {
			t.Errorf("after one has gone: closed with %d", s.code)
		}
		for _, s := range sockets[1:] {
			if s.code == 0 {
				close(s.draining)
			}
		}
		synctest.Wait()
	})
}
