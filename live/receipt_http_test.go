package live

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/dashboard/openapitest"
)

const anID = "01JD8Y6G5V3X9Q2R7T4B1C0003"

// told is what a fake watch tells. It begins as ready, and of a submission of three.
type fakeWatches struct {
	t       *testing.T
	mu      sync.Mutex // guards what follows
	receipt Receipt
	err     error // of Receipt
	refuse  error // of a new watch
	unready bool
	open    map[*fakeReceiptWatch]bool
	asked   []string
}

type fakeReceiptWatch struct {
	of      *fakeWatches
	changed chan struct{}
}

func newFakeWatches(t *testing.T) *fakeWatches {
	return &fakeWatches{t: t, receipt: receiptOf(0, 0), open: make(map[*fakeReceiptWatch]bool)}
}

// receiptOf is a receipt of three messages.
func receiptOf(written, dead int) Receipt {
	r := Receipt{
		ID: anID, Accepted: 3, Written: written, Dead: dead, Pending: 3 - written - dead, Done: written+dead == 3,
		Shards: map[int]ShardReceipt{2: {written, dead}}, AsOf: time.Unix(1e9, 0).UTC(), Indexes: &Indexes{Pending: "1-2"},
	}
	if dead > 0 {
		r.Indexes.Dead = []DeadIndexes{{"0", "<b>no\nnumber\x1b[31m</b>"}}
	}
	r.State = stateOf(&r, false)
	return r
}

func (f *fakeWatches) watch(id string) (watching, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, id)
	if f.refuse != nil {
		return nil, f.refuse
	}
	w := &fakeReceiptWatch{f, make(chan struct{}, 1)}
	w.changed <- struct{}{}
	f.open[w] = true
	return w, nil
}

// set tells all watches of a new state.
func (f *fakeWatches) set(r Receipt, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.receipt, f.err = r, err
	for w := range f.open {
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

func (f *fakeWatches) watched() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.open)
}

func (w *fakeReceiptWatch) Ready() <-chan struct{} {
	ready := make(chan struct{})
	if !w.of.unready {
		close(ready)
	}
	return ready
}
func (w *fakeReceiptWatch) Changed() <-chan struct{} { return w.changed }
func (w *fakeReceiptWatch) Receipt() (Receipt, error) {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	return w.of.receipt, w.of.err
}

func (w *fakeReceiptWatch) Close() {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	delete(w.of.open, w)
}

// handler serves the fake. A client is what the header Client says, a wait what Wait says.
func (f *fakeWatches) handler() *ReceiptHandler {
	return newReceiptHandler(ReceiptHTTP{
		Path: "/submissions/", Client: func(r *http.Request) string { return r.Header.Get("Client") },
		Wait: func(h http.Header) (time.Duration, bool) {
			d, err := time.ParseDuration(h.Get("Wait"))
			return d, err == nil
		},
	}, f.watch)
}

// answer is one of a handler, that may go on.
type receiptAnswer struct {
	*httptest.ResponseRecorder
}

func (receiptAnswer) SetReadDeadline(time.Time) error  { return nil }
func (receiptAnswer) SetWriteDeadline(time.Time) error { return nil }

