package pipeline

import (
	"net/http"
	"strings"
	"testing"
)

// submitted posts an entry, and returns the place of its receipt.
func (w *works) submitted(token string) string {
	w.t.Helper()
	answer, text := w.ask("POST", w.base+"/message", token, body("a"), "Content-Type", "application/json", "Prefer", "wait=30")
	if answer.StatusCode != http.StatusCreated || !strings.Contains(text, `"written":1,"dead":0,"done":true`) {
		w.t.Fatalf("a submission: %d %s", answer.StatusCode, text)
	}
	return answer.Header.Get("Location")
}

// TestReceiptAccess: a receipt is for those who submit or view, at every listener, by
// token or by cookie.
func TestReceiptAccess(t *testing.T) {
	w := newWorks(t, func(c *Config) {
		c.AuthTokens, c.ViewTokens, c.AdminTokens = []string{"submits"}, []string{"views"}, []string{"admin"}
	})
	place := w.submitted("submits")
	for _, base := range []string{w.base, w.adminBase()} {
		for token, want := range map[string]int{"": 401, "x": 401, "submits": 200, "views": 200, "admin": 200} {
			for _, method := range []string{"GET", "HEAD"} {
				if code, _, text := w.request(method, base+place, token, nil); code != want {
					t.Errorf("%s with %q at %s: %d %s, want %d", method, token, base, code, text, want)
				}
			}
			if want != 200 {
				continue
			}
			code, cookies, text := w.request("POST", base+"/session", token, nil)
			if code != http.StatusOK {
				t.Fatalf("a session of %q at %s: %d %s", token, base, code, text)
			}
			code, _, text = w.request("GET", base+place, "", cookies, "Accept", "text/event-stream")
			if code != http.StatusOK || !strings.HasPrefix(text, "id: done\nevent: done\ndata: {") {
				t.Errorf("with the cookie of %q at %s: %d %s", token, base, code, text)
			}
			seen := http.StatusOK
			if token == "submits" {
				seen = http.StatusForbidden
			}
			if code, _, _ := w.request("GET", base+"/metrics", "", cookies); code != seen {
				t.Errorf("metrics with the cookie of %q at %s: %d, want %d", token, base, code, seen)
			}
			if code, _, _ := w.request("GET", base+place, "", cookies, "Sec-Fetch-Site", "same-site"); code != http.StatusForbidden {
				t.Errorf("with the cookie of %q, of another page, at %s: %d", token, base, code)
			}
		}
		if code, _, _ := w.request("GET", base+place+"?token=submits&access_token=submits", "", nil); code != http.StatusUnauthorized {
			t.Errorf("with a token in the URL at %s: %d", base, code)
		}
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

// TestReceiptBeyondLoopback: without tokens a receipt is for all where all may submit, and
// for no one where nothing is submitted.
func TestReceiptBeyondLoopback(t *testing.T) {
	for name, beyond := range map[string]bool{"loopback": false, "beyond": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorks(t, func(c *Config) {
				if beyond {
					c.Listen, c.AdminListen, c.InsecureNoAuth = "0.0.0.0:0", "0.0.0.0:0", true
				}
			})
			place := w.submitted("")
			want := http.StatusOK
			if beyond {
				want = http.StatusNotFound
			}
			if code, _, text := w.request("GET", w.base+place, "", nil); code != http.StatusOK {
				t.Errorf("at the server: %d %s", code, text)
			}
			if code, _, text := w.request("GET", w.adminBase()+place, "", nil); code != want || code != http.StatusOK && strings.Contains(text, "not-known") {
				t.Errorf("beside the server: %d %s, want %d", code, text, want)
			}
			if err := w.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
