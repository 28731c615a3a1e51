package live

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestLocationHTTP: a location is JSON that is not kept, an id is taken as it is, and one
// client leaves places to others.
func TestLocationHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newWhereabouts(t, 1)
		n := p.start("n", false, 0)
		h := NewLocationHandler(n.Locator, func(r *http.Request) string { return r.RemoteAddr })
		get := func(ctx context.Context, client, id string) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
			r.URL.Path, r.RemoteAddr = MessagePath+id, client
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w
		}
		const id = "a/../<b>?c%"
		p.put(id, Place{Written: true, At: time.Now()}, InFile{File: "shard-0/f", Line: 7})
		w := get(t.Context(), "a", id)
		var l Location
		if err := json.Unmarshal(w.Body.Bytes(), &l); err != nil || l.ID != id || *l.Line != 7 || w.Header().Get("Cache-Control") != "no-store" || strings.Contains(w.Body.String(), "<b>") {
			t.Errorf("%v %s, %v", w.Header(), w.Body, err)
		}
		if w := get(t.Context(), "a", "a b"); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), ":invalid-id") {
			t.Errorf("a bad id: %d %s", w.Code, w.Body)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		p.delay = time.Second / 2
		if w := get(ended, "a", id); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("of a process that stops: %d %s", w.Code, w.Body)
		}
		time.Sleep(time.Minute)
		var all sync.WaitGroup
		codes := make(chan int, 2*maxLocates)
		for range maxLocates {
			all.Go(func() { codes <- get(t.Context(), "a", id).Code })
		}
		synctest.Wait()
		if w := get(t.Context(), "b", id); w.Code != http.StatusOK {
			t.Errorf("another client: %d %s", w.Code, w.Body)
		}
		all.Wait()
		close(codes)
		counts := make(map[int]int)
		for code := range codes {
			counts[code]++
		}
		if counts[http.StatusOK] != maxLocates/4 || counts[http.StatusTooManyRequests] != maxLocates-maxLocates/4 {
			t.Error(fmt.Sprint(counts))
		}
	})
}
