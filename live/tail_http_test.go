package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"async-data-processor/dashboard/openapitest"
	"async-data-processor/httpstream"
)

// fakeTail has at most max views, which show what is put into them.
type fakeTail struct {
	max int
	err error // of open, unless nil

	mu      sync.Mutex // guards what follows
	queries []Query
	open    []*fakeView // the oldest first
}

type fakeView struct {
	frames chan Frame
	closed chan struct{}
	close  func()
}

func (t *fakeTail) view(q Query) (view, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queries = append(t.queries, q)
	switch err := check(q); {
	case err != nil:
		return nil, err
	case t.err != nil:
		return nil, t.err
	case len(t.open) == t.max:
		return nil, ErrTooManyViewers
	}
	v := &fakeView{frames: make(chan Frame, 1000), closed: make(chan struct{})}
	v.close = sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.open = slices.DeleteFunc(t.open, func(o *fakeView) bool { return o == v })
		close(v.closed)
	})
	t.open = append(t.open, v)
	v.frames <- Frame{Kind: KindHello, ID: "e-0", Data: Hello{Node: "n", Epoch: "e", Filter: Filter{Stage: StageWritten, Payload: PayloadFull}}}
	return v, nil
}

func (t *fakeTail) views() []*fakeView {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.open)
}

// served is the tail over HTTP, held to the description of the API.
func (t *fakeTail) served(tb testing.TB) http.Handler {
	return openapitest.Handler(tb, newTailHandler(t.view, byHost))
}

func (v *fakeView) Close() { v.close() }

func (v *fakeView) Next(ctx context.Context) (Frame, error) {
	select { // a frame that is there comes first
	case f, more := <-v.frames:
		return f, end(more)
	default:
	}
	select {
	case f, more := <-v.frames:
		return f, end(more)
	case <-v.closed:
		return Frame{}, io.EOF
	case <-ctx.Done():
		return Frame{}, context.Cause(ctx)
	}
}

func end(more bool) error {
	if more {
		return nil
	}
	return io.EOF
}

// messageFrame is a frame of a message of so many bytes at least.
func messageFrame(seq, size int) Frame {
	text := fmt.Sprintf(`{"message_id":"m.%d","value":"<&>%s"}`, seq, strings.Repeat("x", size))
	return Frame{Kind: KindMessage, ID: fmt.Sprintf("e-%d", seq), Data: Message{
		ID: fmt.Sprintf("m.%d", seq), Shard: 1, At: time.Unix(0, 0).UTC(), Entry: json.RawMessage(text),
	}}
}

