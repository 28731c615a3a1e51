package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

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
		"a token that submits":            {Config{Tokens: auth, AdminTokens: admin}, "submits", "", 401, ""},
		"a token that views":              {Config{ViewTokens: view, AdminTokens: admin}, "views", "", 401, ""},
		"an administrator":                {Config{AdminTokens: admin}, "admin", "", 200, "ann"},
		"without a name":                  {Config{AdminTokens: admin}, "nameless", "", 200, ""},
		"a page":                          {Config{Loopback: true}, "", "https://evil.example", 403, ""},
		"a page with the token":           {Config{AdminTokens: admin}, "admin", "https://evil.example", 403, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.cfg.Mount = []Route{{Method: http.MethodPost, Path: "/change", Admin: true, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, Client(r))
			})}}
			r := httptest.NewRequest(http.MethodPost, "http://localhost/change", nil)
			if tt.token != "" {
				r.Header.Set("Authorization", "Bearer "+tt.token)
			}
			if tt.origin != "" {
				r.Header.Set("Origin", tt.origin)
			}
			w := httptest.NewRecorder()
			NewAdmin(tt.cfg).http.Handler.ServeHTTP(w, r)
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
	wantProblem(t, rg.post(entry, "Authorization", "Bearer views"), unauthorized)
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "http://localhost/readyz?verbose", nil)
	r.Header.Set("Authorization", "Bearer admin")
	NewAdmin(Config{AdminTokens: []string{"ann:admin"}}).http.Handler.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Errorf("verbose readiness: %d", w.Code)
	}
}
