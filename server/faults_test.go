package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"async-data-processor/event"
	"async-data-processor/message"
)

// at is an entry with the given timestamp, written as JSON.
func at(timestamp string) string { return `{"timestamp":` + timestamp + `}` }

// TestRows01To08 is about what is in a body; the decoder has tests of its own.
// Whatever is refused here must not have been published.
func TestRows01To08(t *testing.T) {
	rg := start(t, Config{})
	for _, tc := range []struct {
		row     int
		body    string
		pointer string // of the first error; "-" for any
	}{
		{1, ``, ``},
		{1, `{}`, `/timestamp`},
		{1, `[]`, ``},
		{1, `[null]`, `/0`},
		{2, entry + entry, `-`},
		{2, "\xef\xbb\xbf" + entry, `-`},
		{2, entry[:len(entry)-1], `-`},
		{3, `[{"timestamp":"2019-10-12T08:10:54Z","a":{"b":1,"b":1}}]`, `-`},
		{3, `[{"message_id":"x","timestamp":"2019-10-12T08:10:54Z"}]`, `/0/message_id`},
		{4, "[{\"timestamp\":\"2019-10-12T08:10:54Z\",\"value\":\"\xff\"}]", `-`},
		{5, strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001), `-`},
		{5, `[{"timestamp":"2019-10-12T08:10:54Z","a":` + strings.Repeat(`{"a":`, 32) + "1" + strings.Repeat("}", 32) + `}]`, `/0`},
		{6, `[` + at(`"2019-10-12T08:10:54Z"`) + `,{}]`, `/1/timestamp`},
		{6, `[` + at(`1570867854`) + `]`, `/0/timestamp`},
		{6, `[` + at(`"2019-10-12T24:00:00Z"`) + `]`, `/0/timestamp`},
	} {
		p := wantProblem(t, rg.post(tc.body), invalidSubmission)
		if len(p.Errors) == 0 || p.Errors[0].Detail == "" {
			t.Fatalf("row %d: got %+v, want a list of errors", tc.row, p)
		}
		if got := p.Errors[0].Pointer; tc.pointer != "-" && got != tc.pointer {
			t.Errorf("row %d: got the pointer %q, want %q", tc.row, got, tc.pointer)
		}
	}
	rg.wantSubmitted(0)
	// What is unusual but fine is kept.
	for i, members := range []string{
		`"timestamp":"2019-10-12T08:10:54Z","value":"\u0000\u001b[31m"`,                // row 4
		`"timestamp":"0001-01-01T00:00:00+23:59"`,                                      // row 7
		`"timestamp":"2019-10-12T08:10:54Z","a":9007199254740993,"b":1e400,"c":0.1000`, // row 8
	} {
		id := want201(t, rg.post(`[{`+members+`}]`), 1)
		rg.wantSubmitted(i + 1)
		if got, want := string(rg.submissions()[i].Messages[0].Line), `{"message_id":"`+id+`.0",`+members+`}`; got != want {
			t.Errorf("got the line %s, want %s", got, want)
		}
	}
}

func TestRow09OverALimit(t *testing.T) {
	spaces := strings.Repeat(" ", MaxBodyBytes-len(entry))
	entries := func(n int) string { return "[" + strings.Repeat(at(`"2019-10-12T08:10:54Z"`)+",", n-1) + "{}]" }
	long := `[{"timestamp":"2019-10-12T08:10:54Z","value":"` + strings.Repeat("x", message.MaxEntryBytes) + `"}]`

	rg := start(t, Config{})
	// chunked hides the type of the reader, by which the client knows the length.
	chunked := func(body string) answer {
		return rg.do("POST", "/message", struct{ *strings.Reader }{strings.NewReader(body)}, "Content-Type", "application/json")
	}
	want201(t, rg.post(entry+spaces), 1)
	want201(t, chunked(entry+spaces), 1)
	rg.wantSubmitted(2)

	if p := wantProblem(t, rg.post(entry+spaces+" "), tooLarge); p.Detail != "the body is longer than 10 MiB; send it in parts" {
		t.Errorf("got the detail %q", p.Detail)
	}
	wantProblem(t, chunked(entry+spaces+" "), tooLarge)
	if p := wantProblem(t, rg.post(entries(10_001)), tooLarge); !strings.HasSuffix(p.Detail, "; send it in parts") {
		t.Errorf("got the detail %q", p.Detail)
	}
	if p := wantProblem(t, rg.post(long), tooLarge); p.Detail != "entry 0 has more than 256 KiB: too large for one entry; make the entry smaller; nothing was published" {
		t.Errorf("got the detail %q", p.Detail)
	}
	// Refused by its announcement: there is no body to wait for.
	a := rg.raw(upload(10485761))
	wantProblem(t, a, tooLarge)
	if !a.Close {
		t.Error("the connection stays open with an unread body on it")
	}
	wantProblem(t, rg.post(entries(10_000)), invalidSubmission)
	rg.wantSubmitted(2)
}

