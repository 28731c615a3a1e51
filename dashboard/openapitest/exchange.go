package openapitest

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

const (
	// maxKept is how much of the body of an answer is looked at, in bytes.
	maxKept = 1 << 20
	// maxSent is the longest body of a request that is looked at, in bytes.
	maxSent = 64 << 10
)

// keep adds what is read or written of the body of an answer.
func (e *Exchange) keep(text []byte) {
	room := maxKept - len(e.Body)
	e.Cut = e.Cut || len(text) > room
	e.Body = append(e.Body, text[:min(len(text), room)]...)
}

func (e *Exchange) wrong(err error) error {
	return fmt.Errorf("%s %s: %d is not as openapi.yaml has it: %w", e.Method, e.URL, e.Status, err)
}

// Handler returns h. An exchange that is not as it is described fails the test. Paths that
// begin with one of others belong to the test.
func Handler(t testing.TB, h http.Handler, others ...string) http.Handler {
	t.Helper()
	d, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, path := range others {
			if strings.HasPrefix(r.URL.Path, path) {
				h.ServeHTTP(w, r)
				return
			}
		}
		e := &Exchange{Method: r.Method, URL: r.URL, Sent: r.Header}
		var sent bytes.Buffer
		if 0 < r.ContentLength && r.ContentLength <= maxSent {
			teed := *r
			teed.Body = body{io.TeeReader(r.Body, &sent), r.Body}
			r = &teed
		}
		h.ServeHTTP(&recorder{w, e}, r)
		if e.Status == 0 && r.Context().Err() != nil {
			return // the client is gone, and there is no answer
		}
		if int64(sent.Len()) == r.ContentLength {
			e.Request = sent.Bytes()
		}
		if e.Status == 0 {
			e.Header = w.Header()
		}
		e.Status = cmp.Or(e.Status, http.StatusOK)
		if _, err := d.Check(e); err != nil {
			t.Error(e.wrong(err))
		}
	})
}

type body struct {
	io.Reader
	io.Closer
}

// recorder keeps the answer that passes.
type recorder struct {
	http.ResponseWriter
	e *Exchange
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if r.e.Status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		r.e.Status, r.e.Header = status, r.Header().Clone()
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(text []byte) (int, error) {
	if r.e.Status == 0 {
		r.e.Status, r.e.Header = http.StatusOK, r.Header().Clone()
	}
	r.e.keep(text)
	return r.ResponseWriter.Write(text)
}

// Transport holds the exchanges of a client to the description. It may be used
// concurrently.
type Transport struct {
	// Base sends the requests.
	Base http.RoundTripper

	mu    sync.Mutex // guards what follows
	seen  map[string]bool
	wrong []error
}

// RoundTrip implements http.RoundTripper. The answer is looked at when its body is closed.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	e := &Exchange{Method: r.Method, URL: r.URL, Sent: r.Header}
	if r.GetBody != nil && 0 < r.ContentLength && r.ContentLength <= maxSent {
		again, err := r.GetBody()
		if err != nil {
			return nil, err
		}
		e.Request, err = io.ReadAll(again)
		if err != nil {
			return nil, err
		}
	}
	resp, err := t.Base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	e.Status, e.Header = resp.StatusCode, resp.Header
	if e.Status == http.StatusSwitchingProtocols {
		t.look(e) // the body is the connection
		return resp, nil
	}
	if e.Status == http.StatusBadRequest && resp.Header.Get("X-Request-Id") == "" {
		return resp, nil // net/http has refused what is no request, and the server did not see it
	}
	resp.Body = &looking{ReadCloser: resp.Body, length: resp.ContentLength, e: e, look: t.look}
	return resp, nil
}

// CloseIdleConnections is what http.Client calls.
func (t *Transport) CloseIdleConnections() {
	if base, ok := t.Base.(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

func (t *Transport) look(e *Exchange) {
	d, err := Load()
	name := ""
	if err == nil {
		name, err = d.Check(e)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen == nil {
		t.seen = make(map[string]bool)
	}
	if e.Status < 400 {
		t.seen[name] = true
	}
	if err != nil {
		t.wrong = append(t.wrong, e.wrong(err))
	}
}

// Wrong returns what was not as it is described since the last call.
func (t *Transport) Wrong() []error {
	t.mu.Lock()
	defer t.mu.Unlock()
	wrong := t.wrong
	t.wrong = nil
	return wrong
}

// Seen tells whether an operation has given an answer other than an error.
func (t *Transport) Seen(operation string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen[operation]
}

// looking is a body that is kept until it is closed. One goroutine may close it while
// another one reads.
type looking struct {
	io.ReadCloser
	length int64
	look   func(*Exchange)

	mu    sync.Mutex // guards what follows
	e     *Exchange  // nil once it is looked at
	ended bool       // all of it was read
}

// Read implements io.Reader.
func (l *looking) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.e != nil {
		l.e.keep(p[:n])
	}
	l.ended = l.ended || err == io.EOF
	return n, err
}

// Close implements io.Closer. What was not read to its end is cut.
func (l *looking) Close() error {
	l.mu.Lock()
	e := l.e
	l.e = nil
	if e != nil {
		e.Cut = e.Cut || !l.ended && int64(len(e.Body)) != l.length
	}
	l.mu.Unlock()
	if e != nil {
		l.look(e)
	}
	return l.ReadCloser.Close()
}
