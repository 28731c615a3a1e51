package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// asked returns the answer to a request with a token and an origin, if they are given.
func asked(s *Server, method, target, token, origin string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://localhost"+target, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if origin != "" {
		r.Header.Set("Origin", origin)
	}
	w := httptest.NewRecorder()
	s.http.Handler.ServeHTTP(w, r)
	return w
}

// TestAdminRoute: who may change the process, by its tokens and where it listens. A page
// of another origin may not, whatever it sends.
func TestAdminRoute(t *testing.T) {
	auth, view, admin := []string{"submits"}, []string{"views"}, []string{"ann:admin", "nameless"}
	tests := map[string]struct {
		cfg    Config
		token  string
		origin string
		want   int
		client string
	}{
		"loopback without tokens":         {Config{Loopback: true}, "", "", 200, ""},
		"beyond loopback, without tokens": {Config{}, "", "", 404, ""},
		"those who submit have tokens":    {Config{Loopback: true, Tokens: auth}, "submits", "", 404, ""},
		"viewers have tokens":             {Config{Loopback: true, ViewTokens: view}, "views", "", 404, ""},
		"no token":                        {Config{Loopback: true, AdminTokens: admin}, "", "", 401, ""},
		"a token that submits":            {Config{Tokens: auth, AdminTokens: admin}, "submits", "", 403, ""},
		"a token that views":              {Config{ViewTokens: view, AdminTokens: admin}, "views", "", 403, ""},
		"an administrator":                {Config{AdminTokens: admin}, "admin", "", 200, "ann"},
		"without a name":                  {Config{AdminTokens: admin}, "nameless", "", 200, ""},
		"a page":                          {Config{Loopback: true}, "", "https://evil.example", 403, ""},
		"a page with the token":           {Config{AdminTokens: admin}, "admin", "https://evil.example", 403, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.cfg.Mount = []Route{{Method: http.MethodPost, Path: "/change", For: Admins, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, Client(r))
			})}}
			w := asked(NewAdmin(tt.cfg), http.MethodPost, "/change", tt.token, tt.origin)
			if w.Code != tt.want || w.Code == 200 && w.Body.String() != tt.client {
				t.Errorf("got %d %q, want %d %q", w.Code, w.Body, tt.want, tt.client)
			}
		})
	}
}

// TestAdminMaySubmitAndView: tokens of administrators do all.
func TestAdminMaySubmitAndView(t *testing.T) {
	rg := start(t, Config{Tokens: []string{"submits"}, ViewTokens: []string{"views"}, AdminTokens: []string{"ann:admin"}})
	want201(t, rg.post(entry, "Authorization", "Bearer admin"), 1)
	wantProblem(t, rg.post(entry, "Authorization", "Bearer views"), forbidden)
	w := asked(NewAdmin(Config{AdminTokens: []string{"ann:admin"}}), http.MethodGet, "/readyz?verbose", "admin", "")
	if w.Code != http.StatusOK {
		t.Errorf("verbose readiness: %d", w.Code)
	}
}

// TestClientsRoute: who submits may follow what became of it, and so may viewers.
func TestClientsRoute(t *testing.T) {
	auth, view, admin := []string{"submits"}, []string{"views"}, []string{"admin"}
	all := Config{Tokens: auth, ViewTokens: view, AdminTokens: admin}
	tests := map[string]struct {
		cfg           Config
		submits       bool
		token, origin string
		want          int
	}{
		"loopback without tokens":                {Config{Loopback: true}, false, "", "", 200},
		"elsewhere, nothing is submitted":        {Config{}, false, "", "", 404},
		"elsewhere, everybody may submit":        {Config{}, true, "", "", 200},
		"viewers have tokens, all may submit":    {Config{ViewTokens: view}, true, "", "", 200},
		"viewers have tokens, nothing submitted": {Config{ViewTokens: view}, false, "", "", 401},
		"no token":                               {all, true, "", "", 401},
		"one that submits":                       {all, true, "submits", "", 200},
		"one that submits, at a consumer":        {all, false, "submits", "", 200},
		"one that views":                         {all, true, "views", "", 200},
		"an administrator":                       {all, true, "admin", "", 200},
		"another":                                {all, true, "x", "", 401},
		"a page":                                 {Config{Loopback: true}, true, "", "https://evil.example", 403},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.cfg.Mount = []Route{{Method: http.MethodGet, Path: "/follow", For: Clients, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}}
			s := NewAdmin(tt.cfg)
			if tt.submits {
				tt.cfg.Submitter = new(fake)
				s = New(tt.cfg)
			}
			w := asked(s, http.MethodGet, "/follow", tt.token, tt.origin)
			if w.Code != tt.want || w.Code == 200 && w.Header().Get("WWW-Authenticate") != "" {
				t.Errorf("got %d %v, want %d", w.Code, w.Header(), tt.want)
			}
		})
	}
}

