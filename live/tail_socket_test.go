package live

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// TestTailPlaces: one client may have all places. If another one comes, the oldest of the
// first ends, and the first cannot take it back.
func TestTailPlaces(t *testing.T) {
	tail := &fakeTail{max: MaxViewers}
	h := newTailHandler(tail.view, byHost)
	var others sync.WaitGroup
	defer others.Wait()
	sockets := make(map[string][]*fakeSocket)
	look := func(address string) *fakeSocket {
		s := newFakeSocket()
		sockets[address] = append(sockets[address], s)
		r := httptest.NewRequest("GET", "/live", nil)
		r.RemoteAddr = address
		others.Go(func() { h.ServeSocket(s, r) })
		select {
		case <-s.wrote:
		case <-s.closed:
		}
		return s
	}
	defer func() {
		for _, all := range sockets {
			for _, s := range all {
				close(s.draining)
			}
		}
	}()
	for i := range MaxViewers {
		if s := look(fmt.Sprintf("192.0.2.1:%d", i)); s.code != 0 {
			t.Fatalf("view %d was closed with %d", i, s.code)
		}
	}
	first := sockets["192.0.2.1:0"][0]
	if s := look("192.0.2.1:1000"); s.code != closeCrowded {
		t.Errorf("one more of the same client was closed with %d, want %d", s.code, closeCrowded)
	}
	if s := look("192.0.2.2:1"); s.code != 0 {
		t.Fatalf("another client was closed with %d", s.code)
	}
	<-first.closed
	if last := first.texts[len(first.texts)-1]; first.code != closeCrowded || !strings.Contains(last, `"why":"share"`) {
		t.Errorf("the oldest view ends with %d after %s", first.code, last)
	}
	if s := look("192.0.2.1:1001"); s.code != closeCrowded {
		t.Errorf("the client that has most got another place: %d", s.code)
	}
	if n := len(tail.views()); n != MaxViewers {
		t.Errorf("%d views, want %d", n, MaxViewers)
	}
}

// byHost tells clients apart by their address, without its port.
func byHost(r *http.Request) string {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return host
}

// fakeSocket keeps what is written to it.
type fakeSocket struct {
	done, draining, closed, wrote chan struct{}
	written                       func()
	texts                         []string
	code                          int
	reason                        string
	err                           error // of Write
}

func newFakeSocket() *fakeSocket {
	s := &fakeSocket{done: make(chan struct{}), draining: make(chan struct{}), closed: make(chan struct{}), wrote: make(chan struct{})}
	s.written = sync.OnceFunc(func() { close(s.wrote) })
	return s
}

func (s *fakeSocket) Write(texts ...[]byte) error {
	for _, text := range texts {
		s.texts = append(s.texts, string(text))
	}
	s.written()
	return s.err
}
func (s *fakeSocket) Done() <-chan struct{}     { return s.done }
func (s *fakeSocket) Draining() <-chan struct{} { return s.draining }
func (s *fakeSocket) Close(code int, reason string) {
	s.code, s.reason = code, reason
	close(s.closed)
}

// TestTailSocket: the frames are those of the lines, and the close code says why there
// are no more.
func TestTailSocket(t *testing.T) {
	for name, c := range map[string]struct {
		tail  *fakeTail
		query string
		then  func(*fakeSocket, *fakeView)
		code  int
		last  string // text of the last frame
	}{
		"limit": {&fakeTail{max: 1}, "limit=1", func(_ *fakeSocket, v *fakeView) {
			v.frames <- Frame{Kind: KindBye, ID: "e-1", Data: Bye{Why: ByeLimit}}
		}, 1000, `{"type":"bye","event_id":"e-1","why":"limit","retry_ms":0}`},
		"drain of the process": {&fakeTail{max: 1}, "", func(s *fakeSocket, _ *fakeView) { close(s.draining) }, 1001, `{"type":"bye","why":"drain","retry_ms":1000}`},
		"drain of the tail": {&fakeTail{max: 1}, "", func(_ *fakeSocket, v *fakeView) {
			v.frames <- Frame{Kind: KindBye, Data: Bye{ByeDrain, 7}}
		}, 1001, `{"type":"bye","why":"drain","retry_ms":7}`},
		"bug":            {&fakeTail{max: 1}, "", func(_ *fakeSocket, v *fakeView) { close(v.frames) }, 1011, `{"type":"hello"`},
		"bad query":      {&fakeTail{max: 1}, "rate=x", nil, 4400, ""},
		"too many":       {&fakeTail{max: 0}, "", nil, 1013, ""},
		"drained before": {&fakeTail{err: ErrTailEnded}, "", nil, 1001, ""},
		"a bug before":   {&fakeTail{err: errors.New("a bug")}, "", nil, 1011, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, h := newFakeSocket(), newTailHandler(c.tail.view, byHost)
			go h.ServeSocket(s, httptest.NewRequest("GET", "/live?"+c.query, nil))
			if c.then != nil {
				<-s.wrote
				c.then(s, c.tail.views()[0])
			}
			<-s.closed
			if s.code != c.code || c.last == "" && len(s.texts) > 0 || c.last != "" && !strings.HasPrefix(s.texts[len(s.texts)-1], c.last) {
				t.Errorf("closed with %d %s after %q, want %d", s.code, s.reason, s.texts, c.code)
			}
		})
	}
}

// TestTailSocketGone: a view ends when its client is gone.
func TestTailSocketGone(t *testing.T) {
	tail := &fakeTail{max: 1}
	h, s := newTailHandler(tail.view, byHost), newFakeSocket()
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		h.ServeSocket(s, httptest.NewRequest("GET", "/live", nil))
	}()
	<-s.wrote
	close(s.done)
	<-returned
	if n := len(tail.views()); n != 0 || h.places.Taken() != 0 {
		t.Errorf("%d views, %d places are left", n, h.places.Taken())
	}
}
