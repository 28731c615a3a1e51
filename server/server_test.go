package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/labstack/echo/v4"
	"go.uber.org/goleak"

	"async-data-processor/dashboard/openapitest"
	"async-data-processor/event"
	"async-data-processor/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// entry is a submission that is fine.
const entry = `[{"timestamp":"2019-10-12T08:10:54.52Z","value":"F"}]`

// fake is a Submitter that remembers what it got, and then does as told.
type fake struct {
	mu   sync.Mutex
	got  []message.Submission
	then func(ctx context.Context, s message.Submission) error
}

func (f *fake) Submit(ctx context.Context, s message.Submission) ([]message.ShardCount, error) {
	kept := s
	kept.Messages = slices.Clone(s.Messages)
	for i, m := range kept.Messages {
		kept.Messages[i].Line = bytes.Clone(m.Line)
	}
	f.mu.Lock()
	f.got = append(f.got, kept)
	f.mu.Unlock()
	if f.then != nil {
		if err := f.then(ctx, s); err != nil {
			return nil, err
		}
	}
	shards := make([]message.ShardCount, min(5, len(s.Messages)))
	for i := range s.Messages {
		shards[i%5].Shard = i % 5
		shards[i%5].Messages++
	}
	return shards, nil
}

func (f *fake) Start(ctx context.Context, s message.Submission, done func([]message.ShardCount, error)) {
	for i, m := range s.Messages { // nothing may refer to the old ones after the return
		s.Messages[i].Line = bytes.Clone(m.Line)
	}
	s.Messages = slices.Clone(s.Messages)
	go func() { done(f.Submit(ctx, s)) }()
}

func (f *fake) submissions() []message.Submission {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.got)
}

// rig is a server on a real listener, and a client.
type rig struct {
	*fake
	t      testing.TB
	server *Server
	addr   string
	client *http.Client
	events chan event.Event
}

// told returns the server's next event, which must be an E.
func told[E event.Event](rg *rig) E {
	rg.t.Helper()
	got := <-rg.events
	e, ok := got.(E)
	if !ok {
		rg.t.Fatalf("told %T %+v, want %T", got, got, e)
	}
	return e
}

// start runs a server until the test ends; adjust may change it before that.
// Afterwards nothing may be left in flight.
func start(t testing.TB, cfg Config, adjust ...func(*Server)) *rig {
	t.Helper()
	rg := &rig{
		fake: new(fake), t: t, events: make(chan event.Event, 1<<10),
		client: &http.Client{Transport: &http.Transport{DisableCompression: true}},
	}
	cfg.Submitter = rg.fake
	cfg.Hosts = append(cfg.Hosts, "x") // what raw requests are sent to
	cfg.Events = func(e event.Event) { rg.events <- e }
	rg.server = New(cfg)
	for _, f := range adjust {
		f(rg.server)
	}
	rg.server.http.Handler = described(t, rg.server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	rg.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- rg.server.Serve(l) }()
	t.Cleanup(func() {
		rg.client.CloseIdleConnections()
		if err := rg.server.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if used := rg.server.budget.used.Load(); used != 0 {
			t.Errorf("%d bytes of the budget were not given back", used)
		}
	})
	return rg
}

// described is a server each of whose exchanges is held to the description of the API, but
// for what tests mount. The description has paths without a base. A benchmark measures the
// server alone.
func described(t testing.TB, s *Server) http.Handler {
	if _, measures := t.(*testing.B); measures || s.cfg.Base != "" {
		return s.http.Handler
	}
	var mounted []string
	for _, r := range s.cfg.Mount {
		mounted = append(mounted, strings.TrimSuffix(r.Path, "*"))
	}
	return openapitest.Handler(t, s.http.Handler, mounted...)
}

// TestRoutesAreDescribed: each resource of the server is in the description of the API.
func TestRoutesAreDescribed(t *testing.T) {
	d, err := openapitest.Load()
	must(t, err)
	routes := New(Config{Submitter: new(fake), Tokens: []string{"submits"}}).http.Handler.(*echo.Echo).Routes()
	if len(routes) < 12 {
		t.Errorf("there are only %d routes", len(routes))
	}
	for _, r := range routes {
		name := strings.Replace(r.Method, http.MethodHead, http.MethodGet, 1) + " " + r.Path
		if !slices.Contains(d.Operations(), name) {
			t.Errorf("%s is not described", name)
		}
	}
}

// answer is a response, read to its end.
type answer struct {
	*http.Response
	body []byte
}

func (rg *rig) do(method, path string, body io.Reader, header ...string) answer {
	rg.t.Helper()
	return rg.send(method, "http://"+rg.addr+path, body, header...)
}

