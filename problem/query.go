package problem

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// maxQuery bounds the query of a request, in bytes.
const maxQuery = 64 << 10

// Query returns the parameters of a request's query, each with one value. An error says
// for the client what is wrong: one that is not of names, one that is there twice, a
// query of more than 64 KiB or badly encoded.
func Query(r *http.Request, names ...string) (map[string]string, error) {
	values, err := Values(r, "", names...)
	query := make(map[string]string, len(values))
	for name, given := range values {
		query[name] = given[0]
	}
	return query, err
}

// Values is Query where one of the names, repeated, may have several values.
func Values(r *http.Request, repeated string, names ...string) (url.Values, error) {
	if n := len(r.URL.RawQuery); n > maxQuery {
		return nil, fmt.Errorf("the query has %d bytes, want at most %d", n, maxQuery)
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errors.New("the query is badly encoded")
	}
	for name, given := range values {
		switch {
		case !slices.Contains(names, name) && len(names) == 0:
			return nil, fmt.Errorf("%.40q is no parameter; there are none", name)
		case !slices.Contains(names, name):
			return nil, fmt.Errorf("%.40q is no parameter; there are %s", name, strings.Join(names, ", "))
		case len(given) > 1 && name != repeated:
			return nil, fmt.Errorf("%s is there %d times, want it once", name, len(given))
		}
	}
	return values, nil
}

// BadQuery answers that a query is wrong.
func BadQuery(w http.ResponseWriter, err error) {
	Answer(w, http.StatusBadRequest, "invalid-query", err.Error(), 0)
}
