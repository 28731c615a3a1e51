package server

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// secured is a process whose surfaces all need a token.
var secured = Config{Tokens: []string{"sensors:submits"}, ViewTokens: []string{"bob:views"}, AdminTokens: []string{"ann:admin", "nameless"}}

// browser sends requests with the cookies it was given, as a page of its origin does.
type browser struct {
	t       *testing.T
	server  *Server
	cookies []*http.Cookie
	header  http.Header
}

// newBrowser is on a server with a route for each role.
func newBrowser(t *testing.T, cfg Config) *browser {
	cfg.Submitter = new(fake)
	for path, role := range map[string]Role{"/follow": Clients, "/view": Viewers} {
		cfg.Mount = append(cfg.Mount, Route{Method: http.MethodGet, Path: path, For: role, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})})
	}
	cfg.Mount = append(cfg.Mount, Route{Method: http.MethodPost, Path: "/change", For: Admins, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, Client(r))
	})})
	return &browser{t: t, server: New(cfg), header: http.Header{"Sec-Fetch-Site": {"same-origin"}}}
}

// do sends a request; header are names and values that replace the browser's.
func (b *browser) do(method, path, body string, header ...string) *httptest.ResponseRecorder {
	b.t.Helper()
	r := httptest.NewRequest(method, "http://localhost:8080"+path, strings.NewReader(body))
	r.Header = b.header.Clone()
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	for _, c := range b.cookies {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	described(b.t, b.server).ServeHTTP(w, r)
	return w
}

// login takes the cookie of a token.
func (b *browser) login(token string) *httptest.ResponseRecorder {
	b.t.Helper()
	w := b.do("POST", "/session", fmt.Sprintf(`{"token":%q}`, token))
	if w.Code != http.StatusOK {
		b.t.Fatalf("login: %d %s", w.Code, w.Body)
	}
	b.cookies = w.Result().Cookies()
	return w
}

// want checks the status of requests, one "method path" each.
func (b *browser) want(status int, requests ...string) {
	b.t.Helper()
	for _, request := range requests {
		method, path, _ := strings.Cut(request, " ")
		if w := b.do(method, path, entry); w.Code != status {
			b.t.Errorf("%s: got %d %s, want %d", request, w.Code, w.Body, status)
		}
	}
}

var everything = []string{"POST /message", "GET /follow", "GET /view", "GET /readyz?verbose", "POST /change"}

// TestSession: a cookie may what its token may, and no more.
func TestSession(t *testing.T) {
	for token, tt := range map[string]struct {
		may  []string
		name string
		told []string
	}{
		"submits":  {[]string{"POST /message", "GET /follow"}, "sensors", []string{"submit"}},
		"views":    {[]string{"GET /follow", "GET /view", "GET /readyz?verbose"}, "bob", []string{"view"}},
		"admin":    {everything, "ann", []string{"submit", "view", "admin"}},
		"nameless": {everything, "", []string{"submit", "view", "admin"}},
	} {
		t.Run(token, func(t *testing.T) {
			b := newBrowser(t, secured)
			b.want(http.StatusUnauthorized, everything...)
			b.want(http.StatusUnauthorized, "GET /session")
			w := b.login(token)
			c := w.Header().Get("Set-Cookie")
			for _, attribute := range []string{"; Path=/;", "; Max-Age=43200;", "; HttpOnly;", "; SameSite=Strict"} {
				if !strings.Contains(c, attribute) {
					t.Errorf("the cookie %s lacks %q", c, attribute)
				}
			}
			if strings.Contains(c, "Secure") || strings.Contains(c, "Domain") || strings.Contains(c, token) || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("got %v", w.Header())
			}
			var told struct {
				May       []string  `json:"may"`
				Name      string    `json:"name"`
				ExpiresAt time.Time `json:"expires_at"`
			}
			must(t, json.Unmarshal(w.Body.Bytes(), &told))
			if !slices.Equal(told.May, tt.told) || told.Name != tt.name || time.Until(told.ExpiresAt).Round(time.Minute) != sessionAge {
				t.Errorf("told %s", w.Body)
			}
			if again := b.do("GET", "/session", ""); again.Code != http.StatusOK || again.Body.String() != w.Body.String() {
				t.Errorf("GET /session: %d %s", again.Code, again.Body)
			}
			for _, request := range everything {
				status := http.StatusForbidden
				if slices.Contains(tt.may, request) {
					status = http.StatusOK
				}
				if request == "POST /message" && status == http.StatusOK {
					status = http.StatusCreated
				}
				b.want(status, request)
			}
			if w := b.do("POST", "/change", ""); w.Code == http.StatusOK && w.Body.String() != tt.name {
				t.Errorf("the client is %q", w.Body)
			}
		})
	}
}

