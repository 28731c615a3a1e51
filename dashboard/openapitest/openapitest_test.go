package openapitest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func load(t *testing.T) *Description {
	t.Helper()
	d, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestProblemsAreDocumented: the description and the API page have the same problems.
func TestProblemsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	kinds := load(t).Problems()
	for _, kind := range kinds {
		if !strings.Contains(string(text), "`"+kind+"`") {
			t.Errorf("docs/api.md has no `%s`", kind)
		}
	}
	// A row has a status and then kinds only.
	rows := regexp.MustCompile("(?m)^\\| `[45]\\d\\d` \\| (`[a-z-]+`(?:, `[a-z-]+`)*) \\|").FindAllStringSubmatch(string(text), -1)
	if len(rows) < 25 {
		t.Fatalf("only %d rows of problems were found", len(rows))
	}
	for _, row := range rows {
		for kind := range strings.SplitSeq(row[1], ", ") {
			if !slices.Contains(kinds, strings.Trim(kind, "`")) {
				t.Errorf("openapi.yaml has no %s", kind)
			}
		}
	}
}

// TestDescriptions: the responses that are problems name problems there are.
func TestDescriptions(t *testing.T) {
	d := load(t)
	for _, op := range d.operations {
		for status, r := range op.Responses.Map() {
			if r.Value.Content["application/problem+json"] == nil {
				continue
			}
			named := regexp.MustCompile("`([a-z-]+)`").FindAllStringSubmatch(*r.Value.Description, -1)
			if !slices.ContainsFunc(named, func(m []string) bool { return slices.Contains(d.Problems(), m[1]) }) {
				t.Errorf("%s: the description of %s names no problem", op.name, status)
			}
		}
	}
}

const (
	aReceipt = `{"id":"01M8MHVWDEYAZGNK49BTJY7002","accepted":2,"written":0,"dead":0,"pending":2,"done":false,"state":"queued","shards":{},"as_of":"2026-11-29T21:02:38.244Z"}`
	aProblem = `{"type":"urn:async-data-processor:problem:not-known","title":"x","status":404,"detail":"x"}`
)