func (rg *rig) send(method, url string, body io.Reader, header ...string) answer {
	rg.t.Helper()
	r, err := http.NewRequest(method, url, body)
	must(rg.t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header[header[i]] = append(r.Header[header[i]], header[i+1])
	}
	res, err := rg.client.Do(r)
	must(rg.t, err)
	return readAnswer(rg.t, res)
}

// post sends a JSON body unless the header says otherwise.
func (rg *rig) post(body string, header ...string) answer {
	rg.t.Helper()
	if !slices.Contains(header, "Content-Type") {
		header = append(header, "Content-Type", "application/json")
	}
	return rg.do("POST", "/message", strings.NewReader(body), header...)
}

func readAnswer(t testing.TB, res *http.Response) answer {
	t.Helper()
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	must(t, err)
	return answer{res, body}
}

// hold makes every Submit wait for release; each tells that it waits.
func (rg *rig) hold() (entered, release chan struct{}) {
	entered, release = make(chan struct{}), make(chan struct{})
	rg.then = func(context.Context, message.Submission) error {
		entered <- struct{}{}
		<-release
		return nil
	}
	return entered, release
}

// upload is the head of a request with a JSON body of n bytes.
func upload(n int) string {
	return fmt.Sprintf("POST /message HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", n)
}

// conn sends bytes that no client would.
func (rg *rig) conn(text string) net.Conn {
	rg.t.Helper()
	c, err := net.Dial("tcp", rg.addr)
	must(rg.t, err)
	rg.t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		rg.t.Fatal(err)
	}
	return c
}

func (rg *rig) raw(text string) answer {
	rg.t.Helper()
	c := rg.conn(text)
	defer c.Close()
	return readConn(rg.t, c, text[:strings.Index(text, " ")])
}

func readConn(t testing.TB, c net.Conn, method string) answer {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	must(t, err)
	return readAnswer(t, res)
}

type problemText struct {
	Type      string               `json:"type"`
	Title     string               `json:"title"`
	Status    int                  `json:"status"`
	Detail    string               `json:"detail"`
	RequestID string               `json:"request_id"`
	Errors    []message.EntryError `json:"errors"`
}

// wantProblem checks that a is a complete problem response of the kind.
func wantProblem(t testing.TB, a answer, k kind) problemText {
	t.Helper()
	var p problemText
	if a.StatusCode != k.status || a.Header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("got %d %s %.300q, want a problem with %d", a.StatusCode, a.Header.Get("Content-Type"), a.body, k.status)
	}
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	if !bytes.HasSuffix(a.body, []byte("}\n")) {
		t.Errorf("got %q, want a newline at the end", a.body)
	}
	if p.Type != problemTypes+k.name || p.Status != k.status || p.Title != k.title || p.Detail == "" {
		t.Errorf("got the problem %+v, want %+v", p, k)
	}
	if id := a.Header.Get("X-Request-Id"); id == "" || p.RequestID != id {
		t.Errorf("got request_id %q and X-Request-Id %q, want the same", p.RequestID, id)
	}
	if got, want := a.Header.Get("Retry-After") != "", k.status == 429 || k.status == 503; got != want {
		t.Errorf("got Retry-After %q for %d", a.Header.Get("Retry-After"), k.status)
	}
	return p
}

// want201 checks the receipt and returns the id.
func want201(t testing.TB, a answer, accepted int) string {
	t.Helper()
	var r struct {
		ID       string      `json:"id"`
		Accepted int         `json:"accepted"`
		Shards   map[int]int `json:"shards"`
	}
	if a.StatusCode != 201 || a.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("got %d %s %.300q, want a 201", a.StatusCode, a.Header.Get("Content-Type"), a.body)
	}
	if err := json.Unmarshal(a.body, &r); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	sum := 0
	for _, n := range r.Shards {
		sum += n
	}
	if len(r.ID) != 26 || r.Accepted != accepted || sum != accepted {
		t.Errorf("got the receipt %s, want %d accepted", a.body, accepted)
	}
	if a.Header.Get("X-Request-Id") == "" || a.Header.Get("Location") != "/submissions/"+r.ID {
		t.Errorf("got the header %v", a.Header)
	}
	return r.ID
}

func (rg *rig) wantSubmitted(n int) {
	rg.t.Helper()
	if got := len(rg.submissions()); got != n {
		rg.t.Errorf("Submit was called %d times, want %d", got, n)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func gzipOf(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	must(t, err)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	must(t, w.Close())
	return b.String()
}

func zstdOf(t testing.TB, text string, opts ...zstd.EOption) string {
	t.Helper()
	w, err := zstd.NewWriter(nil, opts...)
	must(t, err)
	defer w.Close()
	return string(w.EncodeAll([]byte(text), nil))
}
