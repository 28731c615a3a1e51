package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// tailServer is a server of the tail: it answers each request with the next of its answers,
// and then with the last of them.
type tailServer struct {
	*fake
	mu       sync.Mutex // guards what follows
	requests []*http.Request
	lost     []string // what Listen told
	pauses   []time.Duration
	frames   []string // with their types
}

func newTailServer(t tester, answers ...func(http.ResponseWriter, *http.Request)) *tailServer {
	s := &tailServer{fake: newFake(t)}
	s.fake.answers(func(w http.ResponseWriter, r *http.Request) bool {
		s.mu.Lock()
		n := min(len(s.requests), len(answers)-1)
		s.requests = append(s.requests, r)
		s.mu.Unlock()
		answers[n](w, r)
		return true
	})
	return s
}

// listen runs Listen until it returns, or ctx ends.
func (s *tailServer) listen(ctx context.Context, query map[string][]string) error {
	c := s.config()
	return Listen(ctx, ListenConfig{
		URL: c.URL, HTTP: c.HTTP, Token: c.Token, Query: query,
		Frame: func(f Frame) error {
			s.frames = append(s.frames, f.Type+" "+string(f.JSON))
			if f.Type == "end" {
				return errEnough
			}
			return nil
		},
		Lost: func(err error, pause time.Duration) {
			s.lost, s.pauses = append(s.lost, err.Error()), append(s.pauses, pause)
		},
	})
}

var errEnough = errors.New("enough")

// stream answers with server-sent events, and ends.
func stream(text string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		_, _ = io.WriteString(w, text)
	}
}

// silent is a stream that says nothing more after its text.
func silent(text string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		stream(text)(w, r)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

func status(code int, text string, header ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, text)
	}
}

const (
	hello = "retry: 5\nid: e-0\nevent: hello\ndata: {}\n\n"
	end   = "event: end\ndata: {}\n\n"
)

func messageEvent(n int) string {
	return fmt.Sprintf("id: e-%d\nevent: message\ndata: {\"n\":%d}\n\n", n, n)
}

// TestListenResumes: after a lost stream, however it ends, the next one begins behind the
// last whole frame, and asks for no earlier ones.
func TestListenResumes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newTailServer(t,
			stream(hello+messageEvent(1)+messageEvent(2)+"id: e-3\nevent: message\ndata: {\"n\":3}\n"), // not whole
			status(503, "", "Retry-After", "7"),
			status(425, "a proxy's page"),
			stream(hello+messageEvent(3)+"event: bye\ndata: {\"why\":\"drain\",\"retry_ms\":20000}\n\n"),
			silent(hello),
			stream(hello+messageEvent(4)+":\r\n\r\n"+end),
		)
		began := time.Now()
		err := s.listen(t.Context(), map[string][]string{"last": {"5"}, "where": {"/a=1", "/b=2"}})
		if !errors.Is(err, errEnough) || errors.Is(err, ErrRefused) {
			t.Errorf("the error is %v", err)
		}
		var asked []string
		for _, r := range s.requests {
			asked = append(asked, r.Header.Get("Last-Event-ID")+"?"+r.URL.RawQuery)
			if r.URL.Path != "/live" || r.Header.Get("Accept") != "text/event-stream" || r.Header.Get("Authorization") != "Bearer hunter2" {
				t.Errorf("%s with %v", r.URL, r.Header)
			}
		}
		const where = "where=%2Fa%3D1&where=%2Fb%3D2"
		if want := []string{"?last=5&" + where, "e-2?" + where, "e-2?" + where, "e-2?" + where, "e-3?" + where, "e-0?" + where}; !slices.Equal(asked, want) {
			t.Errorf("asked for %q\nwant      %q", asked, want)
		}
		if got, want := strings.Join(s.frames, ","), `hello {},message {"n":1},message {"n":2},hello {},message {"n":3},bye {"why":"drain","retry_ms":20000},hello {},hello {},message {"n":4},end {}`; got != want {
			t.Errorf("the frames are %s\nwant %s", got, want)
		}
		if len(s.pauses) != 5 || s.pauses[0] > firstPause || s.pauses[1] < 7*time.Second || s.pauses[3] < 20*time.Second {
			t.Errorf("the pauses are %v, after %q", s.pauses, s.lost)
		}
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("it took %v, although a silent stream is lost after %v", took, silence)
		}
	})
}

