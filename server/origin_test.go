package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"async-data-processor/event"
)

// TestHosts: a request to a name that may resolve to anything is refused, whatever
// it asks for.
func TestHosts(t *testing.T) {
	rg := start(t, Config{Hosts: []string{"ingest.example.com.", "door_1"}})
	long := strings.Repeat("a", 100_000)
	for host, want := range map[string]int{
		"localhost": 200, "localhost:8080": 200, "LocalHost:1": 200, "localhost.": 200, "localhost.:65535": 200,
		"127.0.0.1": 200, "127.0.0.1:8080": 200, "127.0.0.1.": 200, "10.1.2.3": 200, "0.0.0.0": 200,
		"[::1]": 200, "[::1]:8080": 200, "[::ffff:127.0.0.1]:80": 200, "[fe80::1%25eth0]": 200,
		"ingest.example.com": 200, "INGEST.Example.com.:443": 200, "door_1:80": 200,
		"": 200, // no page can send it

		"evil.example": 421, "evil.example:8080": 421, "example.com": 421, "x.ingest.example.com": 421,
		"localhost.evil.example": 421, "127.0.0.1.evil.example": 421, "localhost..": 421, ".localhost": 421, "a.localhost": 421,
		"localhost:": 200, "localhost:a": 421, "localhost:80:80": 421, "localhost:123456": 421, "localhost:-1": 421,
		"evil.example:localhost": 421, "localhost,evil.example": 421,
		"[::1": 421, "::1": 421, "[::1]80": 421, "[::1]:": 200, "[::1]:a": 421, "[localhost]": 421, "[127.0.0.1]": 421, "[]": 421, "[": 421, ":": 421, ":80": 421, ".": 421,
		"127.1": 421, "0x7f.0.0.1": 421, "2130706433": 421, "1.2.3.4.5": 421, "127.0.0.1%25lo": 421,
		long: 421,
	} {
		for _, ask := range []string{"GET /livez", "GET /readyz?verbose", "POST /message", "OPTIONS /message", "GET /nowhere"} {
			a := rg.raw(ask + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			if want == 421 {
				if p := wantProblem(t, a, misdirected); !strings.Contains(p.Detail, "ALLOWED_HOSTS") || len(a.body) > 1000 {
					t.Errorf("%s to %.99q: got %.300s", ask, host, a.body)
				}
			} else if a.StatusCode == 421 {
				t.Errorf("%s to %q: got 421", ask, host)
			}
			if e := <-rg.events; want == 421 {
				if _, ok := e.(event.Refused); !ok {
					t.Errorf("%s to %.99q: told %T", ask, host, e)
				}
			}
		}
	}

	// Which of two hosts counts is net/http's matter; that it is looked at is ours.
	for request, want := range map[string]int{
		"GET http://evil.example/livez HTTP/1.1\r\nHost: localhost\r\n":                421,
		"GET /livez HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: localhost\r\n": 421,
		"GET /livez HTTP/1.1\r\nHost: evil.example\r\nForwarded: host=localhost\r\n":   421,
		"GET /livez HTTP/1.0\r\n": 200,
		"GET /livez HTTP/1.1\r\n": 400,
		"GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n":  400,
		"GET /livez HTTP/1.1\r\nHost: evil.example\r\n Host: localhost\r\n": 400,
		"GET /livez HTTP/1.1\r\nHost: localho\u017ft\r\n":                   400,
	} {
		if a := rg.raw(request + "Connection: close\r\n\r\n"); a.StatusCode != want {
			t.Errorf("%q: got %d, want %d", request, a.StatusCode, want)
		}
	}
	rg.wantSubmitted(0)
}

// TestOtherOrigins: a page of another origin cannot change anything, programs can.
func TestOtherOrigins(t *testing.T) {
	rg := start(t, Config{})
	own := "http://" + rg.addr
	for _, tc := range []struct {
		name   string
		header []string
		other  bool
	}{
		{"a program", nil, false},
		{"our page", []string{"Origin", own, "Sec-Fetch-Site", "same-origin"}, false},
		{"our page, old browser", []string{"Origin", own}, false},
		{"the user", []string{"Sec-Fetch-Site", "none"}, false},
		{"another page", []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, true},
		{"another page, old browser", []string{"Origin", "https://evil.example"}, true},
		{"a page of another port", []string{"Origin", "http://127.0.0.1:1", "Sec-Fetch-Site", "same-site"}, true},
		{"a sandboxed page", []string{"Origin", "null", "Sec-Fetch-Site", "cross-site"}, true},
		{"a sandboxed page, old browser", []string{"Origin", "null"}, true},
		{"what is not known yet", []string{"Sec-Fetch-Site", "other"}, true},
		{"no URL", []string{"Origin", "://%"}, true},
		{"a name that begins like ours", []string{"Origin", own + ".evil.example"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sent := len(rg.submissions())
			a := rg.post(entry, tc.header...)
			if !tc.other {
				want201(t, a, 1)
				return
			}
			wantProblem(t, a, crossOrigin)
			for _, method := range []string{"PUT", "DELETE", "BREW"} {
				wantProblem(t, rg.do(method, "/readyz", nil, tc.header...), crossOrigin)
			}
			rg.wantSubmitted(sent)
			if a.Header.Get("Access-Control-Allow-Origin") != "" || a.Header.Get("Vary") != "" {
				t.Errorf("got the header %v", a.Header)
			}
			if a := rg.do("GET", "/livez", nil, tc.header...); a.StatusCode != 200 || a.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("GET: got %d with the header %v", a.StatusCode, a.Header)
			}
		})
	}
}

