package message

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// fault is something wrong inside one entry.
type fault struct {
	pointer string // into the entry, "" for all of it
	err     error
}

var (
	errNotObject   = errors.New("an entry must be a JSON object")
	errDepth       = fmt.Errorf("an entry may nest at most %d deep", MaxDepth)
	errValueKind   = errors.New("value must be a string if present")
	errSecondValue = errors.New("there is something behind the JSON value")
	errSecondEntry = errors.New("a second entry is on the line; with curl send a file by --data-binary @file, because -d drops its newlines")
	errMessageID   = errors.New("message_id is given by the server, leave it out")
)

// appendEntry appends the entry to dst, with head in place of its opening brace
// and without insignificant white space, and returns the instant of its
// timestamp. id is that of its submission or message.
//
// raw is a valid JSON value. One walk over its bytes finds the members that have
// rules, measures the depth and copies. Only the timestamp is decoded. It calls
// report for each fault.
func appendEntry(dst, head, raw []byte, rules *Rules, id []byte, report func(fault)) ([]byte, time.Time) {
	if raw[0] != '{' {
		report(fault{"", errNotObject})
		return dst, time.Time{}
	}
	var (
		instant time.Time
		stamped bool
		member  name
		// awaiting what comes next at depth 1: a name, or the first byte of its value.
		awaitName, awaitValue = true, false
		depth, deepest        = 1, 1
		from                  = 1 // start of the run of bytes not yet copied
	)
	dst = append(dst, head...)
	for i := 1; i < len(raw); i++ {
		switch c := raw[i]; c {
		case ' ', '\t', '\n', '\r':
			dst = append(dst, raw[from:i]...)
			from = i + 1
		case '"':
			end, _ := textEnd(raw, i)
			if depth == 1 {
				if awaitName {
					member, awaitName = rules.as[nameOf(unquote(raw[i:end]))], false
				} else if awaitValue {
					awaitValue = false
					if member == timestamp {
						stamped = true
						t, err := stampOf(unquote(raw[i:end]))
						instant = rules.checked(t, err, report)
					}
				}
			}
			i = end - 1
		case ':':
			awaitValue = depth == 1
			if awaitValue && member == messageID {
				report(fault{"/message_id", errMessageID})
			}
		case ',':
			awaitName = depth == 1
		case '{', '[':
			if awaitValue {
				awaitValue = false
				stamped = rules.reportKind(member, c, report) || stamped
			}
			depth++
			deepest = max(deepest, depth)
		case '}', ']':
			depth--
		default:
			if awaitValue { // a number, true, false or null
				awaitValue = false
				stamped = rules.reportKind(member, c, report) || stamped
			}
		}
	}
	dst = closed(append(dst, raw[from:]...))
	if deepest > MaxDepth {
		report(fault{"", errDepth})
	}
	if !stamped {
		t, err := rules.instant(raw, id)
		instant = rules.checked(t, err, report)
	}
	return dst, instant
}

// closed returns a line without the comma that the head of an entry without members has.
func closed(line []byte) []byte {
	if head, empty := bytes.CutSuffix(line, []byte(",}")); empty {
		return append(head, '}')
	}
	return line
}

// checked reports the error of a timestamp, if there is one.
func (r *Rules) checked(t time.Time, err error, report func(fault)) time.Time {
	if err != nil {
		report(fault{r.pointer, err})
	}
	return t
}

// reportKind reports a member that had to be a string, and begins with c. It returns
// whether that was the timestamp, which then is wrong but not missing.
func (r *Rules) reportKind(member name, c byte, report func(fault)) (isTimestamp bool) {
	switch member {
	case timestamp:
		report(fault{r.pointer, r.wrongKind(c)})
	case value:
		report(fault{"/value", errValueKind})
	}
	return member == timestamp
}

// name is one of the member names that have rules.
type name uint8

const (
	otherName name = iota
	timestamp
	value
	messageID

	nameCount = iota // how many there are
)

// nameOf recognises a member name, without quotes and escapes.
func nameOf(text []byte) name {
	switch string(text) {
	case "timestamp":
		return timestamp
	case "value":
		return value
	case "message_id":
		return messageID
	}
	return otherName
}

// unquote returns the text of a valid JSON string.
func unquote(quoted []byte) []byte {
	text := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(text, '\\') >= 0 {
		// The string was validated, so there is no error.
		text, _ = jsontext.AppendUnquote(nil, quoted)
	}
	return text
}
