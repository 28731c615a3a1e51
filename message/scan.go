package message

import (
	"bytes"
	"strconv"
	"time"
)

// maxNames is how many names a scanner remembers: those of the objects that it
// is inside of. So few are faster compared each with each than hashed.
const maxNames = 64

// scanner walks over text once: it validates it, finds the members that have
// rules, and copies entries without insignificant white space. It is as strict
// as jsontext and appendEntry together. What it does not accept is wrong or
// merely rare; they know which.
type scanner struct {
	src  []byte
	form form

	to   *memory // where entries are copied
	from int     // start of the run of src not yet copied

	instant time.Time // of the timestamp met last
	stamped bool      // one was met in this entry

	names [maxNames]struct{ from, end int } // of the objects that are open, quoted, those of the innermost last
	named int                               // how many they are
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
func scan(to *memory, id string, body []byte, f Format) bool {
	s := scanner{src: body, to: to}
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
	if i == len(s.src) || s.src[i] != '[' {
		return false
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

// entry makes a message of the entry at src[i] and returns the index behind it.
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
	if end == bad || !s.stamped || end-i > MaxEntryBytes {
		return bad
	}
	line = append(s.to.lines, s.src[s.from:end]...)
	s.to.lines = line
	s.to.messages = append(s.to.messages, Message{Line: line[start:len(line):len(line)], Time: s.instant})
	return end
}

// object returns the index behind the object at src[i], or bad. The entry
// itself has depth 1.
func (s *scanner) object(i, depth int) int {
	if depth > MaxDepth {
		return bad
	}
	outer := s.named
	c, i := s.token(i + 1)
	if c == '}' {
		return i + 1
	}
	for {
		if c != '"' {
			return bad
		}
		end, escaped := textEnd(s.src, i)
		if end == bad || escaped || !s.remember(i, end, outer) {
			return bad
		}
		member := otherName
		if depth == 1 && s.form != anyObject {
			if member = plainNameOf(s.src[i:end]); member == messageID && s.form != ourLine {
				return bad
			}
		}
		if c, i = s.token(end); c != ':' {
			return bad
		}
		if c, i = s.token(i + 1); member == otherName {
			i = s.value(c, i, depth)
		} else {
			i = s.ruled(member, c, i)
		}
		if i == bad {
			return bad
		}
		switch c, i = s.token(i); c {
		case ',':
			c, i = s.token(i + 1)
		case '}':
			s.named = outer
			return i + 1
		default:
			return bad
		}
	}
}

// remember notes the quoted name src[from:end], of an object whose first name
// has the index first. It returns false if the object has the name already, or
// there are too many.
func (s *scanner) remember(from, end, first int) bool {
	quoted := s.src[from:end]
	for _, other := range s.names[first:s.named] {
		if bytes.Equal(quoted, s.src[other.from:other.end]) {
			return false
		}
	}
	if s.named == maxNames {
		return false
	}
	s.names[s.named].from, s.names[s.named].end = from, end
	s.named++
	return true
}

// ruled returns the index behind the value of a member that must be a string.
func (s *scanner) ruled(member name, c byte, i int) int {
	if c != '"' {
		return bad
	}
	end, _ := textEnd(s.src, i)
	if end != bad && member == timestamp {
		var err error
		if s.instant, err = parseTimestamp(s.src[i+1 : end-1]); err != nil {
			return bad // or it holds an escape
		}
		s.stamped = true
	}
	return end
}

// value returns the index behind the value at src[i], which starts with c and
// stands in something of that depth, or bad.
func (s *scanner) value(c byte, i, depth int) int {
	switch c {
	case '"':
		end, _ := textEnd(s.src, i)
		return end
	case '{':
		return s.object(i, depth+1)
	case '[':
		return s.list(i, depth+1)
	case 't':
		return s.literal(i, "true")
	case 'f':
		return s.literal(i, "false")
	case 'n':
		return s.literal(i, "null")
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return numberEnd(s.src, i)
	}
	return bad
}

// list returns the index behind the array at src[i], or bad.
func (s *scanner) list(i, depth int) int {
	if depth > MaxDepth {
		return bad
	}
	c, i := s.token(i + 1)
	if c == ']' {
		return i + 1
	}
	for {
		if i = s.value(c, i, depth); i == bad {
			return bad
		}
		switch c, i = s.token(i); c {
		case ',':
			c, i = s.token(i + 1)
		case ']':
			return i + 1
		default:
			return bad
		}
	}
}

func (s *scanner) literal(i int, want string) int {
	if !bytes.HasPrefix(s.src[i:], []byte(want)) {
		return bad
	}
	return i + len(want)
}

// token returns the byte that the next token from src[i] on starts with, and
// its index; 0 stands for none.
func (s *scanner) token(i int) (byte, int) {
	if i < len(s.src) {
		if c := s.src[i]; c > ' ' {
			return c, i
		}
	}
	return s.blankToken(i)
}

func (s *scanner) blankToken(i int) (byte, int) {
	if s.form != arrayEntry && s.form != lineEntry {
		return 0, i
	}
	end := behindBlank(s.src, i)
	if end == len(s.src) || s.form == lineEntry && bytes.IndexByte(s.src[i:end], '\n') >= 0 {
		return 0, i
	}
	s.to.lines = append(s.to.lines, s.src[s.from:i]...)
	s.from = end
	return s.src[end], end
}

// behindBlank returns the index of the first byte from src[i] on that is not
// white space, or len(src).
func behindBlank(src []byte, i int) int {
	for i < len(src) && (src[i] == ' ' || src[i] == '\n' || src[i] == '\r' || src[i] == '\t') {
		i++
	}
	return i
}

// plainNameOf is nameOf without escapes.
func plainNameOf(quoted []byte) name {
	switch string(quoted) {
	case `"timestamp"`:
		return timestamp
	case `"value"`:
		return value
	case `"message_id"`:
		return messageID
	}
	return otherName
}
