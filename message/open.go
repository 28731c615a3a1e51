package message

import (
	"bytes"
	"errors"
	"fmt"
)

// maxForeignID is the longest id that another program may choose, in bytes; it
// is what an AMQP short string can hold.
const maxForeignID = 255

// Open returns the envelope's messages, their Time unset, and apart from them the
// lines that can never be written. Both refer to Body. It fails if the envelope
// cannot be divided into its lines, or more than MaxReported of them are bad.
// Another try would not help: an error, like a dead line, is for the dead-letter
// queue. The rules are for entries that another program published; ours were held
// against them before.
func (r *Rules) Open(e Envelope) ([]Message, []Dead, error) {
	dec := borrow()
	defer dec.giveBack()
	if e.Foreign {
		messages, err := r.openForeign(e, dec)
		return messages, nil, err
	}
	if len(e.Body) == 0 {
		return nil, nil, errors.New("the envelope is empty")
	}
	// Count is from a header and may be any number, but no line is shorter than its
	// prefix.
	messages := make([]Message, 0, min(max(e.Count, 0), len(e.Body)/len(linePrefix)))
	var (
		dead []Dead
		s    scanner
	)
	for line := range bytes.Lines(e.Body) {
		n := len(messages) + len(dead) + 1
		m := Message{Line: bytes.TrimSuffix(line, []byte{'\n'})}
		if len(m.Line) == len(line) {
			return nil, nil, fmt.Errorf("line %d of the envelope has no newline at its end", n)
		}
		if err := checkLine(dec, &s, m); err != nil {
			if len(dead) == MaxReported {
				return nil, nil, fmt.Errorf("more than %d lines of the envelope are bad, the first because: %s", MaxReported, dead[0].Reason)
			}
			dead = append(dead, Dead{Line: m.Line, Reason: fmt.Sprintf("line %d of the envelope %v", n, err)})
			continue
		}
		messages = append(messages, m)
	}
	if n := len(messages) + len(dead); n != e.Count {
		return nil, nil, fmt.Errorf("the envelope announces %d messages and holds %d", e.Count, n)
	}
	return messages, dead, nil
}

// checkLine tells why a line of an envelope cannot be written.
func checkLine(dec *decoder, s *scanner, m Message) error {
	if len(m.RawID()) == 0 {
		return errors.New("does not start with a message_id")
	}
	if s.intact(m.Line, anyObject) {
		return nil
	}
	if err := readOne(dec, m.Line); err != nil {
		return fmt.Errorf("is not strict JSON: %w", syntaxError(err, "the line"))
	}
	return nil
}

// openForeign makes a message of an entry that another program published,
// with the id it chose or else one made from its bytes.
func (r *Rules) openForeign(e Envelope, dec *decoder) ([]Message, error) {
	id := e.ID
	switch {
	case len(e.Body) > MaxEntryBytes:
		return nil, fmt.Errorf("the entry has more than %d KiB: %w", MaxEntryBytes>>10, ErrEntryTooLarge)
	case id == "":
		id = KeyedID("", e.Body)
	case !validForeignID(id):
		return nil, fmt.Errorf("the message id must be 1 to %d visible ASCII characters without quote and backslash", maxForeignID)
	}
	if err := readOne(dec, e.Body); err != nil {
		return nil, fmt.Errorf("the entry is not strict JSON: %w", syntaxError(err, "the entry"))
	}
	raw := bytes.Trim(e.Body, blank)
	var errs []error
	line, _ := appendEntry(nil, []byte(linePrefix+id+`",`), raw, r, []byte(id), func(f fault) { errs = append(errs, f.err) })
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return []Message{{Line: line}}, nil
}

func validForeignID(id string) bool {
	for _, c := range []byte(id) {
		if c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return len(id) <= maxForeignID
}