// TestTailFormats: server-sent events by default, lines of JSON if they are asked for,
// and the entry as it was sent.
func TestTailFormats(t *testing.T) {
	const (
		hello   = `{"type":"hello","node":"n","epoch":"e","seq":0,"limits":{"events":0,"bytes":0,"entry_bytes":0,"rate":0},"filter":{"stage":"written","payload":"full"}}`
		message = `"id":"m.1","shard":1,"at":"1970-01-01T00:00:00Z","entry":{"message_id":"m.1","value":"<&>"}}`
		events  = "id: e-0\nevent: hello\ndata: " + hello + "\n\n" +
			"id: e-1\nevent: message\ndata: {\"type\":\"message\"," + message + "\n\n" +
			"id: e-1-end\nevent: bye\ndata: {\"type\":\"bye\",\"why\":\"limit\",\"retry_ms\":0}\n\n"
	)
	lines := strings.Replace(hello, `"hello",`, `"hello","event_id":"e-0",`, 1) + "\n" +
		`{"type":"message","event_id":"e-1",` + message + "\n" +
		`{"type":"bye","event_id":"e-1","why":"limit","retry_ms":0}` + "\n"
	for accept, want := range map[string]string{
		"":                                       events,
		"*/*":                                    events,
		"text/event-stream":                      events,
		"application/x-ndjson":                   lines,
		"text/html, Application/X-NDJSON;q=0.9":  lines,
		"application/jsonl":                      lines,
		"application/x-ndjson,text/event-stream": events,
		"text/event-stream;q=0.1, application/x-ndjson": lines,
		"application/x-ndjson, */*;q=0.1":               lines,
		"image/png":                                     events,
	} {
		t.Run(accept, func(t *testing.T) {
			tail := &fakeTail{max: 1}
			s := httptest.NewServer(tail.served(t))
			defer s.Close()
			req, _ := http.NewRequest("GET", s.URL+"/live", nil)
			req.Header.Set("Accept", accept)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			v := tail.views()[0]
			v.frames <- messageFrame(1, 0)
			v.frames <- Frame{Kind: KindBye, ID: "e-1", Data: Bye{Why: ByeLimit}}
			got, err := io.ReadAll(resp.Body)
			if err != nil || string(got) != want {
				t.Errorf("%v\n%s\nwant\n%s", err, got, want)
			}
			wantType := map[bool]string{true: "application/x-ndjson", false: "text/event-stream"}[want == lines]
			for name, want := range map[string]string{
				"Content-Type": wantType, "Cache-Control": "no-store", "X-Accel-Buffering": "no", "Content-Encoding": "", "X-Content-Type-Options": "nosniff",
			} {
				if got := resp.Header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

// TestTailQuery: each parameter is read, and what is none, or beyond its bounds, is an
// error that names it.
func TestTailQuery(t *testing.T) {
	const submission = "01M8K523VDHDD60X1V378Z7002" // of two messages
	for text, want := range map[string]Query{
		"": {Rate: DefaultRate},
		"stage=dead&shard=0,3&contains=a+b&last=1000&rate=0&limit=5&payload=head": {
			Stage: StageDead, Shards: []int{0, 3}, Contains: "a b", Last: 1000, Limit: 5, Payload: PayloadHead,
		},
		"where=/user/id%3D42&where=/a%3D%3D&rate=50&submission=" + submission: {
			Where: []Where{{"/user/id", "42"}, {"/a", "="}}, Rate: 50, Submission: submission,
		},
		"last_event_id=e-7": {Rate: DefaultRate, After: "e-7"},
	} {
		got, err := tailQuery(httptest.NewRequest("GET", "/live?"+text, nil))
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) || check(got) != nil {
			t.Errorf("%s: %+v, %v, %v, want %+v", text, got, err, check(got), want)
		}
	}
	wide := strings.Repeat("0,", MaxQueryShards) + "0"
	for text, name := range map[string]string{
		"stages=dead": "stages", "rate=1&rate=2": "rate", "rate=-1": "rate", "rate=+1": "rate", "rate=": "rate", "rate=99999999999999999999": "rate",
		"rate=100001": "rate", "last=1001": "last", "limit=1e3": "limit", "stage=Written": "stage", "payload=all": "payload", "shard=0,,1": "shard",
		"shard=x": "shard", "shard=" + wide: "shard", "shard=99999": "shard", "submission=x": "submission", "submission=" + submission + ".0": "submission",
		"contains=" + strings.Repeat("x", 1025): "contains", "where=/a": "where", "where=a%3D1": "where",
		strings.Repeat("where=/a%3D1&", 8) + "where=/a%3D1": "where", "where=/" + strings.Repeat("x", 1024) + "%3D1": "where",
		"rate=%zz": "encoded", "a;b=1": "encoded", "contains=" + strings.Repeat("x", 64<<10): "query",
	} {
		w := httptest.NewRecorder()
		(&fakeTail{max: 1}).served(t).ServeHTTP(w, httptest.NewRequest("GET", "/live?"+text, nil))
		var p struct{ Type, Detail string }
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 400 || p.Type != "urn:async-data-processor:problem:invalid-query" ||
			!strings.Contains(p.Detail, name) || !strings.HasPrefix(w.Body.String(), `{"type":`) || w.Header().Get("Content-Type") != "application/problem+json" || len(p.Detail) > 1000 {
			t.Errorf("%.50s: %d %s, %v; want a problem that names %s", text, w.Code, w.Body, err, name)
		}
	}
}

// TestTailRefusals come before the stream, and say when to come again.
func TestTailRefusals(t *testing.T) {
	for kind, tail := range map[string]*fakeTail{
		"too-many-viewers": {max: 0}, "draining": {err: ErrTailEnded}, "internal-error": {err: errors.New("a bug")},
	} {
		w := httptest.NewRecorder()
		tail.served(t).ServeHTTP(w, httptest.NewRequest("GET", "/live", nil))
		if !strings.Contains(w.Body.String(), "problem:"+kind) || w.Code/100 != 5 || (w.Header().Get("Retry-After") == "") != (kind == "internal-error") {
			t.Errorf("%d %v %s, want %s", w.Code, w.Header(), w.Body, kind)
		}
	}
}

// TestTailResumes: the id that a client has seen last gets to the tail; behind the last
// frame of all there is nothing.
func TestTailResumes(t *testing.T) {
	tail := &fakeTail{max: 1}
	h := tail.served(t)
	r := httptest.NewRequest("GET", "/live", nil)
	r.Header.Set("Last-Event-ID", "e-7")
	h.ServeHTTP(httptest.NewRecorder(), r) // it cannot stream
	if len(tail.queries) != 1 || tail.queries[0].After != "e-7" {
		t.Errorf("the tail was asked %+v", tail.queries)
	}
	r.Header.Set("Last-Event-ID", "e-7-end")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusNoContent || len(tail.queries) != 1 {
		t.Errorf("status %d, want 204", w.Code)
	}
}

// TestTailTogether: frames that wait leave in one write, which is bounded.
func TestTailTogether(t *testing.T) {
	tail := &fakeTail{max: 1}
	v, err := tail.view(Query{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		v.(*fakeView).frames <- messageFrame(i, 1000)
	}
	v.(*fakeView).frames <- Frame{Kind: KindBye, Data: Bye{Why: ByeLimit}}
	writes, most, frames := 0, 0, 0
	_, err = show(t.Context(), v, &countedOutlet{tailStream: tailStream{Stream: new(httpstream.Stream)}, flushed: func(n, bytes int) {
		writes, most, frames = writes+1, max(most, bytes), frames+n
	}})
	if err != nil || frames != 102 || writes > 5 || most > maxTogether+2000 {
		t.Errorf("%v: %d frames in %d writes, the longest of %d bytes", err, frames, writes, most)
	}
}

type countedOutlet struct {
	tailStream
	n       int
	flushed func(n, bytes int)
}

func (c *countedOutlet) add(f Frame) error { c.n++; return c.tailStream.add(f) }
func (c *countedOutlet) flush() error {
	c.flushed(c.n, c.Out.Len())
	c.n = 0
	c.Out.Reset()
	return nil
}
