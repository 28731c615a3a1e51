package message

import "bytes"

// object returns the index after the object at src[i], or bad. The entry
// itself has depth 1.
func (s *scanner) object(i, depth int) int {
	if depth > MaxDepth {
		return bad
	}
	outer := s.names.open
	c, i := s.token(i + 1)
	if c == '}' {
		return i + 1
	}
	for {
		if c != '"' {
			return bad
		}
		end, escaped := textEnd(s.src, i)
		if end == bad || escaped || !s.names.add(s.src, i, end, outer) {
			return bad
		}
		member := otherName
		if depth == 1 && s.form != anyObject {
			if member = s.rules.as[nameOf(s.src[i+1:end-1])]; member == messageID && s.form != ourLine {
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
			s.names.open = outer
			return i + 1
		default:
			return bad
		}
	}
}

// ruled returns the index after the value of a member that must be a string.
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

// value returns the index after the value at src[i], which starts with c and
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

// list returns the index after the array at src[i], or bad.
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