func TestRow10Encodings(t *testing.T) {
	rg := start(t, Config{})
	zipped := gzipOf(t, entry)
	for _, tc := range []struct {
		name, body string
		encoding   []string
		kind       kind
	}{
		{"double gzip", gzipOf(t, zipped), []string{"gzip, gzip"}, unsupportedEncoding},
		{"double gzip, two headers", gzipOf(t, zipped), []string{"gzip", "gzip"}, unsupportedEncoding},
		{"double gzip, said once", gzipOf(t, zipped), []string{"gzip"}, invalidSubmission},
		{"deflate", zipped, []string{"deflate"}, unsupportedEncoding},
		{"br", zipped, []string{"br"}, unsupportedEncoding},
		{"gzip that is none", entry, []string{"gzip"}, unreadableBody},
		{"gzip of nothing", "", []string{"gzip"}, unreadableBody},
		{"cut gzip", zipped[:len(zipped)-1], []string{"gzip"}, unreadableBody},
		{"gzip and more", zipped + "x", []string{"gzip"}, unreadableBody},
		{"gzip with a wrong checksum", zipped[:len(zipped)-8] + "????" + zipped[len(zipped)-4:], []string{"gzip"}, unreadableBody},
		{"zstd that is none", entry, []string{"zstd"}, unreadableBody},
		{"cut zstd", zstdOf(t, entry)[:20], []string{"zstd"}, unreadableBody},
		{"gzip unsaid", zipped, nil, invalidSubmission},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var header []string
			for _, e := range tc.encoding {
				header = append(header, "Content-Encoding", e)
			}
			a := rg.post(tc.body, header...)
			p := wantProblem(t, a, tc.kind)
			if tc.kind.status == 400 && len(p.Errors) == 0 {
				t.Error("a 400 without errors")
			}
			if tc.kind == unreadableBody && !strings.Contains(p.Detail, "Content-Encoding "+tc.encoding[0]) {
				t.Errorf("got the detail %q, want it to name the encoding", p.Detail)
			}
			if got, want := a.Header.Get("Accept-Encoding") != "", tc.kind == unsupportedEncoding; got != want {
				t.Errorf("got Accept-Encoding %q", a.Header.Get("Accept-Encoding"))
			}
		})
	}
	rg.wantSubmitted(0)
	for encoding, body := range map[string]string{
		"": entry, "identity": entry, "gzip": zipped, "GZIP": zipped, "x-gzip": zipped, "zstd": zstdOf(t, entry),
	} {
		// Twice, so that a pooled decompressor has its turn.
		for range 2 {
			want201(t, rg.post(body, "Content-Encoding", encoding), 1)
		}
	}
}

func TestRow11ContentTypes(t *testing.T) {
	rg := start(t, Config{})
	for _, bad := range []string{"text/plain", "", "application/json; charset=utf-16", "application/xml", "json", "application/json; charset=", "application/jsonp"} {
		a := rg.post(entry, "Content-Type", bad)
		wantProblem(t, a, unsupportedMediaType)
		if a.Header.Get("Accept-Post") == "" || a.Header.Get("Accept-Encoding") != "" {
			t.Errorf("%q: got the header %v", bad, a.Header)
		}
	}
	wantProblem(t, rg.do("POST", "/message", strings.NewReader(entry)), unsupportedMediaType)
	wantProblem(t, rg.post(entry, "Content-Type", "application/json", "Content-Type", "application/json"), unsupportedMediaType)
	rg.wantSubmitted(0)

	p := wantProblem(t, rg.post(entry, "Content-Type", "application/x-www-form-urlencoded"), unsupportedMediaType)
	if !strings.Contains(p.Detail, "curl -d") {
		t.Errorf("got the detail %q, want it to name curl -d", p.Detail)
	}
	for _, good := range []string{"application/json;charset=UTF-8", `Application/JSON; charset="utf-8"`, "application/json; charset=utf8", "application/json; v=1"} {
		want201(t, rg.post(entry, "Content-Type", good), 1)
		want201(t, rg.post(entry[1:len(entry)-1], "Content-Type", good), 1) // one entry without an array
	}
	lines := at(`"2019-10-12T08:10:54Z"`) + "\n\n" + at(`"2019-10-12T08:10:55Z"`) + "\n"
	for _, good := range []string{
		"application/x-ndjson", "application/x-ndjson; charset=Utf-8", "application/x-ndjson; charset=UTF8",
		"application/ndjson", "application/jsonl", "application/x-jsonlines",
	} {
		want201(t, rg.post(lines, "Content-Type", good), 2)
	}
}