// preflight is a browser's question, with more header.
func (rg *rig) preflight(path, origin string, header ...string) answer {
	rg.t.Helper()
	return rg.do("OPTIONS", path, nil, append(header, "Origin", origin, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors",
		"Access-Control-Request-Headers", "authorization,content-type")...)
}

// TestCORS: pages of the origins that are set may post, and read every answer.
func TestCORS(t *testing.T) {
	const app, other = "https://app.example.com", "http://localhost:3000"
	rg := start(t, Config{Origins: []string{app, other}, Tokens: []string{"x"}})
	post := []string{"Access-Control-Request-Method", "POST"}
	for _, origin := range []string{app, other} {
		a := rg.preflight("/message", origin, post...)
		got := fmt.Sprint(a.StatusCode, a.Header["Access-Control-Allow-Origin"], a.Header["Access-Control-Allow-Methods"], a.Header["Vary"], len(a.body))
		if want := fmt.Sprint(204, []string{origin}, []string{"POST"}, []string{"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"}, 0); got != want {
			t.Errorf("the preflight of %s: got %s, want %s", origin, got, want)
		}
		for _, name := range []string{"Authorization", "Content-Type", "Content-Encoding", "Idempotency-Key", "X-Request-Id"} {
			if !strings.Contains(a.Header.Get("Access-Control-Allow-Headers"), name) {
				t.Errorf("the preflight allows no %s", name)
			}
		}
		if a.Header.Get("Access-Control-Max-Age") == "" || a.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("got the header %v", a.Header)
		}
		page := []string{"Origin", origin, "Sec-Fetch-Site", "cross-site"}
		good := rg.post(entry, append(page, "Authorization", "Bearer x")...)
		want201(t, good, 1)
		refused := rg.post(entry, page...)
		wantProblem(t, refused, unauthorized)
		for _, a := range []answer{good, refused} {
			if a.Header.Get("Access-Control-Allow-Origin") != origin || a.Header.Get("Vary") != "Origin" ||
				!strings.Contains(a.Header.Get("Access-Control-Expose-Headers"), "X-Request-Id") {
				t.Errorf("%d has the header %v", a.StatusCode, a.Header)
			}
		}
	}

	sent := len(rg.submissions())
	for name, origin := range map[string]string{
		"another": "https://evil.example", "null": "null", "port": app + ":444", "scheme": "http://app.example.com",
		"suffix": app + ".evil.example", "prefix": "https://evil-app.example.com", "case": "https://APP.example.com", "empty": "", "both": app + ", " + other,
	} {
		for _, a := range []answer{
			rg.preflight("/message", origin, post...),
			rg.post(entry, "Origin", origin, "Sec-Fetch-Site", "cross-site", "Authorization", "Bearer x"),
		} {
			if p := wantProblem(t, a, crossOrigin); !strings.Contains(p.Detail, "CORS_ORIGINS") || a.Header.Get("Access-Control-Allow-Origin") != "" || a.Header.Get("Vary") != "Origin" {
				t.Errorf("%s: got %s with the header %v", name, a.body, a.Header)
			}
		}
	}
	for _, a := range []answer{
		rg.preflight("/message", app, "Access-Control-Request-Method", "PUT"),
		rg.preflight("/message", app, "Access-Control-Request-Method", "POST", "Access-Control-Request-Method", "PUT"),
		rg.preflight("/message", app, append(post, "Origin", other)...),
		rg.preflight("/readyz", app, post...),
		rg.preflight("/message/", app, post...),
		rg.do("POST", "/readyz", nil, "Origin", app, "Sec-Fetch-Site", "cross-site"),
	} {
		wantProblem(t, a, crossOrigin)
	}
	for method, want := range map[string]string{"PUT": `no method but POST; the method it asks for is "PUT"`, "post": `is "post"`} {
		a := rg.preflight("/message", app, "Access-Control-Request-Method", method)
		if p := wantProblem(t, a, crossOrigin); !strings.Contains(p.Detail, want) {
			t.Errorf("%s: got %q, want %q", method, p.Detail, want)
		}
	}
	if a := rg.do("GET", "/readyz", nil, "Origin", app); a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("a page may read /readyz: %v", a.Header)
	}
	rg.wantSubmitted(sent)
}