// TestClientKey: a client without a token is its IP address, or its network of IPv6.
func TestClientKey(t *testing.T) {
	key := func(address string) string { return ClientKey(&http.Request{RemoteAddr: address}) }
	for a, b := range map[string]string{
		"192.0.2.1:1": "192.0.2.1:2", "[2001:db8::1]:1": "[2001:db8::ffff:1]:1", "[fe80::1%eth0]:1": "[fe80::1%eth1]:1", "[::ffff:192.0.2.1]:1": "192.0.2.1:7", "@": "@",
	} {
		if key(a) != key(b) {
			t.Errorf("%s and %s are %s and %s", a, b, key(a), key(b))
		}
	}
	if key("[2001:db8::1]:1") == key("[2001:db8:0:1::1]:1") || key("192.0.2.1:1") == key("192.0.2.2:1") {
		t.Error("two clients are one")
	}
}

// TestRunnerRoute: who may be given work. A token for that is good for nothing else.
func TestRunnerRoute(t *testing.T) {
	runner, admin := []string{"gpu-1:works"}, []string{"ann:admin"}
	tests := map[string]struct {
		cfg   Config
		token string
		want  map[Role]int
	}{
		"loopback without tokens":         {Config{Loopback: true}, "", map[Role]int{Runners: 200, Admins: 200, Viewers: 200}},
		"beyond loopback, without tokens": {Config{}, "", map[Role]int{Runners: 404}},
		"administrators have tokens":      {Config{AdminTokens: admin}, "", map[Role]int{Runners: 401}},
		"an administrator":                {Config{AdminTokens: admin}, "admin", map[Role]int{Runners: 200}},
		"no token":                        {Config{Loopback: true, RunnerTokens: runner}, "", map[Role]int{Runners: 401, Admins: 200}},
		"a runner":                        {Config{RunnerTokens: runner, AdminTokens: admin}, "works", map[Role]int{Runners: 200, Admins: 403, Viewers: 403}},
		"a runner, without other tokens":  {Config{RunnerTokens: runner}, "works", map[Role]int{Runners: 200, Admins: 404, Viewers: 404}},
		"an administrator among runners":  {Config{RunnerTokens: runner, AdminTokens: admin}, "admin", map[Role]int{Runners: 200, Admins: 200}},
		"one who views":                   {Config{RunnerTokens: runner, ViewTokens: []string{"views"}}, "views", map[Role]int{Runners: 403, Viewers: 200}},
		"one who submits":                 {Config{RunnerTokens: runner, Tokens: []string{"submits"}}, "submits", map[Role]int{Runners: 403}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for role, want := range tt.want {
				tt.cfg.Mount = []Route{{Method: http.MethodGet, Path: "/for", For: role, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.WriteString(w, Client(r))
				})}}
				w := asked(NewAdmin(tt.cfg), http.MethodGet, "/for", tt.token, "")
				if w.Code != want {
					t.Errorf("role %d: got %d %q, want %d", role, w.Code, w.Body, want)
				}
			}
		})
	}
}
