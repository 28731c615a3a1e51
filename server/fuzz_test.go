package server

import (
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"async-data-processor/event"
)

// FuzzSubmit sends anything at all. Whatever it is, the answer is one of the
// contract's, and the Submitter gets it exactly if the answer is 201.
func FuzzSubmit(f *testing.F) {
	type header = string
	for _, seed := range []struct {
		body                               string
		media, encoding, key, token, reqID header
	}{
		{entry, "application/json", "", "", "Bearer x", ""},
		{entry, "application/json; charset=utf-8", "identity", "key", "bearer x", "id"},
		{at(`"2019-10-12T08:10:54Z"`) + "\n", "application/x-ndjson", "", "k", "Bearer x", ""},
		{gzipOf(f, entry), "application/json", "gzip", "", "Bearer x", ""},
		{zstdOf(f, entry), "application/json", "zstd", "", "Bearer x", ""},
		{"[]", "application/json", "", "", "Bearer x", ""},
		{"[1,{}]", "application/json", "", "", "Bearer  x", ""},
		{entry, "text/plain", "br", "\x00", "Basic x", "\n"},
		{entry, "application/json;charset=\"", "gzip,gzip", "", "", ""},
	} {
		f.Add(seed.body, seed.media, seed.encoding, seed.key, seed.token, seed.reqID)
	}
	allowed := []int{201, 400, 401, 413, 415}
	f.Fuzz(func(t *testing.T, body, media, encoding, key, token, reqID string) {
		sub := new(fake)
		var told []event.Event
		s := New(Config{Submitter: sub, Tokens: []string{"x"}, Events: func(e event.Event) { told = append(told, e) }})
		r := httptest.NewRequest("POST", "http://localhost/message", strings.NewReader(body))
		for name, value := range map[string]string{
			"Content-Type": media, "Content-Encoding": encoding, "Idempotency-Key": key, "Authorization": token, "X-Request-Id": reqID,
		} {
			if value != "" {
				r.Header[name] = []string{value}
			}
		}
		w := httptest.NewRecorder()
		s.http.Handler.ServeHTTP(w, r)

		if !slices.Contains(allowed, w.Code) || !json.Valid(w.Body.Bytes()) {
			t.Fatalf("got %d %s", w.Code, w.Body)
		}
		if used := s.budget.used.Load(); used != 0 {
			t.Errorf("%d bytes were not given back", used)
		}
		if len(told) != 1 {
			t.Fatalf("told %+v, want one event", told)
		}
		switch e := told[0].(type) {
		case event.Submitted:
			if e.Status != w.Code || e.Err != nil || w.Code != 201 {
				t.Errorf("told %+v, want %d", e, w.Code)
			}
		case event.Refused:
			if e.Status != w.Code || e.Err == nil || e.Stack != nil || w.Code == 201 {
				t.Errorf("told %+v, want %d", e, w.Code)
			}
		default:
			t.Errorf("told %+v", e)
		}
		if id := w.Header().Get("X-Request-Id"); !only(id, idSafe) || len(id) > 128 {
			t.Errorf("got X-Request-Id %q", id)
		}
		if w.Code != 201 {
			if len(sub.got) != 0 {
				t.Errorf("got %d, but %d submissions went on", w.Code, len(sub.got))
			}
			if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("got the Content-Type %s", got)
			}
			return
		}
		if len(sub.got) != 1 || len(sub.got[0].Messages) == 0 || !strings.EqualFold(token[:7], "Bearer ") {
			t.Fatalf("a 201 for %d submissions, the token %q", len(sub.got), token)
		}
		for _, m := range sub.got[0].Messages {
			if !json.Valid(m.Line) || !strings.HasPrefix(m.ID(), sub.got[0].ID+".") {
				t.Errorf("got the line %s", m.Line)
			}
		}
	})
}

// FuzzBodyFormat finds a media type that is let through although a second look
// says otherwise.
func FuzzBodyFormat(f *testing.F) {
	for _, seed := range []string{"application/json", "application/json; charset=utf-8", "application/x-ndjson;charset=\"UTF-8\"", "text/plain", ";", "application/json;charset*=utf-8''utf-8", "AppliCAtion/ndjson"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		answer := map[string][]string{}
		_, err := bodyFormat(map[string][]string{"Content-Type": {value}}, answer)
		if (err == nil) != (len(answer) == 0) {
			t.Errorf("got %v with the header %v", err, answer)
		}
		media, _, _ := strings.Cut(strings.ToLower(value), ";")
		known := []string{"application/json", "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"}
		if err == nil && !slices.Contains(known, strings.TrimSpace(media)) {
			t.Errorf("%q was let through", value)
		}
	})
}
