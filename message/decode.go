package message

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// Format is the media type of a body.
type Format uint8

const (
	// JSON is one array of entries (RFC 8259).
	JSON Format = iota
	// NDJSON is one entry per line; blank lines are ignored
	// (github.com/ndjson/ndjson-spec).
	NDJSON
)

// Decode turns a body into the submission with the given id. It is strict: one
// JSON value, valid UTF-8, no duplicate names, nothing behind it; what the
// entries hold beside timestamp and value is kept as sent. The messages do not
// refer to body.
//
// It fails with an *InvalidError that lists every bad entry, or with an error
// that wraps ErrTooLarge.
func Decode(id string, body []byte, f Format) (Submission, error) {
	m := memories.Get().(*memory)
	if scan(m, id, body, f) {
		return Submission{ID: id, Messages: m.messages, memory: m}, nil
	}
	m.giveBack()
	s, err := decode(id, body, f)
	if err == nil || errors.Is(err, ErrTooLarge) {
		return s, err
	}
	return Submission{}, diagnose(body, f)
}

// decoder reads JSON where it stands: from a bytes.Buffer jsontext does not copy.
type decoder struct {
	jsontext.Decoder
	source bytes.Buffer
	entry  []byte // ParseLine's, to compare with
}

func (d *decoder) read(text []byte, opts ...jsontext.Options) {
	d.source = *bytes.NewBuffer(text)
	d.Reset(&d.source, opts...)
}

// decoders are kept for what they have allocated, not for what they read.
var decoders = sync.Pool{New: func() any { return new(decoder) }}

func borrow() *decoder { return decoders.Get().(*decoder) }

func (d *decoder) giveBack() {
	d.read(nil)
	decoders.Put(d)
}

// decode is Decode for the body that is fine but has something rare about it;
// its error says only that the body is not fine.
func decode(id string, body []byte, f Format) (Submission, error) {
	dec := borrow()
	defer dec.giveBack()

	var failed error
	report := func(f fault) { failed = f.err }
	head := append([]byte(linePrefix), id...)
	head = append(head, '.')
	base := len(head)

	// Most entries are longer than the id that is put in front of them, so
	// this seldom grows.
	lines := make([]byte, 0, 2*len(body))
	var messages []Message
	var ends []int
	for raw, err := range entries(dec, body, f) {
		if err != nil {
			return Submission{}, err
		}
		head = strconv.AppendInt(head[:base], int64(len(messages)), 10)
		head = append(head, `",`...)
		var m Message
		if lines, m.Time = appendEntry(lines, head, raw, report); failed != nil {
			return Submission{}, failed
		}
		messages = append(messages, m)
		ends = append(ends, len(lines))
	}
	// lines may have moved while it grew, so the messages get theirs now.
	start := 0
	for i, end := range ends {
		messages[i].Line = lines[start:end:end]
		start = end
	}
	return Submission{ID: id, Messages: messages}, nil
}

// diagnose lists what is wrong with a body that decode refused. It reads the
// body again without the rules on names and UTF-8, so that it can find the end
// of an entry that breaks them and go on to the next.
func diagnose(body []byte, f Format) error {
	var (
		lax, strict = new(decoder), new(decoder)
		found       []EntryError
		scratch     []byte
		index       int
	)
	for raw, err := range entries(lax, body, f, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) {
		if errors.Is(err, ErrTooLarge) {
			return err
		}
		if whole, ok := errors.AsType[bodyError](err); ok {
			found = append(found, EntryError{Index: -1, Detail: whole.Error()})
		} else if err != nil {
			found = append(found, grammarError(index, err))
		} else if err := readOne(strict, raw); err != nil {
			found = append(found, ruleError(index, err))
		} else {
			scratch, _ = appendEntry(scratch[:0], nil, raw, func(f fault) {
				found = append(found, entryError(index, f.member, f.err))
			})
		}
		if len(found) >= MaxReported {
			found = found[:MaxReported]
			break
		}
		index++
	}
	return &InvalidError{Entries: found}
}

// readOne checks that raw is one strict JSON value and nothing else.
func readOne(dec *decoder, raw []byte) error {
	dec.read(raw)
	if _, err := dec.ReadValue(); err != nil {
		return err
	}
	if len(bytes.Trim(raw[dec.InputOffset():], blank)) > 0 {
		return errSecondValue
	}
	return nil
}

func entryError(index int, member string, err error) EntryError {
	pointer := "/" + strconv.Itoa(index)
	if member != "" {
		pointer += "/" + member
	}
	return EntryError{Index: index, Pointer: pointer, Detail: err.Error()}
}

// grammarError reports text that is not JSON, in or behind an entry.
func grammarError(index int, err error) EntryError {
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		err = fmt.Errorf("%w, at byte %d of the body or line", syntax.Err, syntax.ByteOffset)
	}
	return entryError(index, "", err)
}

// maxPointer is the longest pointer into an entry that is reported, in bytes:
// the names in it are the client's.
const maxPointer = 256

// ruleError reports JSON that breaks the rules on names or UTF-8.
func ruleError(index int, err error) EntryError {
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	if !ok {
		return entryError(index, "", err)
	}
	e := entryError(index, "", syntax.Err)
	if len(syntax.JSONPointer) <= maxPointer {
		e.Pointer += string(syntax.JSONPointer)
	}
	return e
}
