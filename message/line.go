package message

import (
	"errors"
	"fmt"
	"time"
)

// MaxLineBytes is the longest line, in bytes and without its newline.
const MaxLineBytes = MaxEntryBytes + len(linePrefix) + maxForeignID + len(`",`)

var (
	errLineID   = errors.New("the line does not start with a message_id")
	errLineForm = errors.New("the line holds white space outside of strings")
)

// ParseLine returns the message of a line of an output file, given without its
// newline. The message refers to line and has its Time. That is zero if the rules
// take it from the id, and another program gave the id.
//
// It fails for every line that Decode and Open would never have made, so that
// what it accepts is what was written.
func (r *Rules) ParseLine(line []byte) (Message, error) {
	m := Message{Line: line}
	if id := m.RawID(); len(id) == 0 || !validForeignID(string(id)) {
		return Message{}, errLineID
	}
	if len(line) > MaxLineBytes {
		return Message{}, fmt.Errorf("the line has %d bytes, the limit is %d: %w", len(line), MaxLineBytes, ErrTooLarge)
	}
	s := scanner{rules: r}
	if s.intact(line, ourLine) {
		m.Time = s.instant
		return m, nil
	}
	var err error
	if m.Time, err = r.readLine(line); err != nil {
		return Message{}, err
	}
	return m, nil
}

// readLine is ParseLine for the line, with a fine id, that is not fine or has
// something rare about it.
func (r *Rules) readLine(line []byte) (time.Time, error) {
	dec := borrow()
	defer dec.giveBack()
	if err := readOne(dec, line); err != nil {
		return time.Time{}, syntaxError(err, "the line")
	}
	// The line is an entry like any other but for the message_id, and that one
	// is there once: readOne refuses duplicate names.
	var (
		errs    []error
		instant time.Time
	)
	dec.entry, instant = appendEntry(dec.entry[:0], nil, line, r, Message{Line: line}.RawID(), func(f fault) {
		if f.err != errMessageID {
			errs = append(errs, f.err)
		}
	})
	if len(dec.entry) != len(line)-len("{") {
		errs = append(errs, errLineForm)
	}
	return instant, errors.Join(errs...)
}

// intact tells that the line, which starts with a message_id, is an object of
// that form.
func (s *scanner) intact(line []byte, f form) bool {
	s.src, s.form, s.stamped, s.names.open = line, f, false, 0
	return s.object(0, 1) == len(line) && (f == anyObject || s.stamped || s.stamp(0, len(line), Message{Line: line}.RawID()))
}
