package jobs

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
)

// stream reads an answer that goes on, line by line.
type stream struct {
	t *testing.T
	*bufio.Reader
}

func follow(t *testing.T, url string, header ...string) stream {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	for began := time.Now(); ; {
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		if resp.StatusCode == http.StatusOK {
			return stream{t, bufio.NewReader(resp.Body)}
		}
		text, _ := io.ReadAll(resp.Body)
		if !strings.Contains(string(text), "state-database-away") || time.Since(began) > 5*time.Minute { // a busy machine lets it wait
			t.Fatalf("%s: %d %s", url, resp.StatusCode, text)
		}
	}
}

// line returns the next line; "" at the end.
func (s stream) line() string {
	s.t.Helper()
	text, err := s.ReadString('\n')
	if err != nil && err != io.EOF {
		s.t.Fatal(err)
	}
	return text
}

// event returns the next event, without those that keep the stream alive.
func (s stream) event() (id, name, data string) {
	s.t.Helper()
	for {
		line := s.line()
		switch field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); {
		case line == "":
			return id, name, data
		case field == "id":
			id = value
		case field == "event":
			name = value
		case field == "data":
			data = value
		case line == "\n" && data != "":
			return id, name, data
		}
	}
}

// TestLogByRange: parts of a log by their place, which what was thrown away has, too.
func TestLogByRange(t *testing.T) {
	a := newAPI(t, nil)
	want[RunView](t, 202, "POST", a.base+"/api/jobs/hello-world", "")
	log := a.base + "/api/jobs/1/log"
	if resp, text := send(t, "GET", log, ""); resp.StatusCode != 200 || text != "" {
		t.Errorf("before it begins: %d %q", resp.StatusCode, text)
	}
	refusedWith(t, 416, "no-such-range", "GET", log, "", "Range", "bytes=0-")
	refusedWith(t, 404, "not-found", "GET", log+"?attempt=1", "")
	f := a.begin("hello-world")
	a.write(f, 0, "0123456789", 0)
	part := func(header string, status int, text, contentRange string) {
		t.Helper()
		resp, got := send(t, "GET", log, "", "Range", header)
		if resp.StatusCode != status || status < 400 && got != text || resp.Header.Get("Content-Range") != contentRange {
			t.Errorf("%s: %d %q %q, want %d %q %q", header, resp.StatusCode, got, resp.Header.Get("Content-Range"), status, text, contentRange)
		}
	}
	part("bytes=2-4", 206, "234", "bytes 2-4/*")
	part("bytes=8-", 206, "89", "bytes 8-9/*")
	part("bytes=-3", 206, "789", "bytes 7-9/*")
	part("bytes=-30", 206, "0123456789", "bytes 0-9/*")
	part("bytes=10-", 416, "", "bytes */10")
	part("bytes=4000000000000000000-", 416, "", "bytes */10")
	part("bytes=-4000000000000000000", 206, "0123456789", "bytes 0-9/*")
	for _, ignored := range []string{"bytes=4-2", "bytes=0-1,3-4", "lines=0-1", "bytes=x-", "bytes=-0", "bytes=99999999999999999999-", "bytes=-"} {
		part(ignored, 200, "0123456789", "")
	}
	end := a.write(f, 10, "abc", 5)
	end = a.write(f, end, "xyz", 0)
	a.end(f, 0, end)
	part("bytes=11-", 206, "bc", "bytes 11-12/21")
	part("bytes=13-", 206, "xyz", "bytes 18-20/21")
	if _, text := send(t, "GET", log, ""); text != "0123456789abc\n[5 bytes of the log were thrown away here]\nxyz" {
		t.Errorf("the whole log is %q", text)
	}
}

// TestLogIsLong: a range of 1 MiB is answered at once, and a longer log by the stream.
func TestLogIsLong(t *testing.T) {
	a := newAPI(t, nil)
	want[RunView](t, 202, "POST", a.base+"/api/jobs/hello-world", "")
	f := a.begin("hello-world")
	var text strings.Builder
	for i := 0; text.Len() < maxRange+100; i++ {
		fmt.Fprintf(&text, "line %d\n", i)
	}
	a.end(f, 0, a.write(f, 0, text.String(), 0))
	log := a.base + "/api/jobs/1/log"
	if _, got := send(t, "GET", log, ""); got != text.String() {
		t.Errorf("got %d bytes, want %d", len(got), text.Len())
	}
	resp, got := send(t, "GET", log, "", "Range", "bytes=0-")
	if got != text.String()[:maxRange] || resp.Header.Get("Content-Range") != fmt.Sprintf("bytes 0-%d/%d", maxRange-1, text.Len()) {
		t.Errorf("got %d bytes, %s", len(got), resp.Header.Get("Content-Range"))
	}
}

