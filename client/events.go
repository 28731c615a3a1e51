package client

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxEvent bounds an event of a stream, in bytes, and a line of it.
const maxEvent = 1 << 20

// sse is a server-sent event (HTML standard, section 9.2.6).
type sse struct {
	event string // its type
	id    string // the last one that the stream had
	data  []byte // valid until the next event
}

// events reads a stream of server-sent events. Its lines must end with "\n" or "\r\n".
type events struct {
	lines *bufio.Scanner
	e     sse
}

func newEvents(r io.Reader) *events {
	s := &events{lines: bufio.NewScanner(r)}
	s.lines.Buffer(nil, maxEvent)
	return s
}

// next returns the next event. One that is not whole is none. The error of the end is
// io.EOF.
func (s *events) next() (sse, error) {
	s.e.event, s.e.data = "", s.e.data[:0]
	for s.lines.Scan() {
		line := bytes.TrimSuffix(s.lines.Bytes(), []byte("\r"))
		if len(line) == 0 {
			if len(s.e.data) == 0 { // comments, or an id alone
				s.e.event = ""
				continue
			}
			if s.e.event == "" {
				s.e.event = "message"
			}
			return s.e, nil
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			s.e.event = string(value)
		case "id":
			if id := string(value); !strings.Contains(id, "\x00") {
				s.e.id = id
			}
		case "data":
			if len(s.e.data)+len(value) > maxEvent {
				return sse{}, errLongEvent
			}
			if len(s.e.data) > 0 {
				s.e.data = append(s.e.data, '\n')
			}
			s.e.data = append(s.e.data, value...)
		}
	}
	switch err := s.lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return sse{}, errLongEvent
	case err != nil:
		return sse{}, err
	}
	return sse{}, io.EOF
}

var errLongEvent = fmt.Errorf("the server sends an event of more than %d bytes", maxEvent)
