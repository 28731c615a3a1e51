package server

import (
	"bufio"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestBase: all is served below the base, and only there; but for the health resources.
func TestBase(t *testing.T) {
	rg := start(t, Config{Base: "/adp", Loopback: true, Mount: []Route{
		{Method: http.MethodGet, Path: "/", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "page "+r.URL.Path) })},
		{Method: http.MethodGet, Path: "/items/*", For: Viewers, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", r.URL.Query().Get("to"))
			_, _ = io.WriteString(w, r.URL.Path)
		})},
	}})
	for _, tc := range []struct {
		method, path     string
		status           int
		content, further string // of the body, and Location
	}{
		{"GET", "/adp/", 200, "page /", ""},
		{"GET", "/adp/items/a%2Fb?to=/items/c", 200, "/items/a/b", "/adp/items/c"},
		{"GET", "/adp/items/x?to=https://other.example/", 200, "/items/x", "https://other.example/"},
		{"GET", "/adp/items/x?to=c", 200, "/items/x", "c"},
		{"GET", "/adp/readyz", 200, "ok", ""},
		{"GET", "/readyz", 200, "ok", ""},
		{"HEAD", "/livez", 200, "", ""},
		{"GET", "/adp", 308, "", "/adp/"},
		{"GET", "/", 404, "/items/…", ""},
		{"GET", "/items/x", 404, "below /adp;", ""},
		{"GET", "/adp/adp/readyz", 404, "below /adp;", ""},
		{"GET", "/adpx/readyz", 404, "not-found", ""},
		{"GET", "/%61dp/readyz", 404, "not-found", ""},
		{"GET", "/ADP/readyz", 404, "not-found", ""},
		{"GET", "//adp/readyz", 404, "not-found", ""},
		{"GET", "/adp//readyz", 404, "not-found", ""},
		{"GET", "/x/../adp/readyz", 404, "not-found", ""},
		{"GET", "/adp/../readyz", 404, "not-found", ""},
		{"POST", "/message", 404, "not-found", ""},
		{"GET", "/adp/message", 405, "POST", ""},
	} {
		// The client would clean the path, and follow.
		a := rg.raw(tc.method + " " + tc.path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if a.StatusCode != tc.status || !strings.Contains(string(a.body), tc.content) || a.Header.Get("Location") != tc.further {
			t.Errorf("%s %s: got %d %q %q, want %d %q %q", tc.method, tc.path, a.StatusCode, a.Header.Get("Location"), a.body, tc.status, tc.further, tc.content)
		}
		if a.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s %s: the answer has no id", tc.method, tc.path)
		}
	}
	a := rg.do("POST", "/adp/message", strings.NewReader(entry), "Content-Type", "application/json")
	if place := a.Header.Get("Location"); a.StatusCode != 201 || !strings.HasPrefix(place, "/adp"+ReceiptPath) {
		t.Errorf("got %d, and the submission is at %q", a.StatusCode, place)
	}
}

// TestBaseOfPages: pages of other origins may do below the base what they may without one.
func TestBaseOfPages(t *testing.T) {
	rg := start(t, Config{Base: "/adp", Origins: []string{"https://a.example"}})
	for origin, status := range map[string]int{"https://a.example": 201, "https://b.example": 403} {
		if a := rg.do("POST", "/adp/message", strings.NewReader(entry), "Content-Type", "application/json", "Origin", origin); a.StatusCode != status {
			t.Errorf("a page of %s: got %d %s, want %d", origin, a.StatusCode, a.body, status)
		}
	}
	for _, path := range []string{"/adp/readyz", "/readyz", "/nowhere"} {
		if a := rg.raw("GET " + path + " HTTP/1.1\r\nHost: rebound.example\r\nConnection: close\r\n\r\n"); a.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("%s by a foreign name: got %d, want 421", path, a.StatusCode)
		}
	}
}

// TestBaseSession: the cookie is for what is below the base, and nothing else of the host.
func TestBaseSession(t *testing.T) {
	cfg := secured
	cfg.Base = "/adp"
	b := newBrowser(t, cfg)
	w := b.do("POST", "/adp/session", `{"token":"admin"}`)
	if b.cookies = w.Result().Cookies(); w.Code != 200 || len(b.cookies) != 1 || b.cookies[0].Path != "/adp" || b.cookies[0].Name != "adp-session-8080" {
		t.Fatalf("got %d %s with %v", w.Code, w.Body, b.cookies)
	}
	b.want(http.StatusOK, "GET /adp/view", "GET /adp/session", "POST /adp/change")
	b.want(http.StatusNotFound, "GET /view", "GET /session", "POST /session", "POST /change")
	if w := b.do("DELETE", "/adp/session", ""); w.Code != 204 || w.Result().Cookies()[0].Path != "/adp" {
		t.Errorf("the end: got %d with %v", w.Code, w.Result().Cookies())
	}
	b.want(http.StatusUnauthorized, "GET /adp/view", "GET /adp/session")

	// A browser takes no cookie of the prefix __Host- with another path than "/".
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")))
	must(t, err)
	r.TLS = &tls.ConnectionState{}
	for base, want := range map[string]string{"": "__Host-adp-session", "/adp": "__Secure-adp-session"} {
		if c := newSessions(base).cookie(r, "x", sessionAge); c.Name != want || !c.Secure {
			t.Errorf("with the base %q the cookie is %v", base, c)
		}
	}
}

// TestBaseSocket: WebSockets are below the base as well.
func TestBaseSocket(t *testing.T) {
	rg := start(t, Config{Base: "/adp"})
	handshake := func(path string) int {
		return rg.raw("GET " + path + " HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
			"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Protocol: " + ingestProtocol + "\r\n\r\n").StatusCode
	}
	if got := handshake("/adp/message"); got != http.StatusSwitchingProtocols {
		t.Errorf("got %d, want 101", got)
	}
	if got := handshake("/message"); got != http.StatusNotFound {
		t.Errorf("beside the base: got %d, want 404", got)
	}
}
