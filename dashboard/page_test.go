package dashboard

import (
	"compress/gzip"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// ask asks a page for a file; header are names and values.
func ask(h http.Handler, method, path string, header ...string) *http.Response {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func bodyOf(t *testing.T, a *http.Response) string {
	t.Helper()
	body := io.Reader(a.Body)
	if a.Header.Get("Content-Encoding") == "gzip" {
		var err error
		if body, err = gzip.NewReader(body); err != nil {
			t.Fatal(err)
		}
	}
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestPage: each file has its type, its tag, and the headers that keep a page to itself.
func TestPage(t *testing.T) {
	long := strings.Repeat("export default 1;\n", 100)
	h := newSite(fstest.MapFS{
		"page/index.html":  {Data: []byte("<!doctype html>" + long)},
		"page/app.js":      {Data: []byte(long)},
		"page/vendor/x.js": {Data: []byte("1;")},
		"openapi.yaml":     {Data: []byte("openapi: 3.1.0\n" + long)},
	})
	for path, want := range map[string]struct {
		kind   string
		zipped bool
	}{
		"/":                 {"text/html; charset=utf-8", true},
		"/page/app.js":      {"text/javascript; charset=utf-8", true},
		"/page/vendor/x.js": {"text/javascript; charset=utf-8", false}, // gzip would make it longer
		"/openapi.yaml":     {"application/yaml", true},
	} {
		tags := make(map[string]bool)
		var bodies []string
		for _, takes := range []string{"", "gzip", "br, GZIP;q=0.5", "gzip;q=0", "deflate"} {
			a := ask(h, "GET", path, "Accept-Encoding", takes)
			body := bodyOf(t, a)
			bodies = append(bodies, body)
			tag, zipped := a.Header.Get("ETag"), a.Header.Get("Content-Encoding") == "gzip"
			tags[tag] = true
			if a.StatusCode != 200 || a.Header.Get("Content-Type") != want.kind || zipped != (want.zipped && strings.HasSuffix(strings.TrimSuffix(strings.ToLower(takes), ";q=0.5"), "gzip")) {
				t.Errorf("%s, Accept-Encoding %q: got %d %v", path, takes, a.StatusCode, a.Header)
			}
			if (a.Header.Get("Vary") == "Accept-Encoding") != want.zipped || a.Header.Get("Content-Length") == "" {
				t.Errorf("%s: got %v", path, a.Header)
			}
			for name, value := range map[string]string{
				"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
				"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache",
			} {
				if a.Header.Get(name) != value {
					t.Errorf("%s: %s is %q, want %q", path, name, a.Header.Get(name), value)
				}
			}
			if a := ask(h, "HEAD", path, "Accept-Encoding", takes); a.StatusCode != 200 || a.Header.Get("ETag") != tag || bodyOf(t, &http.Response{Body: a.Body}) != "" {
				t.Errorf("HEAD %s: got %d %v", path, a.StatusCode, a.Header)
			}
			if a := ask(h, "GET", path, "Accept-Encoding", takes, "If-None-Match", `"other", `+tag); a.StatusCode != 304 || a.Header.Get("ETag") != tag {
				t.Errorf("%s again: got %d %v, want 304", path, a.StatusCode, a.Header)
			}
		}
		// A strong tag is of the bytes that are sent.
		if n := len(slices.Compact(bodies)); n != 1 || (len(tags) == 2) != want.zipped || tags[""] || strings.HasPrefix(slices.Collect(maps.Keys(tags))[0], "W/") {
			t.Errorf("%s: %d contents and the tags %v", path, n, tags)
		}
	}
	for _, path := range []string{"/page", "/page/", "/page/index.html", "/page/vendor", "/page/../page/app.js", "/page/no.js", "/page/app.js/", "/index.html"} {
		if a := ask(h, "GET", path); a.StatusCode != 404 || a.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: got %d %v, want 404", path, a.StatusCode, a.Header)
		}
	}
}
