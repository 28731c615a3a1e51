package message

import (
	"bytes"
	"strconv"
	"time"
)

// scanner walks over text once: it validates it, finds the members that have
// rules, and copies entries without insignificant white space. It is as strict
// as jsontext and appendEntry together. Text that it does not accept is wrong, or
// has something rare about it. Then jsontext and appendEntry decide.
type scanner struct {
	src  []byte
	form form

	to   *memory // where entries are copied
	from int     // start of the run of src not yet copied

	rules   *Rules
	instant time.Time // of the timestamp met last
	stamped bool      // one was met in this entry

	names names
}

// form is what a scanner takes the objects of a text for.
type form uint8

const (
	// arrayEntry and lineEntry are entries of a JSON and of an NDJSON body; in the
	// latter a newline is no white space.
	arrayEntry form = iota
	lineEntry
	// ourLine is a line of an output file, so it has a message_id. White space is
	// refused, and nothing is copied.
	ourLine
	// anyObject is the same without rules for its members.
	anyObject
)

// scan decodes a body into to. If it returns false, something about the body is
// wrong or rare, and what to holds means nothing.
func scan(to *memory, id string, body []byte, f Format, rules *Rules) bool {
	s := scanner{src: body, to: to, rules: rules}
	to.head = append(append(append(to.head[:0], linePrefix...), id...), '.')
	// Most entries are longer than the id that is put in front of them, so this
	// seldom grows.
	to.reserve(2 * len(body))
	if f == NDJSON {
		s.form = lineEntry
		return s.lines()
	}
	return s.array()
}

func (s *scanner) array() bool {
	i := behindBlank(s.src, 0)
	if i == len(s.src) {
		return false
	}
	if s.src[i] != '[' {
		return s.only(i)
	}
	for c := byte(','); c == ','; c = s.src[i] {
		if i = s.entry(behindBlank(s.src, i+1)); i == bad {
			return false
		}
		if i = behindBlank(s.src, i); i == len(s.src) {
			return false
		}
	}
	return s.src[i] == ']' && behindBlank(s.src, i+1) == len(s.src)
}

// only takes a body that is one entry.
func (s *scanner) only(i int) bool {
	end := s.entry(i)
	return end != bad && behindBlank(s.src, end) == len(s.src)
}

func (s *scanner) lines() bool {
	i := behindBlank(s.src, 0)
	for i < len(s.src) {
		end := s.entry(i)
		if end == bad {
			return false
		}
		i = behindBlank(s.src, end)
		if i < len(s.src) && bytes.IndexByte(s.src[end:i], '\n') < 0 {
			return false // two values on a line
		}
	}
	return len(s.to.messages) > 0
}

// entry makes a message of the entry at src[i] and returns the index after it.
func (s *scanner) entry(i int) int {
	n := len(s.to.messages)
	if i >= len(s.src) || s.src[i] != '{' || n == MaxEntries {
		return bad
	}
	// The entry is at most the rest of the body, so that its line stays where it is.
	s.to.reserve(len(s.to.head) + len(`9999",`) + len(s.src) - i)
	start := len(s.to.lines)
	line := append(s.to.lines, s.to.head...)
	line = append(strconv.AppendInt(line, int64(n), 10), `",`...)
	s.to.lines, s.from, s.stamped = line, i+1, false

	end := s.object(i, 1)
	if end == bad || !s.stamped && !s.stamp(i, end, s.to.head[len(linePrefix):]) || end-i > MaxEntryBytes {
		return bad
	}
	line = append(s.to.lines, s.src[s.from:end]...)
	s.to.lines = line
	s.to.messages = append(s.to.messages, Message{Line: line[start:len(line):len(line)], Time: s.instant})
	return end
}

// stamp sets the instant of the object src[i:end], in whose walk no timestamp was met.
func (s *scanner) stamp(i, end int, id []byte) bool {
	if s.rules == Strict || s.src[behindBlank(s.src, i+1)] == '}' {
		return false // one without members is rare
	}
	var err error
	s.instant, err = s.rules.instant(s.src[i:end], id)
	return err == nil
}

// behindBlank returns the index of the first byte from src[i] on that is not
// white space, or len(src).
func behindBlank(src []byte, i int) int {
	for i < len(src) && (src[i] == ' ' || src[i] == '\n' || src[i] == '\r' || src[i] == '\t') {
		i++
	}
	return i
}
