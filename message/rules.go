package message

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/oklog/ulid/v2"
)

// TimestampField is where an entry has its timestamp, unless Rules say otherwise.
const TimestampField = "timestamp"

// maxField is the longest field of Rules, in bytes: answers name it.
const maxField = 64

// Rules say what an entry has to have. They never change what is kept of an
// entry. Make them with NewRules, or take Strict.
type Rules struct {
	// as says which name a member is treated as. It lets the walk over an entry
	// skip a member without a rule, at the price of one load.
	as [nameCount]name
	// path leads to the timestamp; nil if the walk over an entry meets it.
	path []string
	// pointer is where the timestamp is, as a JSON pointer into the entry.
	pointer string
	field   string // as the user wrote it
	arrival bool
}

// Strict are the rules of the HTTP contract: timestamp is required, and value is
// a string if it is there.
var Strict = &Rules{
	as:    [nameCount]name{otherName, timestamp, value, messageID},
	field: TimestampField, pointer: "/" + TimestampField,
}

// NewRules returns rules other than Strict.
//
// field says where an entry has its timestamp: the name of a member or, if it
// begins with a slash, a JSON pointer (RFC 6901) into the entry. It has at most 64
// bytes. Empty means TimestampField.
//
// arrival takes entries without a timestamp. Their instant is the time in the id
// of their submission. That is the time of their arrival, or for KeyedID one that
// is the same for every retry: a retry must find the shard that has its ids.
//
// anyValue takes any JSON value for value, not only a string.
func NewRules(field string, arrival, anyValue bool) (*Rules, error) {
	r := *Strict
	r.arrival = arrival
	if anyValue {
		r.as[value] = otherName
	}
	if field != "" && field != TimestampField && field != Strict.pointer {
		pointer := jsontext.Pointer(field)
		if field[0] != '/' {
			pointer = jsontext.Pointer("").AppendToken(field)
		}
		switch {
		case len(field) > maxField || !utf8.ValidString(field):
			return nil, fmt.Errorf("want at most %d bytes of UTF-8", maxField)
		case !pointer.IsValid():
			return nil, errors.New("want the name of a member, or a JSON pointer such as /event/time")
		}
		for token := range pointer.Tokens() {
			r.path = append(r.path, token)
		}
		if r.path[0] == "message_id" {
			return nil, errMessageID
		}
		r.field, r.pointer = field, string(pointer)
		r.as[timestamp] = otherName
	}
	return &r, nil
}

// instant returns the instant of an entry in whose walk no timestamp was met: it is
// elsewhere, or missing. raw is a valid JSON object, and id that of its submission or
// message. The error is for the client.
func (r *Rules) instant(raw, id []byte) (time.Time, error) {
	if r.path != nil {
		d := borrow()
		defer d.giveBack()
		if found := d.find(raw, r.path); found != nil {
			if found[0] != '"' {
				return time.Time{}, r.wrongKind(found[0])
			}
			return stampOf(unquote(found))
		}
	}
	if r.arrival {
		return timeOf(id), nil
	}
	return time.Time{}, fmt.Errorf("%s is required", r.field)
}

// wrongKind is the fault of a timestamp that is no string but a value that begins
// with c.
func (r *Rules) wrongKind(c byte) error {
	kind := "a number"
	switch c {
	case '{':
		kind = "an object"
	case '[':
		kind = "an array"
	case 'n':
		kind = "null"
	case 't', 'f':
		kind = "a boolean"
	}
	return fmt.Errorf("%s must be a string, not %s; %w", r.field, kind, errTimestamp)
}

// find returns the value that the path leads to, or nil. raw is a valid JSON value.
func (d *decoder) find(raw []byte, path []string) []byte {
	// It was validated before, so names need not be compared again.
	d.read(raw, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	for _, token := range path {
		if !d.enter(token) {
			return nil
		}
	}
	found, err := d.ReadValue()
	if err != nil {
		return nil
	}
	return found
}

// enter goes to the member or element of the next value that the token of a
// pointer names. It returns false if there is none.
func (d *decoder) enter(token string) bool {
	switch opening, err := d.ReadToken(); {
	case err != nil:
		return false
	case opening.Kind() == jsontext.KindBeginObject:
		for d.PeekKind() == jsontext.KindString {
			name, err := d.ReadValue()
			if err != nil || string(unquote(name)) == token {
				return err == nil
			}
			if d.SkipValue() != nil {
				return false
			}
		}
	case opening.Kind() == jsontext.KindBeginArray:
		n, err := strconv.Atoi(token)
		if err != nil || n < 0 || strconv.Itoa(n) != token {
			return false
		}
		for ; n > 0 && d.PeekKind() != jsontext.KindEndArray; n-- {
			if d.SkipValue() != nil {
				return false
			}
		}
		return d.PeekKind() != jsontext.KindEndArray
	}
	return false
}

// timeOf returns the time in the id of a submission, or of one of its messages. It is
// zero for an id that is not ours.
func timeOf(id []byte) time.Time {
	id, _, _ = bytes.Cut(id, []byte{'.'})
	parsed, err := ulid.ParseStrict(string(id))
	if err != nil {
		return time.Time{}
	}
	return ulid.Time(parsed.Time()).UTC()
}