// TestLogFollowed: a log is sent as it comes, over the next attempt, until the run ends.
func TestLogFollowed(t *testing.T) {
	a := newAPI(t, nil)
	a.engine.defined[0].Attempts = 3
	want[RunView](t, 202, "POST", a.base+"/api/jobs/hello-world", "")
	log := a.base + "/api/jobs/1/log"
	lines, events := follow(t, log+"?follow=1"), follow(t, log, "Accept", "text/event-stream")
	f := a.begin("hello-world")
	end := a.write(f, 0, "one\n", 0)
	if got := lines.line(); got != "one\n" {
		t.Errorf("the first line is %q", got)
	}
	if id, name, data := events.event(); id != "1-4" || name != "log" || data != `{"attempt":1,"offset":0,"cut":0,"text":"one\n"}` {
		t.Errorf("the first event is %s %s %s", id, name, data)
	}
	end = a.write(f, end, "tw\xe2\x82", 0) // an unfinished character
	if id, _, data := events.event(); id != "1-6" || data != `{"attempt":1,"offset":4,"cut":0,"text":"tw"}` {
		t.Errorf("an unfinished character: %s %s", id, data)
	}
	end = a.write(f, end, "\xac\n\xff\n", 0)
	if id, _, data := events.event(); id != fmt.Sprint("1-", end) || data != `{"attempt":1,"offset":6,"cut":0,"text":"€\n`+"\ufffd"+`\n"}` {
		t.Errorf("its end, and what is none: %s %s", id, data)
	}
	if got := lines.line() + lines.line(); got != "tw€\n\xff\n" {
		t.Errorf("the bytes are %q", got)
	}
	a.end(f, 75, end) // again later
	next := a.begin("hello-world")
	a.end(next, 0, a.write(next, 0, "again", 0))
	if got := lines.line() + lines.line() + lines.line(); got != "[attempt 2]\nagain" {
		t.Errorf("the next attempt is %q", got)
	}
	if id, _, data := events.event(); id != "2-5" || data != `{"attempt":2,"offset":0,"cut":0,"text":"again"}` {
		t.Errorf("the next attempt: %s %s", id, data)
	}
	var r RunView
	if _, name, data := events.event(); name != "end" || json.Unmarshal([]byte(data), &r) != nil || !r.Success || r.Attempt != 2 {
		t.Errorf("the end: %s %s", name, data)
	}
	if got := events.line() + lines.line(); got != "" {
		t.Errorf("behind the end: %q", got)
	}
	one := follow(t, log+"?follow=1&attempt=1")
	if got := one.line() + one.line() + one.line() + one.line(); got != "one\ntw€\n\xff\n" {
		t.Errorf("the first attempt alone: %q", got)
	}
	resumed := follow(t, log, "Accept", "text/event-stream", "Last-Event-ID", "1-6")
	if id, _, data := resumed.event(); id != fmt.Sprint("1-", end) || !strings.Contains(data, `"offset":6`) {
		t.Errorf("resumed: %s %s", id, data)
	}
}

// TestLogOfTheLost: a log whose rest does not come is not awaited for ever.
func TestLogOfTheLost(t *testing.T) {
	a := newAPI(t, nil)
	want[RunView](t, 202, "POST", a.base+"/api/jobs/hello-world", "")
	f := a.begin("hello-world")
	a.write(f, 0, "begun", 0)
	if _, ok, err := a.store.End(t.Context(), f, store.End{Outcome: frame.TimedOut, Log: 100}); err != nil || !ok {
		t.Fatal(ok, err)
	}
	began := time.Now()
	lines := follow(t, a.base+"/api/jobs/1/log?follow=1")
	if got := lines.line(); got != "begun" || time.Since(began) < lateTime {
		t.Errorf("%q, after %v", got, time.Since(began))
	}
}

// TestLogPlaces: as many logs are sent as may be. One client may have all, and loses one to
// another client.
func TestLogPlaces(t *testing.T) {
	a := newAPI(t, nil)
	want[RunView](t, 202, "POST", a.base+"/api/jobs/hello-world", "")
	h := handlerOf(a.local)
	h.follows = make(chan struct{}, 8) // maxFollowers would need a minute of a busy machine
	url := serveHandler(t, h) + "/api/jobs/1/log?follow=1"
	var greedy []stream
	f := a.begin("hello-world")
	a.write(f, 0, "x\n", 0)
	for range cap(h.follows) {
		s := follow(t, url, "Client", "greedy")
		if s.line() != "x\n" {
			t.Fatal("no log")
		}
		greedy = append(greedy, s)
	}
	refusedWith(t, 503, "too-many-viewers", "GET", url, "", "Client", "greedy")
	if s := follow(t, url, "Client", "modest"); s.line() != "x\n" {
		t.Error("another client gets no log")
	}
	if got := greedy[0].line() + greedy[0].line(); !strings.Contains(got, "another client gets this place") {
		t.Errorf("the oldest hears %q", got)
	}
}

func FuzzLogRange(f *testing.F) {
	for _, text := range []string{"bytes=0-1", "bytes=-5", "bytes=5-", "bytes=9-1", "bytes=0-0,1-1", "bytes=--1", "bytes=4611686018427387904-"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		offset, limit, ranged := readRange([]string{text})
		if limit < 1 || limit > maxRange || !ranged && offset != 0 {
			t.Errorf("%q: %d, %d, %v", text, offset, limit, ranged)
		}
	})
}

func FuzzLogEventID(f *testing.F) {
	f.Add("1-2")
	f.Add("-")
	f.Fuzz(func(t *testing.T, text string) {
		if attempt, offset, ok := readLogEventID(text); ok && (attempt < 1 || offset < 0) {
			t.Errorf("%q: %d, %d", text, attempt, offset)
		}
	})
}

// panicking is a Service with a bug.
type panicking struct{ Service }

// TestTurnAfterPanic: a bug in the answer to one request keeps no other one waiting.
func TestTurnAfterPanic(t *testing.T) {
	h := NewHandler(HandlerConfig{Service: func() Service { return panicking{} }, By: func(*http.Request) string { return "" }})
	for _, path := range []string{"/api/jobs", "/api/jobs/1/log"} {
		for range maxAsking {
			func() {
				defer func() { _ = recover() }()
				h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
			}()
		}
		if n := len(h.asking); n != 0 {
			t.Errorf("%s: %d turns do not end", path, n)
		}
	}
}
