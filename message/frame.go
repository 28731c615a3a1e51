package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	// MaxRefBytes is the longest ref of a frame.
	MaxRefBytes = 128
	// MaxKeyBytes is the longest idempotency key, of a frame or a request.
	MaxKeyBytes = 255
)

// Frame is what a client sends by WebSocket for a submission.
type Frame struct {
	// Ref is the client's name for the frame, of visible ASCII characters without
	// quote and backslash; empty if the frame is the array of entries.
	Ref string
	// Key is the idempotency key, of visible ASCII characters; empty if there is none.
	Key string
	// Entries is a JSON array, as sent. It refers to the text of the frame.
	Entries []byte
}

var (
	errFrameKind   = errors.New("the frame is neither an array nor an object of JSON")
	errFrameJSON   = errors.New("the frame is not JSON")
	errFrameMember = errors.New("a frame has the members ref, key and entries, each at most once")
	errFrameRef    = fmt.Errorf("ref must be a string of 1 to %d visible ASCII characters without quote and backslash", MaxRefBytes)
	errFrameKey    = fmt.Errorf("key must be a string of 1 to %d visible ASCII characters", MaxKeyBytes)
	errFrameArray  = errors.New("entries must be an array")
)

// lax reads JSON whose names and UTF-8 may break the rules of entries, which Decode
// holds against them.
var lax = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

// ParseFrame reads an array of entries, or {"ref":…,"key":…,"entries":[…]} with the key
// optional. It does not read an array, and what an object has as entries it reads only as
// far as to find its end: Decode is for both. An error quotes nothing of the text.
func ParseFrame(text []byte) (f Frame, err error) {
	start := bytes.TrimLeft(text, blank)
	switch {
	case len(start) > 0 && start[0] == '[':
		return Frame{Entries: text}, nil
	case len(start) == 0 || start[0] != '{':
		return Frame{}, errFrameKind
	}
	d := borrow()
	defer d.giveBack()
	d.read(text, lax...)
	if err := d.frame(text, &f); err != nil {
		return Frame{}, err
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return Frame{}, errFrameJSON
	}
	if f.Ref == "" {
		return Frame{}, errFrameRef
	}
	if f.Entries == nil {
		return Frame{}, errFrameArray
	}
	return f, nil
}

// frame reads the members of an object.
func (d *decoder) frame(text []byte, f *Frame) error {
	if _, err := d.ReadToken(); err != nil {
		return errFrameJSON
	}
	for d.PeekKind() == jsontext.KindString {
		raw, err := d.ReadValue()
		if err != nil {
			return errFrameJSON
		}
		known := memberOf(raw)
		value, err := d.ReadValue()
		switch {
		case err != nil:
			return errFrameJSON
		case known == ref && f.Ref == "":
			if f.Ref = ascii(value, MaxRefBytes); f.Ref == "" || bytes.ContainsRune(value, '\\') {
				return errFrameRef
			}
		case known == key && f.Key == "":
			if f.Key = ascii(value, MaxKeyBytes); f.Key == "" {
				return errFrameKey
			}
		case known == list && f.Entries == nil:
			if value[0] != '[' {
				return errFrameArray
			}
			end := d.InputOffset() // value itself is valid until the next read
			f.Entries = text[end-int64(len(value)) : end]
		default:
			return errFrameMember
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return errFrameJSON
	}
	return nil
}

// Members of a frame.
const (
	noMember = iota
	ref
	key
	list
)

func memberOf(raw []byte) int {
	switch string(raw) {
	case `"ref"`:
		return ref
	case `"key"`:
		return key
	case `"entries"`:
		return list
	}
	return noMember
}

// ascii returns the text of a JSON string of at most so many visible ASCII characters,
// "" if raw is another value.
func ascii(raw []byte, most int) string {
	if raw[0] != '"' {
		return ""
	}
	text := unquote(raw)
	if len(text) > most {
		return ""
	}
	for _, c := range text {
		if c <= ' ' || c > '~' {
			return ""
		}
	}
	return string(text)
}

// IsJSON tells whether text is one value of JSON, whatever its names and UTF-8.
func IsJSON(text []byte) bool {
	d := borrow()
	defer d.giveBack()
	d.read(text, lax...)
	if _, err := d.ReadValue(); err != nil {
		return false
	}
	_, err := d.ReadToken()
	return err == io.EOF
}