// TestSessionForms: a token comes as JSON, in a form, or as a bearer token, and never
// from a URL.
func TestSessionForms(t *testing.T) {
	b := newBrowser(t, secured)
	const form = "application/x-www-form-urlencoded"
	for _, tt := range []struct {
		name, path, body string
		header           []string
		want             int
	}{
		{"JSON", "", `{"token":"admin"}`, nil, 200},
		{"a form", "", "token=admin", []string{"Content-Type", form}, 200},
		{"a bearer", "", "", []string{"Authorization", "Bearer admin"}, 200},
		{"a wrong bearer beside a right body", "", `{"token":"admin"}`, []string{"Authorization", "Bearer x"}, 401},
		{"a wrong one", "", `{"token":"x"}`, nil, 401},
		{"with its name", "", `{"token":"ann:admin"}`, nil, 401},
		{"none", "", `{}`, nil, 400},
		{"in the URL", "?token=admin", "{}", nil, 400},
		{"in the URL, beside a form", "?token=admin", "a=b", []string{"Content-Type", form}, 400},
		{"another member", "", `{"token":"admin","next":"https://evil.example"}`, nil, 400},
		{"no JSON", "", `token`, nil, 400},
		{"a broken form", "", "token=%zz", []string{"Content-Type", form}, 400},
		{"another type", "", "admin", []string{"Content-Type", "text/plain"}, 415},
		{"too much", "", `{"token":"` + strings.Repeat("a", 9<<10) + `"}`, nil, 413},
		{"a page of another origin", "", `{"token":"admin"}`, []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, 403},
		{"a page of another port", "", "token=admin", []string{"Content-Type", form, "Origin", "http://localhost:1", "Sec-Fetch-Site", "same-site"}, 403},
	} {
		w := b.do("POST", "/session"+tt.path, tt.body, tt.header...)
		if w.Code != tt.want || (w.Header().Get("Set-Cookie") != "") != (tt.want == 200) {
			t.Errorf("%s: got %d %v %s, want %d", tt.name, w.Code, w.Header(), w.Body, tt.want)
		}
	}
	for _, path := range []string{"/view?token=admin", "/view?access_token=admin"} {
		b.want(http.StatusUnauthorized, "GET "+path)
	}
	if used := b.server.budget.used.Load(); used != 0 {
		t.Errorf("%d bytes are not given back", used)
	}
	open := newBrowser(t, Config{Loopback: true})
	if w := open.do("POST", "/session", `{"token":"admin"}`); w.Code != http.StatusNotFound {
		t.Errorf("without tokens: %d", w.Code)
	}
}

// TestSessionForeign: what a page of another origin, another process or another client
// can send as a cookie.
func TestSessionForeign(t *testing.T) {
	b := newBrowser(t, secured)
	b.login("admin")
	good := *b.cookies[0]
	other := newBrowser(t, secured) // the same tokens, another key
	other.login("admin")
	b.want(http.StatusOK, "GET /view", "POST /change")

	for name, header := range map[string][]string{
		"another site":            {"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"},
		"another port":            {"Origin", "http://localhost:1", "Sec-Fetch-Site", "same-site"},
		"an old browser":          {"Origin", "https://evil.example", "Sec-Fetch-Site", ""},
		"a page that may post":    {"Origin", "https://app.example.com", "Sec-Fetch-Site", "same-site"},
		"a link of another site":  {"Sec-Fetch-Site", "cross-site"},
		"a name that was rebound": {"Host", "evil.example"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := secured
			cfg.Origins = []string{"https://app.example.com"}
			b := newBrowser(t, cfg)
			b.login("admin")
			for _, request := range everything {
				method, path, _ := strings.Cut(request, " ")
				r := httptest.NewRequest(method, "http://localhost:8080"+path, strings.NewReader(entry))
				r.AddCookie(b.cookies[0])
				r.Header.Set("Content-Type", "application/json")
				for i := 0; i < len(header); i += 2 {
					if header[i] == "Host" {
						r.Host = header[i+1]
					} else if header[i+1] != "" {
						r.Header.Set(header[i], header[i+1])
					}
				}
				w := httptest.NewRecorder()
				b.server.http.Handler.ServeHTTP(w, r)
				if name == "an old browser" && method == "GET" && w.Code == http.StatusForbidden {
					continue
				}
				if w.Code != 401 && w.Code != 403 && w.Code != 421 {
					t.Errorf("%s: got %d %s", request, w.Code, w.Body)
				}
			}
		})
	}

	value := good.Value
	forged := map[string]string{
		"another process": other.cookies[0].Value, "empty": "", "the token": "admin", "long": strings.Repeat("A", 5000),
		"shorter": value[:len(value)-1], "longer": value + "A", "padded": value + "==", "unsigned": value[:35],
	}
	for i := range value {
		c := byte('A')
		if value[i] == c {
			c = 'B'
		}
		forged[fmt.Sprintf("byte %d", i)] = value[:i] + string(c) + value[i+1:]
	}
	for name, value := range forged {
		c := good
		c.Value = value
		b.cookies = []*http.Cookie{&c}
		if w := b.do("GET", "/view", ""); w.Code != http.StatusUnauthorized {
			t.Errorf("%s: got %d", name, w.Code)
		}
	}
	for name, cookies := range map[string][]*http.Cookie{
		"two cookies":  {&good, &good},
		"another name": {{Name: "adp-session", Value: value}},
		"another port": {{Name: "adp-session-8081", Value: value}},
	} {
		b.cookies = cookies
		if w := b.do("GET", "/view", ""); w.Code != http.StatusUnauthorized {
			t.Errorf("%s: got %d", name, w.Code)
		}
	}
	// A wrong token beside it counts.
	b.cookies = []*http.Cookie{&good}
	if w := b.do("GET", "/view", "", "Authorization", "Bearer x"); w.Code != http.StatusUnauthorized {
		t.Errorf("with a wrong token: %d", w.Code)
	}
}

