package message

import (
	"bytes"
	"errors"
	"fmt"
)

// maxForeignID is the longest id that another program may choose, in bytes; it
// is what an AMQP short string can hold.
const maxForeignID = 255

// Open returns the envelope's messages, their Time unset. They refer to Body.
// An error says why the envelope can never be written: it is a matter for the
// dead-letter queue, not for another try.
func (e Envelope) Open() ([]Message, error) {
	dec := borrow()
	defer dec.giveBack()
	if e.Foreign {
		return e.openForeign(dec)
	}
	if len(e.Body) == 0 {
		return nil, errors.New("the envelope is empty")
	}
	// Count is what a header says and may be anything, but no line is shorter
	// than its prefix.
	messages := make([]Message, 0, min(max(e.Count, 0), len(e.Body)/len(linePrefix)))
	for line := range bytes.Lines(e.Body) {
		m := Message{Line: bytes.TrimSuffix(line, []byte{'\n'})}
		if len(m.Line) == len(line) {
			return nil, fmt.Errorf("line %d of the envelope has no newline at its end", len(messages)+1)
		}
		if len(m.RawID()) == 0 {
			return nil, fmt.Errorf("line %d of the envelope does not start with a message_id", len(messages)+1)
		}
		if err := readOne(dec, m.Line); err != nil {
			return nil, fmt.Errorf("line %d of the envelope: %w", len(messages)+1, err)
		}
		messages = append(messages, m)
	}
	if len(messages) != e.Count {
		return nil, fmt.Errorf("the envelope announces %d messages and holds %d", e.Count, len(messages))
	}
	return messages, nil
}

// openForeign makes a message of an entry that another program published,
// with the id it chose or else one made from its bytes.
func (e Envelope) openForeign(dec *decoder) ([]Message, error) {
	id := e.ID
	switch {
	case len(e.Body) > MaxEntryBytes:
		return nil, fmt.Errorf("the entry has %d bytes, the limit is %d: %w", len(e.Body), MaxEntryBytes, ErrTooLarge)
	case id == "":
		id = KeyedID("", e.Body)
	case !validForeignID(id):
		return nil, fmt.Errorf("the message id must be 1 to %d visible ASCII characters without quote and backslash", maxForeignID)
	}
	if err := readOne(dec, e.Body); err != nil {
		return nil, fmt.Errorf("the entry is not strict JSON: %w", err)
	}
	raw := bytes.Trim(e.Body, blank)
	var errs []error
	line, _ := appendEntry(nil, []byte(linePrefix+id+`",`), raw, func(f fault) { errs = append(errs, f.err) })
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
