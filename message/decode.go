package message

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// Format is the media type of a body.
type Format uint8

const (
	// JSON is one array of entries, or one entry (RFC 8259).
	JSON Format = iota
	// NDJSON is one entry per line; blank lines are ignored
	// (github.com/ndjson/ndjson-spec).
	NDJSON
)

// Decode is Strict.Decode.
func Decode(id string, body []byte, f Format) (Submission, error) { return Strict.Decode(id, body, f) }

// Decode turns a body into the submission with the given id. It is strict: one
// JSON value, valid UTF-8, no duplicate names, nothing behind the value. Members
// without a rule are kept as sent. The messages do not refer to body.
//
// It fails with an *InvalidError that lists every bad entry, or with an error
// that wraps ErrTooLarge.
func (r *Rules) Decode(id string, body []byte, f Format) (Submission, error) {
	m := memories.Get().(*memory)
	if scan(m, id, body, f, r) {
		return Submission{ID: id, Messages: m.messages, memory: m}, nil
	}
	m.giveBack()
	if err := checkStart(body); err != nil {
		return Submission{}, &InvalidError{Entries: []EntryError{{Index: -1, Detail: err.Error()}}}
	}
	s, err := r.examine(id, body, f, 1)
	if err == nil || errors.Is(err, ErrTooLarge) {
		return s, err
	}
	return r.examine(id, body, f, MaxReported, lax...)
}

// decoder reads JSON in place: jsontext does not copy from a bytes.Buffer.
type decoder struct {
	jsontext.Decoder
	source bytes.Buffer
	entry  []byte // ParseLine's, to compare with
}

func (d *decoder) read(text []byte, opts ...jsontext.Options) {
	d.source = *bytes.NewBuffer(text)
	d.Reset(&d.source, opts...)
}

// decoders are kept for their memory, not for what they read.
var decoders = sync.Pool{New: func() any { return new(decoder) }}

func borrow() *decoder { return decoders.Get().(*decoder) }

func (d *decoder) giveBack() {
	d.read(nil)
	decoders.Put(d)
}

// examine is Decode for a body that the scanner did not accept. The body is wrong,
// or has something rare about it. It reports that many faults at most.
//
// With the options, for a body that is wrong, it reads without the rules on names
// and UTF-8, so that it finds the end of an entry that breaks them and can go on.
// Then it reads each entry again, with the rules.
func (r *Rules) examine(id string, body []byte, f Format, most int, lax ...jsontext.Options) (Submission, error) {
	dec, strict := borrow(), borrow()
	defer dec.giveBack()
	defer strict.giveBack()
	var (
		found    []EntryError
		messages []Message
		ends     []int // of the messages in lines, which may move when it grows
		index    int
	)
	var lines []byte
	if len(lax) == 0 {
		// Most entries are longer than the id that is put in front of them, so
		// this seldom grows.
		lines = make([]byte, 0, 2*len(body))
	}
	head := append(append([]byte(linePrefix), id...), '.')
	base := len(head)
	for raw, err := range entries(dec, body, f, lax...) {
		if errors.Is(err, ErrTooLarge) {
			return Submission{}, err
		}
		if whole, ok := errors.AsType[bodyError](err); ok {
			found = append(found, EntryError{Index: -1, Detail: whole.Error()})
		} else if err != nil {
			found = append(found, grammarError(index, err))
		} else if err := readAgain(strict, raw, lax); err != nil {
			found = append(found, ruleError(index, err))
		} else {
			if len(lax) > 0 {
				lines = lines[:0] // only the faults are needed
			}
			head = append(strconv.AppendInt(head[:base], int64(index), 10), `",`...)
			var m Message
			lines, m.Time = appendEntry(lines, head, raw, r, head[len(linePrefix):base-1], func(f fault) {
				found = append(found, entryError(index, f.pointer, f.err))
			})
			messages, ends = append(messages, m), append(ends, len(lines))
		}
		if len(found) >= most {
			found = found[:most]
			break
		}
		index++
	}
	if len(found) > 0 || len(lax) > 0 {
		if f == JSON && isEntry(body) { // pointers are into the body, which is the entry
			for i := range found {
				found[i].Pointer = strings.TrimPrefix(found[i].Pointer, "/0")
			}
		}
		return Submission{}, &InvalidError{Entries: found}
	}
	start := 0
	for i, end := range ends {
		messages[i].Line = lines[start:end:end]
		start = end
	}
	return Submission{ID: id, Messages: messages}, nil
}

// readAgain is readOne for an entry that was read with the options.
func readAgain(strict *decoder, raw []byte, lax []jsontext.Options) error {
	if len(lax) == 0 {
		return nil
	}
	return readOne(strict, raw)
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

func entryError(index int, pointer string, err error) EntryError {
	return EntryError{Index: index, Pointer: "/" + strconv.Itoa(index) + pointer, Detail: err.Error()}
}

// grammarError reports text that is not JSON, in or behind an entry.
func grammarError(index int, err error) EntryError {
	return entryError(index, "", syntaxError(err, "the body or line"))
}

// maxPointer is the longest pointer into an entry that is reported, in bytes. The
// client chose the names in it.
const maxPointer = 256

// ruleError reports JSON that breaks the rules on names or UTF-8.
func ruleError(index int, err error) EntryError {
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	if !ok {
		return entryError(index, "", err)
	}
	e := entryError(index, "", errors.New(kindOf(syntax)))
	if len(syntax.JSONPointer) <= maxPointer {
		e.Pointer += string(syntax.JSONPointer)
	}
	return e
}