// TestSessionFixed: who sends a session with the token gets another one.
func TestSessionFixed(t *testing.T) {
	b := newBrowser(t, secured)
	b.login("views")
	planted := *b.cookies[0]
	b.login("admin")
	if b.cookies[0].Value == planted.Value {
		t.Error("the planted session was taken up")
	}
	b.cookies = []*http.Cookie{&planted}
	b.want(http.StatusForbidden, "POST /change")
	b.want(http.StatusOK, "GET /view")
}

// TestSessionEnds: by logout, which the browser and the server learn of, and by time.
func TestSessionEnds(t *testing.T) {
	for _, way := range []string{"DELETE /session", "POST /session/logout"} {
		b := newBrowser(t, secured)
		b.login("admin")
		method, path, _ := strings.Cut(way, " ")
		w := b.do(method, path, "", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")
		if w.Code != http.StatusForbidden {
			t.Errorf("%s of another page: %d", way, w.Code)
		}
		b.want(http.StatusOK, "GET /view")
		w = b.do(method, path, "")
		if w.Code != http.StatusNoContent || !strings.Contains(w.Header().Get("Set-Cookie"), "Max-Age=0") {
			t.Errorf("%s: %d %v", way, w.Code, w.Header())
		}
		b.want(http.StatusUnauthorized, "GET /view") // with the cookie that it has kept
	}
	synctest.Test(t, func(t *testing.T) {
		b := newBrowser(t, secured)
		b.login("admin")
		time.Sleep(sessionAge - time.Second)
		b.want(http.StatusOK, "GET /view")
		time.Sleep(time.Second)
		b.want(http.StatusUnauthorized, "GET /view", "GET /session")
	})
}

// TestSessionEnded: the memory of sessions that were ended is bounded, and the ones whose
// time is over go first.
func TestSessionEnded(t *testing.T) {
	s, now := newSessions("", tokens{{}}), time.Now()
	old := s.begin(0, now.Add(-sessionAge))
	s.end(old, now)
	for range maxEnded {
		s.end(s.begin(0, now), now)
	}
	if _, there := s.ended[old.id]; len(s.ended) != maxEnded || there {
		t.Errorf("%d are remembered, the old one %v", len(s.ended), there)
	}
	last := s.begin(0, now)
	s.end(last, now)
	if _, ok := s.read(s.write(last), now); ok || len(s.ended) != maxEnded {
		t.Errorf("the last one counts %v, %d are remembered", ok, len(s.ended))
	}
}

// TestSessionTries: an address may try so many wrong tokens, and others then may log in.
func TestSessionTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBrowser(t, secured)
		for range 2 {
			for range wrongTries {
				b.login("admin") // a right one costs none
				if w := b.do("POST", "/session", `{"token":"x"}`); w.Code != http.StatusUnauthorized {
					t.Fatalf("got %d", w.Code)
				}
			}
			w := b.do("POST", "/session", `{"token":"admin"}`)
			if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "60" {
				t.Errorf("got %d %v", w.Code, w.Header())
			}
			r := httptest.NewRequest("POST", "http://localhost/session", strings.NewReader(`{"token":"admin"}`))
			r.RemoteAddr = "10.1.2.3:4"
			r.Header.Set("Content-Type", "application/json")
			w = httptest.NewRecorder()
			if b.server.http.Handler.ServeHTTP(w, r); w.Code != http.StatusOK {
				t.Errorf("another address: %d", w.Code)
			}
			b.want(http.StatusOK, "GET /view") // who is in stays in
			time.Sleep(triesInterval)
		}
	})
}

// TestSessionTLS: with TLS no plain connection and no other host can have or set it.
func TestSessionTLS(t *testing.T) {
	b := newBrowser(t, secured)
	r := httptest.NewRequest("POST", "https://localhost/session", nil)
	r.Header.Set("Authorization", "Bearer admin")
	w := httptest.NewRecorder()
	b.server.http.Handler.ServeHTTP(w, r)
	if c := w.Header().Get("Set-Cookie"); !strings.HasPrefix(c, "__Host-adp-session=") || !strings.Contains(c, "; Secure;") {
		t.Errorf("got %q", c)
	}
}