// ask sends a request; header are names and values.
func (f *fakeWatches) ask(ctx context.Context, h http.Handler, method, path string, header ...string) receiptAnswer {
	r := httptest.NewRequestWithContext(ctx, method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	a := receiptAnswer{httptest.NewRecorder()}
	openapitest.Handler(f.t, h).ServeHTTP(a, r)
	return a
}

func (f *fakeWatches) get(t *testing.T, header ...string) receiptAnswer {
	t.Helper()
	return f.ask(t.Context(), f.handler(), "GET", "/submissions/"+anID, header...)
}

// TestReceiptJSON: what a program gets.
func TestReceiptJSON(t *testing.T) {
	f := newFakeWatches(t)
	a := f.get(t)
	const want = `{"id":"01JD8Y6G5V3X9Q2R7T4B1C0003","accepted":3,"written":0,"dead":0,"pending":3,"done":false,"state":"queued","shards":{"2":{"written":0,"dead":0}},"as_of":"2001-09-09T01:46:40Z"}` + "\n"
	if a.Code != 200 || a.Body.String() != want || a.Header().Get("Retry-After") != "1" {
		t.Errorf("got %d %v %s, want %s", a.Code, a.Header(), a.Body, want)
	}
	for name, value := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store", "Vary": "Accept", "X-Content-Type-Options": "nosniff"} {
		if got := a.Header().Get(name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
	f.set(receiptOf(2, 1), nil)
	if a = f.get(t); a.Header().Get("Retry-After") != "" || strings.Contains(a.Body.String(), "indexes") {
		t.Errorf("done: got %v %s", a.Header(), a.Body)
	}
	for query, indexes := range map[string]bool{"?indexes=1": true, "?indexes=true": true, "?indexes=0": false, "?token=secret": false} {
		a = f.ask(t.Context(), f.handler(), "GET", "/submissions/"+anID+query)
		if a.Code != 200 || strings.Contains(a.Body.String(), `"dead":[{"indexes":"0","reason":`) != indexes {
			t.Errorf("%s: got %d %s", query, a.Code, a.Body)
		}
	}
	a = f.ask(t.Context(), f.handler(), "HEAD", "/submissions/"+anID)
	if a.Code != 200 || a.Header().Get("Content-Type") != "application/json" {
		t.Errorf("HEAD: got %d %v", a.Code, a.Header())
	}
	a = f.ask(t.Context(), f.handler(), "HEAD", "/submissions/"+anID, "Accept", "text/event-stream")
	if a.Code != 200 || a.Header().Get("Content-Type") != "text/event-stream" || a.Body.Len() > 0 {
		t.Errorf("HEAD of a stream: got %d %v", a.Code, a.Header())
	}
	if f.asked[0] != anID || f.watched() != 0 {
		t.Errorf("asked for %q, %d are still watched", f.asked[0], f.watched())
	}
}

// TestReceiptProblems: why there is no receipt, in every form.
func TestReceiptProblems(t *testing.T) {
	for _, tt := range []struct {
		err          error
		status       int
		kind, header string
	}{
		{ErrNoID, 400, "invalid-id", ""},
		{ErrNotKnown, 404, "not-known", ""},
		{ErrForgotten, 410, "forgotten", ""},
		{ErrTooMany, 503, "too-many-receipts", "2"},
		{errors.New("a bug"), 500, "internal-error", ""},
	} {
		for _, form := range forms {
			for _, late := range []bool{false, true} {
				f := newFakeWatches(t)
				if f.refuse = tt.err; late {
					f.refuse, f.err = nil, tt.err
				}
				a := f.get(t, "Accept", form)
				var p struct {
					Type, Title, Detail string
					Status              int
				}
				if err := json.Unmarshal(a.Body.Bytes(), &p); err != nil {
					t.Fatalf("%v %s: %v in %s", tt.err, form, err, a.Body)
				}
				if tt.err == ErrNoID && !strings.Contains(p.Detail, "leave out the .0") {
					t.Errorf("no word of a message's id: %s", a.Body)
				}
				if a.Code != tt.status || p.Status != tt.status || p.Type != "urn:async-data-processor:problem:"+tt.kind || p.Title == "" || p.Detail == "" ||
					a.Header().Get("Retry-After") != tt.header || a.Header().Get("Content-Type") != "application/problem+json" || f.watched() != 0 {
					t.Errorf("%v %s: got %d %v %s", tt.err, form, a.Code, a.Header(), a.Body)
				}
			}
		}
	}
	stopping, stop := context.WithCancel(t.Context())
	stop()
	f := newFakeWatches(t)
	f.unready = true
	if a := f.ask(stopping, f.handler(), "GET", "/submissions/"+anID); a.Code != 503 || !strings.Contains(a.Body.String(), ":draining") || f.watched() != 0 {
		t.Errorf("a process that stops before it knows: got %d %s", a.Code, a.Body)
	}
	f = newFakeWatches(t)
	if a := f.get(t, "Accept", "image/png"); a.Code != 406 || len(f.asked) > 0 {
		t.Errorf("an image: got %d", a.Code)
	}
	if a := f.ask(t.Context(), f.handler(), "GET", "/submissions/"+anID+"?indexes=all"); a.Code != 400 {
		t.Errorf("a wrong query: got %d", a.Code)
	}
}

// TestReceiptPage: it asks anew until all is done, and shows what others have written as
// text only.
func TestReceiptPage(t *testing.T) {
	const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
	f := newFakeWatches(t)
	a := f.get(t, "Accept", browser)
	if a.Header().Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(a.Body.String(), `<meta http-equiv="refresh" content="1">`) {
		t.Errorf("got %v %s", a.Header(), a.Body)
	}
	f.set(receiptOf(2, 1), nil)
	a = f.get(t, "Accept", browser)
	text := a.Body.String()
	if strings.Contains(text, "refresh") || strings.Contains(text, "<b>") || strings.Contains(text, "<script") || strings.Contains(text, "style") ||
		!strings.Contains(text, "&lt;b&gt;no") || !strings.Contains(text, "dead-letters: 2 of 3 written") {
		t.Errorf("got %s", text)
	}
	for _, part := range []string{"default-src 'none'", "script-src 'self'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
		if policy := a.Header().Get("Content-Security-Policy"); !strings.Contains(policy, part) || strings.Contains(policy, "unsafe") {
			t.Errorf("the policy is %q", policy)
		}
	}
}

// TestReceiptWait: the answer comes when it is done, forgotten, the time is up, or the
// process stops; of one that is not known, when it becomes known and done.
func TestReceiptWait(t *testing.T) {
	for name, tt := range map[string]struct {
		wait        string
		begins      error
		then        func(f *fakeWatches, stop func())
		want        time.Duration
		status      int
		done        bool
		applied     string
		becauseFull bool
	}{
		"done at once":           {wait: "10s", then: func(f *fakeWatches, _ func()) { f.set(receiptOf(3, 0), nil) }, want: time.Second, status: 200, done: true, applied: "wait=10"},
		"only a change":          {wait: "10s", then: func(f *fakeWatches, _ func()) { f.set(receiptOf(2, 0), nil) }, want: 10 * time.Second, status: 200, applied: "wait=10"},
		"not known yet":          {wait: "10s", begins: ErrNotKnown, then: func(f *fakeWatches, _ func()) { f.set(receiptOf(3, 0), nil) }, want: time.Second, status: 200, done: true, applied: "wait=10"},
		"not known":              {wait: "10s", begins: ErrNotKnown, want: 10 * time.Second, status: 404, applied: "wait=10"},
		"forgotten":              {wait: "10s", begins: ErrForgotten, want: 0, status: 410, applied: "wait=10"},
		"nothing":                {wait: "30s", want: 30 * time.Second, status: 200, applied: "wait=30"},
		"no time":                {wait: "0s", want: 0, status: 200, applied: "wait=0"},
		"no preference":          {want: 0, status: 200},
		"the process stops":      {wait: "30s", then: func(_ *fakeWatches, stop func()) { stop() }, want: time.Second, status: 200, applied: "wait=30"},
		"as many wait as may be": {wait: "30s", becauseFull: true, want: 0, status: 200},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeWatches(t)
				f.err = tt.begins
				h := f.handler()
				if tt.becauseFull {
					h.waits.limit = 0
				}
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				if tt.then != nil {
					time.AfterFunc(time.Second, func() { tt.then(f, stop) })
				}
				began := time.Now()
				a := f.ask(ctx, h, "GET", "/submissions/"+anID, "Wait", tt.wait)
				if took := time.Since(began); took != tt.want || a.Code != tt.status || a.Header().Get("Preference-Applied") != tt.applied {
					t.Errorf("got %d with %q applied after %v, want %d with %q after %v", a.Code, a.Header().Get("Preference-Applied"), took, tt.status, tt.applied, tt.want)
				}
				if strings.Contains(a.Body.String(), `"done":true`) != tt.done {
					t.Errorf("got %s", a.Body)
				}
				if f.watched() != 0 || h.waits.taken != 0 || h.asks.taken != 0 {
					t.Error("it is still watched")
				}
			})
		})
	}
}