func TestRow12OneBadOfThousand(t *testing.T) {
	rg := start(t, Config{})
	p := wantProblem(t, rg.post("["+strings.Repeat(at(`"2019-10-12T08:10:54Z"`)+",", 999)+at(`"soon"`)+"]"), invalidSubmission)
	if len(p.Errors) != 1 || p.Errors[0].Index != 999 || p.Errors[0].Pointer != "/999/timestamp" {
		t.Errorf("got %+v, want the last entry", p.Errors)
	}
	rg.wantSubmitted(0)
}

// TestRow13ClientGone cuts the connection while the broker is asked: the
// publish goes on, its outcome is told, and goleak finds nothing.
func TestRow13ClientGone(t *testing.T) {
	requests := make(chan context.Context, 1)
	rg := start(t, Config{}, func(s *Server) {
		inner := s.http.Handler
		s.http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests <- r.Context()
			inner.ServeHTTP(w, r)
		})
	})
	entered, release := rg.hold()
	var cancelled error
	held := rg.then
	rg.then = func(ctx context.Context, s message.Submission) error {
		defer func() { cancelled = ctx.Err() }()
		return held(ctx, s)
	}
	c := rg.conn(upload(len(entry)) + entry)
	<-entered
	must(t, c.Close())
	<-(<-requests).Done() // the server has noticed
	close(release)
	if e := told[event.Submitted](rg); e.Status != 201 || e.Accepted != 1 || len(e.Submission) != 26 || cancelled != nil {
		t.Errorf("got %+v and Submit's context %v, want the outcome", e, cancelled)
	}
}

// TestRow13Retry retries with and without the key, compressed and not.
func TestRow13Retry(t *testing.T) {
	rg := start(t, Config{})
	first := want201(t, rg.post(entry, "Idempotency-Key", "k1"), 1)
	same := want201(t, rg.post(gzipOf(t, entry), "Idempotency-Key", "k1", "Content-Encoding", "gzip"), 1)
	if same != first {
		t.Errorf("a retry got the id %s, want %s", same, first)
	}
	for what, a := range map[string]answer{
		"another key":  rg.post(entry, "Idempotency-Key", "k2"),
		"another body": rg.post(entry+" ", "Idempotency-Key", "k1"),
		"no key":       rg.post(entry),
	} {
		if id := want201(t, a, 1); id == first {
			t.Errorf("%s got the same id %s", what, id)
		}
	}
	if one, other := want201(t, rg.post(entry), 1), want201(t, rg.post(entry), 1); one == other {
		t.Error("two requests without a key got the same id")
	}

	sent := len(rg.submissions())
	for _, bad := range [][]string{{""}, {"a b"}, {"ä"}, {strings.Repeat("k", 256)}, {"a", "a"}, {"a\tb"}} {
		var header []string
		for _, key := range bad {
			header = append(header, "Idempotency-Key", key)
		}
		wantProblem(t, rg.post(entry, header...), invalidKey)
	}
	want201(t, rg.post(entry, "Idempotency-Key", strings.Repeat("~", 255)), 1)
	rg.wantSubmitted(sent + 1)
}