// TestListenLimit: the limit is of all streams together.
func TestListenLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newTailServer(t, stream(hello+messageEvent(1)), stream(hello+messageEvent(2)+messageEvent(3)+messageEvent(4)))
		if err := s.listen(t.Context(), map[string][]string{"limit": {"3"}}); err != nil {
			t.Error(err)
		}
		if s.requests[1].URL.RawQuery != "limit=2" || len(s.frames) != 5 {
			t.Errorf("asked for %s, and showed %q", s.requests[1].URL, s.frames)
		}
	})
}

// TestListenEnds: what the server says for ever ends it, with the server's words.
func TestListenEnds(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		want   string // nothing if there is no error
	}{
		"the end of all":        {stream(hello + "event: bye\ndata: {\"why\":\"limit\",\"retry_ms\":0}\n\n"), ""},
		"an end that was heard": {status(204, ""), ""},
		"a bad query":           {status(400, `{"title":"Bad Request","detail":"rate is \"x\""}`), `refused: http://fake answers 400 Bad Request: rate is "x"`},
		"a token":               {status(401, `{"title":"a token"}`), "refused: http://fake answers 401 Unauthorized: a token"},
		"nothing there":         {status(404, "<html>"), "refused: http://fake answers 404 Not Found: no answer of this program"},
		"not implemented":       {status(501, ""), "refused: http://fake answers 501"},
		"another host":          {status(421, ""), "refused: http://fake answers 421"},
		"another program":       {status(200, "<html>", "Content-Type", "text/html"), "refused: http://fake answers 200 OK: no answer of this program"},
		"an endless problem":    {status(403, strings.Repeat("x", 1<<20)), "refused: http://fake answers 403 Forbidden: no answer of this program"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newTailServer(t, c.answer)
				err := s.listen(t.Context(), nil)
				if (err == nil) != (c.want == "") || err != nil && (!errors.Is(err, ErrRefused) || !strings.HasPrefix(err.Error(), c.want)) || len(s.requests) != 1 {
					t.Errorf("%v after %d requests, want %q", err, len(s.requests), c.want)
				}
			})
		})
	}
}

// TestListenHostile: what a server sends is bounded, and an attempt follows the other at
// a pause.
func TestListenHostile(t *testing.T) {
	long := strings.Repeat("x", maxEvent)
	for name, text := range map[string]string{
		"an endless line":  long + long,
		"an endless event": strings.Repeat("data: "+long[:maxEvent/4]+"\n", 5),
		"a farewell":       "event: bye\ndata: no JSON\n\n",
		"nothing":          "",
		"a flood of pings": strings.Repeat(":\n\n", 10_000),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newTailServer(t, stream(text))
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errEnough)
				defer cancel()
				if err := s.listen(ctx, nil); !errors.Is(err, errEnough) {
					t.Error(err)
				}
				if n := len(s.requests); n < 12 || n > 40 || len(s.frames) > n {
					t.Errorf("%d requests in a minute, and %d frames", n, len(s.frames))
				}
			})
		})
	}
}

// TestListenStops at once, whatever it waits for.
func TestListenStops(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request){
		"a frame": silent(hello), "an answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "the next attempt": status(503, "", "Retry-After", "60"),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newTailServer(t, answer)
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(10*time.Second, func() { cancel(errEnough) })
				began := time.Now()
				if err := s.listen(ctx, nil); !errors.Is(err, errEnough) || time.Since(began) > 10*time.Second {
					t.Errorf("%v after %v", err, time.Since(began))
				}
			})
		})
	}
}

// TestEvents reads streams as the HTML standard has them.
func TestEvents(t *testing.T) {
	in := newEvents(strings.NewReader("\n: hi\nid:1\n\ndata\n\ndata: a\ndata:  b\r\nnew: c\nevent: x\n\nid: 2\x00\ndata: {}\nid\n\ndata: lost"))
	for _, want := range []string{"x 1 a\n b", "message  {}"} {
		e, err := in.next()
		if got := e.event + " " + e.id + " " + string(e.data); got != want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	if e, err := in.next(); err != io.EOF {
		t.Errorf("%+v, %v behind the end", e, err)
	}
}

// FuzzEvents: whatever a server sends, an event is bounded.
func FuzzEvents(f *testing.F) {
	f.Add([]byte(hello + messageEvent(1)))
	f.Fuzz(func(t *testing.T, text []byte) {
		in := newEvents(strings.NewReader(string(text)))
		for {
			e, err := in.next()
			if err != nil {
				return
			}
			if len(e.data) == 0 || len(e.data) > maxEvent+len(text) || strings.Contains(e.id, "\x00") {
				t.Fatalf("%+v", e)
			}
		}
	})
}