// TestNegotiate: RFC 9110, section 12.5.1.
func TestNegotiate(t *testing.T) {
	for accept, want := range map[string]string{
		"":    "application/json",
		" , ": "application/json",
		"*/*": "application/json",
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": "text/html",
		"text/event-stream":                                "text/event-stream",
		"Text/Event-Stream; charset=utf-8":                 "text/event-stream",
		"text/plain":                                       "text/plain",
		"text/*":                                           "text/plain",
		"text/*;q=0.5, application/json;q=0.4":             "text/plain",
		"text/*, text/plain;q=0.1":                         "text/html",
		"text/plain;q=0.1, text/*":                         "text/html",
		"application/json;q=0, */*":                        "text/plain",
		"text/html;q=0.5, application/json;q=0.5":          "application/json",
		"text/html;level=1;q=0.7, text/plain;q=0.8":        "text/plain",
		"text/html;Q=0.7, text/plain;q = 0.6":              "text/html",
		"text/html;q=2, text/plain;q=0.001":                "text/plain",
		"text/html;q=NaN, text/plain;q=0.001":              "text/plain",
		"text/html;q=-1, text/plain":                       "text/plain",
		"image/png":                                        "",
		"application/json;q=0":                             "",
		"*/*;q=0":                                          "",
		"json":                                             "",
		"application/problem+json, application/json;q=0.1": "application/json",
	} {
		if got := negotiate([]string{accept}, forms); got != want {
			t.Errorf("%q: got %q, want %q", accept, got, want)
		}
	}
	if got := negotiate([]string{"text/html;q=0.1", "text/plain"}, forms); got != "text/plain" {
		t.Errorf("two lines: got %q", got)
	}
	if got := negotiate(nil, forms); got != "application/json" {
		t.Errorf("no header: got %q", got)
	}
}