// TestPreflightSaysWhy: without CORS_ORIGINS, too.
func TestPreflightSaysWhy(t *testing.T) {
	rg := start(t, Config{})
	a := rg.preflight("/message", "https://app.example.com", "Access-Control-Request-Method", "POST")
	if p := wantProblem(t, a, crossOrigin); !strings.Contains(p.Detail, "CORS_ORIGINS is not set") {
		t.Errorf("got %q", p.Detail)
	}
	if a := rg.do("OPTIONS", "/message", nil); a.StatusCode != http.StatusNoContent || !strings.Contains(a.Header.Get("Allow"), "POST") {
		t.Errorf("OPTIONS of a program: got %d, Allow %q", a.StatusCode, a.Header.Get("Allow"))
	}
}

// TestPreflightFlood: preflights hold nothing of the budget, and read no body.
func TestPreflightFlood(t *testing.T) {
	rg := start(t, Config{Origins: []string{"https://app.example.com"}})
	rg.server.gate.origins = append(rg.server.gate.origins, strings.Repeat("o", 1000))
	for i := range 200 {
		origin := []string{"https://app.example.com", "https://evil.example", strings.Repeat("o", i*1000)}[i%3]
		a := rg.raw("OPTIONS /message HTTP/1.1\r\nHost: x\r\nOrigin: " + origin + "\r\nAccess-Control-Request-Method: POST\r\nContent-Length: 10485760\r\n\r\n")
		if a.StatusCode != 204 && a.StatusCode != 403 || len(a.body) > 1000 {
			t.Fatalf("got %d with %d bytes", a.StatusCode, len(a.body))
		}
		<-rg.events
	}
	want201(t, rg.post(entry), 1)
}