func TestRow14PathsAndMethods(t *testing.T) {
	rg := start(t, Config{Tokens: []string{"secret"}})
	for _, tc := range []struct {
		method, path string
		kind         kind
		allow        string
	}{
		{"GET", "/message", methodNotAllowed, "POST"},
		{"HEAD", "/message", methodNotAllowed, "POST"},
		{"PUT", "/message", methodNotAllowed, "POST"},
		{"PATCH", "/message?x", methodNotAllowed, "POST"},
		{"BREW", "/message", methodNotAllowed, "POST"},
		{"POST", "/readyz", methodNotAllowed, "GET"},
		{"DELETE", "/livez", methodNotAllowed, "GET"},
		{"POST", "/message/", notFound, ""},
		{"POST", "//message", notFound, ""},
		{"POST", "/../message", notFound, ""},
		{"POST", "/./message", notFound, ""},
		{"POST", "/Message", notFound, ""},
		{"POST", "/message/x", notFound, ""},
		{"POST", "/", notFound, ""},
		{"GET", "/favicon.ico", notFound, ""},
		{"OPTIONS", "*", notFound, ""},
	} {
		t.Run(tc.method+" "+tc.path, func(t *testing.T) {
			// The client would clean the path.
			a := rg.raw(tc.method + " " + tc.path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n")
			if tc.method == "HEAD" {
				if a.StatusCode != tc.kind.status {
					t.Fatalf("got %d, want %d", a.StatusCode, tc.kind.status)
				}
			} else {
				p := wantProblem(t, a, tc.kind)
				if tc.kind == notFound && !strings.Contains(p.Detail, "there are POST /message, GET /livez, GET /readyz, GET /health, POST /session;") {
					t.Errorf("got the detail %q, want it to name the paths", p.Detail)
				}
			}
			if got := a.Header.Get("Allow"); !strings.Contains(got, tc.allow) || (got == "") != (tc.allow == "") {
				t.Errorf("got Allow %q, want %q", got, tc.allow)
			}
		})
	}
	rg.wantSubmitted(0)
}

func TestRow15Tokens(t *testing.T) {
	rg := start(t, Config{Tokens: []string{"s3cret-one", "s3cret-two", ""}})
	megabyte := strings.Repeat("s", 1<<20+16<<10)
	for _, tc := range []struct {
		name, query string
		header      []string
		sent        bool
	}{
		{"none", "", nil, false},
		{"empty", "", []string{"Authorization", "Bearer "}, false},
		{"empty header", "", []string{"Authorization", ""}, false},
		{"wrong", "", []string{"Authorization", "Bearer s3cret"}, true},
		{"longer", "", []string{"Authorization", "Bearer s3cret-one1"}, true},
		{"megabyte", "", []string{"Authorization", "Bearer " + megabyte}, true},
		{"another scheme", "", []string{"Authorization", "Basic s3cret-one"}, false},
		{"no scheme", "", []string{"Authorization", "s3cret-one"}, false},
		{"two headers", "", []string{"Authorization", "Bearer s3cret-one", "Authorization", "Bearer s3cret-one"}, true},
		{"in the query", "?access_token=s3cret-one", nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := rg.do("POST", "/message"+tc.query, strings.NewReader(entry), append(tc.header, "Content-Type", "application/json")...)
			wantProblem(t, a, unauthorized)
			challenge := a.Header.Get("WWW-Authenticate")
			if !strings.HasPrefix(challenge, "Bearer ") || strings.Contains(challenge, `error="invalid_token"`) != tc.sent {
				t.Errorf("got the challenge %q", challenge)
			}
			told := fmt.Sprintf("%+v", told[event.Refused](rg)) + string(a.body)
			if strings.Contains(told, "s3cret") || strings.Contains(told, megabyte[:100]) {
				t.Errorf("a token was told: %.1000s", told)
			}
		})
	}
	rg.wantSubmitted(0)
	for _, good := range []string{"Bearer s3cret-one", "bearer s3cret-two", "BEARER  s3cret-two"} {
		want201(t, rg.post(entry, "Authorization", good), 1)
	}
	for _, path := range []string{"/readyz", "/livez"} {
		if a := rg.do("GET", path, nil); a.StatusCode != 200 {
			t.Errorf("%s without a token: got %d, want 200", path, a.StatusCode)
		}
	}
}

// TestRow15BeforeTheBody: a client without a token hears so before it sends its body.
func TestRow15BeforeTheBody(t *testing.T) {
	rg := start(t, Config{Tokens: []string{"x"}})
	a := rg.raw(upload(MaxBodyBytes))
	wantProblem(t, a, unauthorized)
	if !a.Close {
		t.Error("the connection stays open with an unread body on it")
	}
	wantProblem(t, rg.raw("POST /message HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"), unauthorized)
}
