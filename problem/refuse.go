package problem

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"
)

// Row says which problem an error is.
type Row struct {
	Is     error
	Status int
	Kind   string
	Retry  int    // see Answer
	Detail string // in place of the error's text; empty for that
}

// Table has the problems that errors are. The first row counts whose error is in the chain.
type Table []Row

// Answer answers with the problem that an error is. An error that is none is a bug.
func (t Table) Answer(w http.ResponseWriter, err error) {
	if large, ok := errors.AsType[*http.MaxBytesError](err); ok {
		Answer(w, http.StatusRequestEntityTooLarge, "too-large", fmt.Sprintf("the body has more than %d bytes", large.Limit), 0)
		return
	}
	detail := strings.ReplaceAll(err.Error(), "\n", "; ")
	for _, row := range t {
		if errors.Is(err, row.Is) {
			if row.Detail != "" {
				detail = row.Detail
			}
			Answer(w, row.Status, row.Kind, detail, row.Retry)
			return
		}
	}
	Answer(w, http.StatusInternalServerError, "internal-error", detail, 0)
}

// ErrBody: the body of a request cannot be used.
var ErrBody = errors.New("the body cannot be used")

// ReadBody reads the body of a request into a value: one JSON text in UTF-8 of at most so
// many bytes, without unknown members. Its error is ErrBody, and io.EOF if there is no text.
func ReadBody(w http.ResponseWriter, r *http.Request, most int64, into any) error {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if err == nil {
		err = decode(text, into)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBody, err)
	}
	return nil
}

func decode(text []byte, into any) error {
	if !utf8.Valid(text) {
		return errors.New("it is not UTF-8")
	}
	in := json.NewDecoder(bytes.NewReader(text))
	in.DisallowUnknownFields()
	if err := in.Decode(into); err != nil {
		return err
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more behind it")
	}
	return nil
}
