package problem

import (
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestReadBody: a body is one JSON text, and each wrong one has its problem.
func TestReadBody(t *testing.T) {
	problems := Table{{Is: ErrBody, Status: 400, Kind: "invalid-thing"}}
	for body, want := range map[string]int{
		`{"a":1}`: 200, ` {"a":1} ` + "\n": 200, "": 400, `{"a":"x"}`: 400, `{"b":1}`: 400, `{"a":1}{}`: 400, `{"a":1`: 400, "{\"a\":1,\"\xff\":1}": 400,
		`{"a":` + strings.Repeat("1", 100) + `}`: 413,
	} {
		w := httptest.NewRecorder()
		var into struct{ A int }
		err := ReadBody(w, httptest.NewRequest("POST", "/", strings.NewReader(body)), 100, &into)
		if err != nil {
			problems.Answer(w, err)
		}
		if w.Code != want || (body == "") != errors.Is(err, io.EOF) || err == nil && into.A != 1 {
			t.Errorf("%q: %d, %v, want %d", body, w.Code, err, want)
		}
	}
}

// TestTable: the first row counts whose error is in the chain, and what is in none is a bug.
func TestTable(t *testing.T) {
	one, two, other := errors.New("one"), errors.New("two"), errors.New("other")
	problems := Table{{Is: one, Status: 409, Kind: "first", Retry: 3}, {Is: two, Status: 404, Kind: "second", Detail: "instead"}}
	for err, want := range map[error]string{
		fmt.Errorf("x: %w", errors.Join(two, one)): `409 3 first x: two; one`,
		two:   `404  second instead`,
		other: `500  internal-error other`,
	} {
		w := httptest.NewRecorder()
		problems.Answer(w, err)
		kind, detail := between(w.Body.String(), Types), between(w.Body.String(), `"detail":"`)
		if got := fmt.Sprintf("%d %s %s %s", w.Code, w.Header().Get("Retry-After"), kind, detail); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// between returns what is behind a text up to the next quote.
func between(text, before string) string {
	_, text, _ = strings.Cut(text, before)
	text, _, _ = strings.Cut(text, `"`)
	return text
}
