package broker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"unicode/utf8"
)

// BusVersion is that of the bodies on the bus, their member "v".
const BusVersion = 1

var errVersion = errors.New("unknown version of a body on the bus")

// ReadBody reads a body of the bus, which is JSON, if it is of BusVersion. Members that
// into does not have are ignored. Nothing of it can be trusted: another process wrote it.
func ReadBody(body []byte, into any) error {
	if len(body) > MaxBusBody {
		return fmt.Errorf("a body of %d bytes on the bus, the limit is %d", len(body), MaxBusBody)
	}
	var head struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(body, &head); err != nil {
		return err
	}
	if head.V != BusVersion {
		return errVersion
	}
	return json.Unmarshal(body, into)
}

// Body returns a body of the bus, without the escapes that only HTML needs. It is nil for
// a value that JSON does not have.
func Body(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return nil
	}
	return b.Bytes()
}

// Clip returns the beginning of a text, at most so many bytes, and of them those that JSON
// keeps as they are.
func Clip(text string, most int) string {
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}

// WholeRunes returns how many bytes of a text end with a whole character of UTF-8, or with
// what is none.
func WholeRunes(text string) int {
	for back := 1; back < utf8.UTFMax && back <= len(text); back++ {
		if at := len(text) - back; utf8.RuneStart(text[at]) {
			if !utf8.FullRuneInString(text[at:]) {
				return at
			}
			break
		}
	}
	return len(text)
}

// Skips counts what was on the bus and could not be used, for all who read there. A
// nil one counts nothing. Its methods may be called concurrently.
type Skips struct{ foreign, broken atomic.Int64 }

// Add counts a body by the error of reading it; nil counts nothing.
func (s *Skips) Add(err error) {
	switch {
	case s == nil || err == nil:
	case errors.Is(err, errVersion):
		s.foreign.Add(1)
	default:
		s.broken.Add(1)
	}
}

// Counts returns how many were of an unknown version, and how many broken or beyond a
// bound.
func (s *Skips) Counts() (foreign, broken int64) {
	if s == nil {
		return 0, 0
	}
	return s.foreign.Load(), s.broken.Load()
}
