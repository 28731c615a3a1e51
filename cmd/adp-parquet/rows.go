package main

import (
	"bytes"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"async-data-processor/message"
)

// row is a line as columns. It refers to the line, and to the splitter that made it.
type row struct {
	id []byte
	// micros is the instant of the timestamp, in microseconds since 1970; stamped tells
	// whether there is one.
	micros  int64
	stamped bool
	// value is the text of a value that is a string; nil if it is not.
	value []byte
	// rest is a JSON object of what the other columns do not say; nil if they say all.
	rest []byte
}

// splitter makes rows of lines.
type splitter struct {
	rules, unstamped *message.Rules
	// ours tells that the timestamp is the member of that name.
	ours bool

	dec         *jsontext.Decoder
	value, rest []byte // memory of the row made last
}

func newSplitter(in *input) *splitter {
	return &splitter{
		rules: in.rules, unstamped: in.unstamped,
		ours: strings.TrimPrefix(in.field, "/") == message.TimestampField,
		dec:  jsontext.NewDecoder(bytes.NewBuffer(nil)),
	}
}

// split makes a row of a line, given without its newline. It takes every line that the
// pipeline writes, whatever its settings, and no other.
func (s *splitter) split(line []byte) (row, error) {
	m, err := s.rules.ParseLine(line)
	r := row{stamped: err == nil}
	if err != nil {
		// The instant of a line without a timestamp would be that in its id, which may be a hash.
		if m, err = s.unstamped.ParseLine(line); err != nil {
			return row{}, err
		}
	}
	if r.id = m.RawID(); r.stamped {
		r.micros = m.Time.UnixMicro() // rounds down, before 1970 as well
	}
	s.value, s.rest = s.value[:0], s.rest[:0]
	// ParseLine has validated the line, so names and UTF-8 need not be looked at again.
	s.dec.Reset(bytes.NewBuffer(line), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if _, err := s.dec.ReadToken(); err != nil {
		return row{}, err
	}
	for s.dec.PeekKind() == jsontext.KindString {
		if err := s.member(&r); err != nil {
			return row{}, err
		}
	}
	if len(s.rest) > 0 {
		s.rest = append(s.rest, '}')
		r.rest = s.rest
	}
	return r, nil
}

// member puts the next member of the line into a column.
func (s *splitter) member(r *row) error {
	name, err := s.dec.ReadValue()
	if err != nil {
		return err
	}
	// What ReadValue returns is valid until the next one.
	mark := len(s.rest)
	s.rest = append(s.rest, ',')
	if mark == 0 {
		s.rest[0] = '{'
	}
	s.rest = append(append(s.rest, name...), ':')
	known := s.columnOf(name)
	value, err := s.dec.ReadValue()
	if err != nil {
		return err
	}
	switch {
	case known == "message_id":
	case known == "timestamp" && r.stamped && s.ours && says(value):
	case known == "value" && value[0] == '"':
		s.value, err = jsontext.AppendUnquote(s.value, value)
		if r.value = s.value; r.value == nil {
			r.value = []byte{} // there, and empty
		}
	default:
		s.rest = append(s.rest, value...)
		return nil
	}
	s.rest = s.rest[:mark]
	return err
}

// columnOf returns the name of a member if a column has that name.
func (s *splitter) columnOf(quoted []byte) string {
	name := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		name, _ = jsontext.AppendUnquote(nil, quoted) // it was validated
	}
	switch string(name) {
	case "message_id":
		return "message_id"
	case "timestamp":
		return "timestamp"
	case "value":
		return "value"
	}
	return ""
}

// says tells whether the column of the timestamp says all that the quoted text does: it
// is in UTC, and has no more than the microseconds. Else the text stays in rest.
func says(quoted []byte) bool {
	const longest = len(`"2006-01-02T15:04:05.999999Z"`)
	return len(quoted) <= longest && bytes.HasSuffix(quoted, []byte(`Z"`))
}
