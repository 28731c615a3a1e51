package server

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/event"
)

func TestProfiles(t *testing.T) {
	for path, want := range map[string]int{
		"/debug/pprof/":                   http.StatusOK,
		"/debug/pprof/heap":               http.StatusOK,
		"/debug/pprof/goroutine?debug=1":  http.StatusOK,
		"/debug/pprof/trace?seconds=0.01": http.StatusOK,
		"/debug/pprof/cmdline":            http.StatusNotFound, // it may hold secrets
	} {
		for _, on := range []bool{true, false} {
			if !on {
				want = http.StatusNotFound
			}
			w, served := httptest.NewRecorder(), false
			var mounted []Route
			if on {
				mounted = Profiles()
			}
			told := func(e event.Event) { _, served = e.(event.Served) }
			NewAdmin(Config{Mount: mounted, Events: told, Loopback: true}).http.Handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://localhost"+path, nil))
			if w.Code != want || served != (want == http.StatusOK) {
				t.Errorf("GET %s, on %v: got %d, told as served %v, want %d", path, on, w.Code, served, want)
			}
		}
	}
}

// TestProfileEndsAtShutdown records for longer than a drain may take.
func TestProfileEndsAtShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewAdmin(Config{Mount: Profiles(), Loopback: true})
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.http.Handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "http://localhost/debug/pprof/heap?seconds=30", nil))
		}()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("the recording ended before the shutdown")
		default:
		}
		began := time.Now()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		<-done
		if late := time.Since(began); late > 0 {
			t.Errorf("it ended %v after the shutdown began", late)
		}
	})
}