func TestCheckOrigin(t *testing.T) {
	for _, good := range []string{"https://app.example.com", "http://localhost:3000", "https://[::1]:8443", "https://xn--bcher-kva.example", "capacitor://localhost"} {
		if err := CheckOrigin(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{
		"", "*", "null", "app.example.com", "https://", "https://app.example.com/", "https://app.example.com/a", "https://u@app.example.com",
		"https://app.example.com?x", "https://APP.example.com", "https://*.example.com", "https://app.example.com:443", "http://a:80", "https://b\u00fccher.example", "https://a b", " https://a", "%",
	} {
		if CheckOrigin(bad) == nil {
			t.Errorf("%q is an origin", bad)
		}
	}
	for _, good := range []string{"a", "ingest.example.com", "ingest.example.com.", "a_b-c"} {
		if err := CheckHost(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "a:80", "*", "*.example.com", "b\u00fccher.example", "a b", "http://a", "a/b", "[::1]", strings.Repeat("a", 254)} {
		if CheckHost(bad) == nil {
			t.Errorf("%q is a host", bad)
		}
	}
}

// TestView: only those who may view see why a check fails, and profiles.
func TestView(t *testing.T) {
	const secret = "open /srv/alice/data: permission denied"
	ready := func() []Check { return []Check{{Name: "broker"}, {Name: "output", Err: errors.New(secret)}} }
	for _, tc := range []struct {
		name                       string
		cfg                        Config
		nameless, submits, strange int // of /debug/pprof/; for a viewer it is 200 if there is a token
	}{
		{"loopback", Config{Loopback: true}, 200, 200, 200},
		{"loopback, tokens", Config{Loopback: true, Tokens: []string{"submits"}}, 404, 404, 404},
		{"loopback, view tokens", Config{Loopback: true, ViewTokens: []string{"ann:views", "z"}}, 401, 401, 401},
		{"beyond", Config{}, 404, 404, 404},
		{"beyond, tokens", Config{Tokens: []string{"submits"}}, 404, 404, 404},
		{"beyond, view tokens", Config{Tokens: []string{"submits"}, ViewTokens: []string{"views"}}, 401, 403, 401},
		{"beyond, a bad view token", Config{ViewTokens: []string{""}}, 401, 401, 401},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.cfg.Ready, tc.cfg.Mount = ready, Profiles()
			rg := start(t, tc.cfg)
			check := func(want int, header ...string) {
				t.Helper()
				if a := rg.do("GET", "/debug/pprof/", nil, header...); a.StatusCode != want {
					t.Errorf("profiles with %q: got %d, want %d", header, a.StatusCode, want)
				}
				for _, path := range []string{"/readyz?verbose", "/health?verbose=0", "/readyz?a&%76erbose", "/readyz?;&verbose=%zz&verbose"} {
					a := rg.do("GET", path, nil, header...)
					shown := strings.Contains(string(a.body), secret)
					if shown != (want == 200) || strings.Contains(string(a.body), "alice") != shown {
						t.Errorf("%s with %q: got %s", path, header, a.body)
					}
					if want == 401 {
						wantProblem(t, a, unauthorized)
					} else if want == 403 {
						wantProblem(t, a, forbidden)
						if challenge := a.Header.Get("WWW-Authenticate"); !strings.Contains(challenge, `error="insufficient_scope"`) || !strings.Contains(string(a.body), "VIEW_TOKENS") {
							t.Errorf("got the challenge %q and %s", challenge, a.body)
						}
					} else if a.StatusCode != 503 || !strings.Contains(string(a.body), `"broker":"ok","output":"`) || !json.Valid(a.body) {
						t.Errorf("%s with %q: got %d %s", path, header, a.StatusCode, a.body)
					}
				}
				for path, status := range map[string]int{"/readyz": 503, "/livez": 200, "/livez?verbose": 200} {
					if a := rg.do("GET", path, nil, header...); a.StatusCode != status || strings.Contains(string(a.body), "broker") {
						t.Errorf("%s with %q: got %d %s", path, header, a.StatusCode, a.body)
					}
				}
			}
			check(tc.nameless)
			check(tc.submits, "Authorization", "Bearer submits")
			check(tc.strange, "Authorization", "Bearer strange")
			if tc.strange == 401 && tc.cfg.ViewTokens[0] != "" {
				check(200, "Authorization", "Bearer views")
				wantProblem(t, rg.do("GET", "/readyz?verbose&access_token=views", nil), unauthorized)
				if len(tc.cfg.Tokens) > 0 {
					wantProblem(t, rg.post(entry, "Authorization", "Bearer views"), forbidden)
				}
			}
		})
	}
}

// TestProfilesOfOtherOrigins: a page may not start what it cannot read.
func TestProfilesOfOtherOrigins(t *testing.T) {
	rg := start(t, Config{Loopback: true, Mount: Profiles()})
	for site, want := range map[string]int{"cross-site": 403, "same-site": 403, "same-origin": 200, "none": 200} {
		if a := rg.do("GET", "/debug/pprof/trace?seconds=0.01", nil, "Sec-Fetch-Site", site); a.StatusCode != want {
			t.Errorf("%s: got %d, want %d", site, a.StatusCode, want)
		}
	}
}

// TestLinks: a page of another site may link to what clients follow, and do nothing else
// with it. No cookie counts then.
func TestLinks(t *testing.T) {
	page := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	cfg := Config{Loopback: true}
	for path, role := range map[string]Role{"/follow": Clients, "/view": Viewers} {
		cfg.Mount = append(cfg.Mount, Route{Method: http.MethodGet, Path: path, For: role, Handler: page})
	}
	link := []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}
	rg := start(t, cfg)
	for what, tt := range map[string]struct {
		path   string
		header []string
		want   int
	}{
		"link":      {"/follow", link, 200},
		"view":      {"/view", link, 403},
		"frame":     {"/follow", append(link[:4:4], "Sec-Fetch-Dest", "iframe"), 403},
		"fetch":     {"/follow", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"}, 403},
		"websocket": {"/follow", append(link[:6:6], "Upgrade", "websocket"), 403},
	} {
		if a := rg.do("GET", tt.path, nil, tt.header...); a.StatusCode != tt.want {
			t.Errorf("%s: got %d, want %d", what, a.StatusCode, tt.want)
		}
	}
	cfg.Tokens = []string{"token"}
	rg = start(t, cfg)
	begun := rg.do("POST", "/session", nil, "Authorization", "Bearer token")
	cookie, _, _ := strings.Cut(begun.Header.Get("Set-Cookie"), ";")
	if a := rg.do("GET", "/follow", nil, "Cookie", cookie); a.StatusCode != 200 {
		t.Errorf("with the cookie: got %d", a.StatusCode)
	}
	wantProblem(t, rg.do("GET", "/follow", nil, append(link, "Cookie", cookie)...), unauthorized)
}

// TestAdmitIsCheap: what every request passes allocates nothing.
func TestAdmitIsCheap(t *testing.T) {
	g := &gate{hosts: []string{"ingest.example.com"}, origins: []string{"https://app.example.com"}}
	for _, host := range []string{"localhost:8080", "127.0.0.1:8080", "[::1]:8080", "ingest.example.com"} {
		r := jsonRequest(entry)
		r.Host = host
		c := &call{Context: echo.New().NewContext(r, httptest.NewRecorder())}
		if n := testing.AllocsPerRun(100, func() { _, _ = g.admit(c) }); n > 1 { // Vary, of a server with origins
			t.Errorf("to %s: %v allocations", host, n)
		}
		g := &gate{hosts: g.hosts}
		if n := testing.AllocsPerRun(100, func() { _, _ = g.admit(c) }); n > 0 {
			t.Errorf("to %s, without origins: %v allocations", host, n)
		}
	}
}