// TestCheck: an exchange that differs from the description in one thing is an error that
// names it.
func TestCheck(t *testing.T) {
	d := load(t)
	for name, tc := range map[string]struct {
		change func(e *Exchange)
		want   string // in the error; empty for none
	}{
		"as described":  {func(*Exchange) {}, ""},
		"a member more": {func(e *Exchange) { e.Body = []byte(strings.Replace(aReceipt, "{", `{"more":1,`, 1)) }, `"more" is unsupported`},
		"a member deeper": {func(e *Exchange) {
			e.Body = []byte(strings.Replace(aReceipt, "{}", `{"0":{"written":1,"dead":0,"x":1}}`, 1))
		}, `"x" is unsupported`},
		"a member less":          {func(e *Exchange) { e.Body = []byte(strings.Replace(aReceipt, `"pending":2,`, "", 1)) }, `"pending" is missing`},
		"another type":           {func(e *Exchange) { e.Body = []byte(strings.Replace(aReceipt, `"pending":2`, `"pending":"2"`, 1)) }, "must be an integer"},
		"another state":          {func(e *Exchange) { e.Body = []byte(strings.Replace(aReceipt, "queued", "lost", 1)) }, "not one of the allowed values"},
		"half a body":            {func(e *Exchange) { e.Body = e.Body[:9] }, "unexpected end"},
		"a body that was cut":    {func(e *Exchange) { e.Body, e.Cut = e.Body[:9], true }, ""},
		"another status":         {func(e *Exchange) { e.Status = 202 }, "status is not described"},
		"another content type":   {func(e *Exchange) { e.Header.Set("Content-Type", "text/csv") }, "text/csv is not described"},
		"no content type":        {func(e *Exchange) { e.Header.Del("Content-Type") }, "no Content-Type"},
		"a header more":          {func(e *Exchange) { e.Header.Set("X-More", "1") }, "X-More is not described"},
		"a header of all":        {func(e *Exchange) { e.Header.Set("X-Request-Id", "1") }, ""},
		"a header's value":       {func(e *Exchange) { e.Header.Set("Retry-After", "soon") }, "Retry-After"},
		"a parameter":            {func(e *Exchange) { e.URL.RawQuery = "more=1" }, `"more" is not described`},
		"a parameter's value":    {func(e *Exchange) { e.URL.RawQuery = "indexes=all" }, "indexes"},
		"a slash in a value":     {func(e *Exchange) { e.URL.Path, e.URL.RawPath = "/submissions/a/b", "/submissions/a%2Fb" }, "parameter id"},
		"a value in the path":    {func(e *Exchange) { e.URL.Path = "/submissions/x" }, "parameter id"},
		"HEAD":                   {func(e *Exchange) { e.Method, e.Body = "HEAD", nil }, ""},
		"no HEAD":                {func(e *Exchange) { e.Method, e.Status, e.Body = "HEAD", 405, nil }, ""},
		"another method":         {func(e *Exchange) { e.Method = "PUT" }, "method is not described"},
		"another path":           {func(e *Exchange) { e.URL.Path = "/submission" }, "path is not described"},
		"another path, refused":  {func(e *Exchange) { e.URL.Path = "/submission"; refuse(e, aProblem) }, ""},
		"a refusal":              {func(e *Exchange) { refuse(e, aProblem) }, ""},
		"a refused request":      {func(e *Exchange) { e.URL.RawQuery = "indexes=all"; refuse(e, aProblem) }, ""},
		"another problem":        {func(e *Exchange) { refuse(e, strings.Replace(aProblem, "not-known", "lost", 1)) }, "not one of the allowed values"},
		"a problem of others":    {func(e *Exchange) { refuse(e, strings.Replace(aProblem, "not-known", "paused", 1)) }, "problem paused is not described"},
		"a problem's status":     {func(e *Exchange) { refuse(e, strings.Replace(aProblem, "404", "410", 1)) }, "status 410"},
		"a refusal that is none": {func(e *Exchange) { refuse(e, aReceipt) }, "is unsupported"},
		"events":                 {func(e *Exchange) { stream(e, ":\n\nevent: progress\ndata: "+aReceipt+"\n\nda") }, ""},
		"another event":          {func(e *Exchange) { stream(e, "data: "+aReceipt+"\n\ndata: {\"why\":7}\n\n") }, `"/why": value must be a string`},
	} {
		e := &Exchange{
			Method: "GET", URL: &url.URL{Path: "/submissions/01M8MHVWDEYAZGNK49BTJY7002"}, Sent: http.Header{},
			Status: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(aReceipt),
		}
		tc.change(e)
		_, err := d.Check(e)
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}

func refuse(e *Exchange, body string) {
	e.Status, e.Body = 404, []byte(body)
	e.Header.Set("Content-Type", "application/problem+json")
}

func stream(e *Exchange, body string) {
	e.Body = []byte(body)
	e.Header.Set("Content-Type", "text/event-stream")
}

// failing is a test that counts what fails it.
type failing struct {
	testing.TB
	times int
}

func (f *failing) Helper()      {}
func (f *failing) Error(...any) { f.times++ }

// TestExchanges: what passes a handler, or a client, is held to the description.
func TestExchanges(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/livez":
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"status":"`+r.FormValue("verbose")+`"}`)
		case "/session":
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header()["Content-Type"], w.Header()["Set-Cookie"] = []string{"application/json"}, []string{"x=y"}
			w.WriteHeader(http.StatusOK)
			_, _ = io.WriteString(w, `{"may":["view"],"expires_at":"2026-11-30T09:02:38Z"}`)
		}
	})
	for name, tc := range map[string]struct {
		method, path, body string
		handler, client    bool // it is wrong for these
	}{
		"as described":       {"GET", "/livez?verbose=ok", "", false, false},
		"another body":       {"GET", "/livez?verbose=dead", "", true, true},
		"a path of the test": {"GET", "/test/x", "", false, true},
		"no path":            {"GET", "/tests", "", true, true},
		"no header":          {"POST", "/session/logout", "{}", true, true},
		"a request":          {"POST", "/session", `{"token":"x"}`, false, false},
		"another request":    {"POST", "/session", `{"token":7}`, true, true},
	} {
		counts := &failing{TB: t}
		s := httptest.NewServer(Handler(counts, h, "/test/"))
		through := &Transport{Base: http.DefaultTransport}
		r, err := http.NewRequest(tc.method, s.URL+tc.path, strings.NewReader(tc.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		resp, err := (&http.Client{Transport: through}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		s.Close()
		wrong := len(through.Wrong())
		if err != nil || (counts.times > 0) != tc.handler || (wrong > 0) != tc.client || counts.times > 1 || wrong > 1 {
			t.Errorf("%s: %v; the handler failed %d times, the client %d times", name, err, counts.times, wrong)
		}
		operation, _, _ := strings.Cut(tc.method+" "+tc.path, "?")
		if known := slices.Contains(load(t).Operations(), operation); through.Seen(operation) != known {
			t.Errorf("%s: %s was seen: %t", name, operation, !known)
		}
	}
}
